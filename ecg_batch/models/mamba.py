"""A Mamba language model over texture tokens, small enough to read in one sitting.

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t        y_t = C_t h_t + D x_t

[1] Gu and Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, https://arxiv.org/abs/2312.00752
Parameters carry the names of mamba_ssm's MambaLMHeadModel, so one file of weights loads unchanged into it and into
transformers' MambaForCausalLM, which renames `embedding` itself when it loads.

Glossary
    b         batch (records)
    l         length in tokens
    v         vocabulary: texture tokens, then condition tokens, padded to a multiple of 8
    d         d_model, width of the residual stream
    d_in      expand * d, width inside a mixer             (`D` in [1], Algorithm 2)
    n         d_state, states per inner channel            (`N` in [1], Algorithm 2)
    k         d_conv, taps of the causal convolution
    r         dt_rank, rank of the projection behind Δ     ([1], section 3.6)
    Δ, delta  step size, positive, depends on the input    ([1], section 3.5.2)
    A, B, C, D  state space parameters; B and C depend on the input, A and D do not

Conditioning is a prefix token: the sequence starts with the token of its condition. That takes no parameter which the
reference implementations lack, and the recurrent state carries it as far as it is useful. A condition (b, d) may besides be
added to the embedding of every token, so that it is never forgotten (sequences/model.py).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.models.networks import MambaConfig

try:  # CUDA kernels, optional. Written against mamba-ssm 2.2 and causal-conv1d 1.5; not yet measured on a GPU.
    from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    KERNELS = True
except ImportError:
    KERNELS = False


@dataclass
class MambaState:
    """What a sequence carries from token to token: of constant size at any length. `step` updates it in place."""

    conv: torch.Tensor  # (n_layer, b, d_in, k): the last k inputs of each convolution
    ssm: torch.Tensor  # (n_layer, b, d_in, n): h
    scratch: torch.Tensor  # (b, d_in, n): room for one product, so that a step allocates nothing large


class MambaLM(nn.Module):
    """Embedding, n_layer residual blocks, a norm, and an output head tied to the embedding."""

    def __init__(self, config: MambaConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.lm_head.weight = self.backbone.embedding.weight

    def forward(self, tokens: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of the next token at every position, from an empty state: (b, l), condition (b, d) -> (b, l, v)."""
        h = self.backbone.embedding(tokens)  # (b, l, d)
        if condition is not None:
            h = h + condition[:, None]  # (b, l, d)
        for layer in self.backbone.layers:
            h = h + layer.mixer(layer.norm(h))  # (b, l, d)
        return self.lm_head(self.backbone.norm_f(h))  # (b, l, v)

    def step(
        self, token: torch.Tensor, state: MambaState, condition: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, MambaState]:
        """One token further: (b,), state, condition (b, d) -> logits (b, v), the same state object with its contents moved on.

        Equals the last position of `forward` on the whole sequence. For inference only: it writes in place.
        """
        h = self.backbone.embedding(token)  # (b, d)
        if condition is not None:
            h = h + condition  # (b, d)
        for layer, conv, ssm in zip(self.backbone.layers, state.conv, state.ssm, strict=True):
            h = h + layer.mixer.step(layer.norm(h), conv, ssm, state.scratch)  # (b, d)
        return self.lm_head(self.backbone.norm_f(h)), state  # (b, v)

    def empty_state(self, batch: int) -> MambaState:
        c, like = self.config, self.lm_head.weight
        return MambaState(
            conv=like.new_zeros(c.n_layer, batch, c.d_inner, c.d_conv),
            ssm=like.new_zeros(c.n_layer, batch, c.d_inner, c.d_state),
            scratch=like.new_empty(batch, c.d_inner, c.d_state),
        )


class Backbone(nn.Module):
    """Holds the parameters under the names that mamba_ssm gives them."""

    def __init__(self, config: MambaConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model)


class Block(nn.Module):
    def __init__(self, config: MambaConfig):
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.mixer = Mixer(config)


class RMSNorm(nn.Module):
    """x / rms(x) * weight. Written out, in the order of the reference: torch's fused one differs in the last bits."""

    def __init__(self, d: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight  # (..., d)


class Mixer(nn.Module):
    """One Mamba block: project up, a short causal convolution, the selective state space, a gate, project down."""

    def __init__(self, config: MambaConfig):
        super().__init__()
        d, d_in, n, k, r = config.d_model, config.d_inner, config.d_state, config.d_conv, config.dt_rank
        self.sizes = (r, n, n)
        self.in_proj = nn.Linear(d, 2 * d_in, bias=False)
        self.conv1d = nn.Conv1d(d_in, d_in, k, groups=d_in, padding=k - 1)
        self.x_proj = nn.Linear(d_in, r + 2 * n, bias=False)
        self.dt_proj = nn.Linear(r, d_in)
        self.A_log = nn.Parameter(torch.arange(1.0, n + 1).log().repeat(d_in, 1))  # (d_in, n), S4D-real
        self.D = nn.Parameter(torch.ones(d_in))
        self.out_proj = nn.Linear(d_in, d, bias=False)
        self._start(config)

    @torch.no_grad()
    def _start(self, config: MambaConfig) -> None:
        """Initial values of the reference: Δ log-uniform in 0.001 .. 0.1, the residual branch scaled by depth."""
        nn.init.uniform_(self.dt_proj.weight, -(config.dt_rank**-0.5), config.dt_rank**-0.5)
        delta = torch.exp(torch.empty(config.d_inner).uniform_(math.log(1e-3), math.log(1e-1)))  # (d_in,)
        self.dt_proj.bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # the inverse of softplus
        self.out_proj.weight /= math.sqrt(config.n_layer)

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """All positions at once, from an empty state: (b, l, d) -> (b, l, d)."""
        if KERNELS and u.is_cuda:
            return self._forward_cuda(u)
        x, z = self.in_proj(u).chunk(2, dim=-1)  # (b, l, d_in) each
        x = self.conv1d(x.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2)  # (b, l, d_in)
        x = F.silu(x)  # (b, l, d_in)
        delta, B, C = self.x_proj(x).split(self.sizes, dim=-1)  # (b, l, r), (b, l, n), (b, l, n)
        delta = F.softplus(self.dt_proj(delta))  # (b, l, d_in)
        y = SelectiveScan.apply(x, delta, -self.A_log.exp(), B, C)  # (b, l, d_in)
        return self.out_proj((y + self.D * x) * F.silu(z))  # (b, l, d)

    def _forward_cuda(self, u: torch.Tensor) -> torch.Tensor:
        x, z = self.in_proj(u).transpose(1, 2).chunk(2, dim=1)  # (b, d_in, l) each
        x = causal_conv1d_fn(x, self.conv1d.weight.squeeze(1), self.conv1d.bias, activation="silu")  # (b, d_in, l)
        delta, B, C = self.x_proj(x.transpose(1, 2)).split(self.sizes, dim=-1)  # (b, l, r), (b, l, n), (b, l, n)
        delta = (delta @ self.dt_proj.weight.T).transpose(1, 2)  # (b, d_in, l), its bias goes to the kernel
        y = selective_scan_fn(
            x, delta, -self.A_log.exp(), B.transpose(1, 2).contiguous(), C.transpose(1, 2).contiguous(), self.D,
            z=z, delta_bias=self.dt_proj.bias, delta_softplus=True,
        )  # (b, d_in, l)  # fmt: skip
        return self.out_proj(y.transpose(1, 2))  # (b, l, d)

    def step(self, u: torch.Tensor, conv: torch.Tensor, h: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
        """One position: (b, d), conv (b, d_in, k), h (b, d_in, n) -> (b, d). `conv` and `h` are moved on in place."""
        if KERNELS and u.is_cuda:
            return self._step_cuda(u, conv, h)
        x, z = self.in_proj(u).chunk(2, dim=-1)  # (b, d_in) each
        conv.copy_(torch.cat([conv[..., 1:], x[..., None]], dim=-1))  # (b, d_in, k)
        x = F.silu((conv * self.conv1d.weight.squeeze(1)).sum(-1) + self.conv1d.bias)  # (b, d_in)
        delta, B, C = self.x_proj(x).split(self.sizes, dim=-1)  # (b, r), (b, n), (b, n)
        delta = F.softplus(self.dt_proj(delta))  # (b, d_in)
        torch.mul(delta[..., None], -self.A_log.exp(), out=scratch)  # (b, d_in, n): Δ A
        h.mul_(scratch.exp_())  # (b, d_in, n)
        h.addcmul_((delta * x)[..., None], B[:, None, :])  # (b, d_in, n)
        y = torch.bmm(h, C[..., None]).squeeze(-1)  # (b, d_in)
        return self.out_proj((y + self.D * x) * F.silu(z))  # (b, d)

    def _step_cuda(self, u: torch.Tensor, conv: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        x, z = self.in_proj(u).chunk(2, dim=-1)  # (b, d_in) each
        x = causal_conv1d_update(x, conv, self.conv1d.weight.squeeze(1), self.conv1d.bias, "silu")  # (b, d_in)
        delta, B, C = self.x_proj(x).split(self.sizes, dim=-1)  # (b, r), (b, n), (b, n)
        delta = delta @ self.dt_proj.weight.T  # (b, d_in), its bias goes to the kernel
        A, bias = -self.A_log.exp(), self.dt_proj.bias  # (d_in, n), (d_in,)
        y = selective_state_update(h, x, delta, A, B, C, self.D, z=z, dt_bias=bias, dt_softplus=True)  # (b, d_in)
        return self.out_proj(y)  # (b, d)


class SelectiveScan(torch.autograd.Function):
    """y_t = C_t h_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t x_t B_t, and its gradient, one position at a time.

    Time goes first in memory and the state of one position (b * d_in * n floats: 512 KiB for a batch of 64) stays in
    the cache, so a step costs a few passes over the cache. Autograd through the same loop would keep five such tensors
    for every position; here only h is kept, and exp(Δ A) is computed again on the way back, as the CUDA kernel does.
    """

    @staticmethod
    def forward(ctx, x, delta, A, B, C):
        x, delta, B, C = (t.transpose(0, 1).contiguous() for t in (x, delta, B, C))  # (l, b, d_in or n)
        dx = (delta * x)[..., None]  # (l, b, d_in, 1)
        hs = x.new_zeros(len(x) + 1, *x.shape[1:], A.shape[1])  # (l + 1, b, d_in, n), hs[t + 1] is h after position t
        decay = torch.empty_like(hs[0])  # (b, d_in, n)
        for t in range(len(x)):
            torch.mul(delta[t, ..., None], A, out=decay).exp_()  # (b, d_in, n)
            torch.mul(dx[t], B[t, :, None], out=hs[t + 1]).addcmul_(decay, hs[t])  # (b, d_in, n)
        y = (hs[1:] @ C[..., None]).squeeze(-1)  # (l, b, d_in)
        ctx.save_for_backward(x, delta, A, B, C, hs)
        return y.transpose(0, 1)  # (b, l, d_in)

    @staticmethod
    def backward(ctx, gy):
        x, delta, A, B, C, hs = ctx.saved_tensors
        gy = gy.transpose(0, 1).contiguous()  # (l, b, d_in)
        dx = delta * x  # (l, b, d_in)
        gdelta, gdx, gB = torch.empty_like(x), torch.empty_like(x), torch.empty_like(B)
        gh, decay, product, gA = (torch.zeros_like(hs[0]) for _ in range(4))  # (b, d_in, n)
        for t in reversed(range(len(x))):
            gh.mul_(decay).addcmul_(gy[t, ..., None], C[t, :, None])  # (b, d_in, n): gradient of h after position t
            torch.bmm(gh, B[t, ..., None], out=gdx[t, ..., None])  # (b, d_in, 1)
            torch.bmm(dx[t, :, None], gh, out=gB[t, :, None])  # (b, 1, n)
            torch.mul(delta[t, ..., None], A, out=decay).exp_()  # (b, d_in, n)
            torch.mul(gh, hs[t], out=product).mul_(decay)  # (b, d_in, n): gradient of the product Δ_t A
            gA.addcmul_(product, delta[t, ..., None])  # (b, d_in, n)
            torch.sum(product.mul_(A), dim=-1, out=gdelta[t])  # (b, d_in)
        gC = (gy[..., None, :] @ hs[1:]).squeeze(-2)  # (l, b, n)
        gdelta += gdx * x  # (l, b, d_in)
        return (gdx * delta).transpose(0, 1), gdelta.transpose(0, 1), gA.sum(0), gB.transpose(0, 1), gC.transpose(0, 1)
