"""Sampling: from logits to a token, and the plain token loop that every faster one is held to."""

import torch

from ecg_batch.models.mamba import MambaLM, MambaState


@torch.inference_mode()
def plain_tokens(
    mamba: MambaLM,
    last: torch.Tensor,
    state: MambaState,
    uniforms: torch.Tensor,
    temperature: float = 1.0,
    condition: torch.Tensor | None = None,
) -> torch.Tensor:
    """decode.continue_tokens step by step: the reference, and what runs where no kernel does."""
    uniforms = torch.as_tensor(uniforms).to(last.device)  # (b, l) float64
    tokens = torch.empty(uniforms.shape, dtype=torch.int64, device=last.device)  # (b, l)
    for t in range(uniforms.shape[1]):
        logits, state = mamba.step(last, state, condition)  # (b, v)
        last = inverse_cdf(logits[:, : mamba.config.texture_tokens], uniforms[:, t], temperature)  # (b,)
        tokens[:, t] = last
    return tokens


def inverse_cdf(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
    """The token in whose share of [0, 1) the uniform number falls: (b, K), (b,) -> (b,).

    The sum runs in float64: in float32 the 512 shares would add up to 1 +- 3e-6, and rare tokens would be skipped.
    """
    weight = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).exp_()  # (b, K)
    cdf = weight.cumsum(dim=1, dtype=torch.float64)  # (b, K), its last column is the total
    token = torch.searchsorted(cdf, (uniform * cdf[:, -1])[:, None], right=True)  # (b, 1)
    return token.squeeze(1).clamp_(max=logits.shape[1] - 1)  # (b,); uniform * total can round up to the total itself
