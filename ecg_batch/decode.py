"""Decode: conditions and random numbers in, texture out. The models hold no randomness of their own.

A record's tokens and texture depend on its own row of every argument, and on the batch size, which belongs to the
request (rule 5 of the method): floating-point sums may round differently in a batch of another size.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ecg_batch import decode_kernel, draws, texture_kernel
from ecg_batch.conditions import condition_of
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.mamba import MambaConfig, MambaLM, MambaState
from ecg_batch.vqvae import VqVae, VqVaeConfig

VQVAE_FORMAT = "ecg-batch vqvae 1"
MAMBA_FORMAT = "ecg-batch mamba 1"
TILE = 4  # records the plain texture decoder takes at a time: their activations, 250 KB a layer at 250 tokens, stay in cache


@dataclass(frozen=True)
class Models:
    """The two trained models and what their files say about them."""

    vqvae: VqVae
    mamba: MambaLM
    conditions: tuple[str, ...]
    superclass_of: dict[str, str]
    fs_hz: float

    @property
    def samples_per_token(self) -> int:
        return self.vqvae.config.samples_per_token


def load_vqvae(path: Path, device: torch.device | str = "cpu") -> tuple[VqVae, float]:
    """The VQ-VAE of a file and the sampling rate it was trained at, Hz."""
    tensors, metadata = read_weights(path, VQVAE_FORMAT, "vqvae")
    model = VqVae(VqVaeConfig.from_json(metadata["config"]))
    model.load_state_dict(tensors)
    return frozen(model, device), float(metadata["fs_hz"])


def load_models(folder: Path, device: torch.device | str = "cpu") -> Models:
    """The two weight files of one folder. UserError where they are absent or do not belong together."""
    folder = Path(folder)
    vqvae, fs_hz = load_vqvae(folder / "vqvae.safetensors", device)
    tensors, metadata = read_weights(folder / "mamba.safetensors", MAMBA_FORMAT, "mamba")
    if metadata["vqvae_sha256"] != sha256_file(folder / "vqvae.safetensors"):
        raise UserError(
            f"{folder}/mamba.safetensors was trained on the tokens of another VQ-VAE than the vqvae.safetensors beside "
            "it; its tokens would decode to something else. Take both files from one training, or run "
            "python jobs/train.py mamba again"
        )
    mamba = MambaLM(MambaConfig(**json.loads(metadata["config"])))
    mamba.load_state_dict(tensors)
    conditions, superclass_of = tuple(json.loads(metadata["conditions"])), json.loads(metadata["superclass_of"])
    return Models(vqvae, frozen(mamba, device), conditions, superclass_of, fs_hz)


def read_weights(path: Path, needed_format: str, job: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a handle is no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); needed weights from python jobs/train.py {job}") from error
    if metadata.get("format") != needed_format:
        stated = metadata.get("format")
        raise UserError(f"{path}: format {stated!r}; needed {needed_format!r}. Run python jobs/train.py {job} again")
    return tensors, metadata


def frozen(model: torch.nn.Module, device: torch.device | str) -> torch.nn.Module:
    return model.to(device).eval().requires_grad_(False)


def conditions_of(models: Models, labels: Iterable[str], statements: Iterable[Iterable[str]]) -> torch.Tensor:
    """Condition of each record from its requested label and its donor's statements: (b,) int64."""
    rows = zip(labels, statements, strict=True)
    return torch.tensor([condition_of(label, codes, models.conditions, models.superclass_of) for label, codes in rows])


def token_count(models: Models, samples: int) -> int:
    """Tokens that cover this many samples."""
    return -(-samples // models.samples_per_token)


def draw_noise(models: Models, seed: int, records: np.ndarray, tokens: int) -> torch.Tensor:
    """Noise of the decoder, (b, l, e + lead) float32: row i depends on records[i] alone, a longer row begins the same."""
    config = models.vqvae.config
    noise = np.empty((len(records), tokens, config.drawn_channels), np.float32)
    for row, generator in zip(noise, draws.each_generator(seed, records, draws.Stream.TEXTURE_NOISE), strict=True):
        row[:, config.noise_channels :] = generator.standard_normal(config.leads, dtype=np.float32)  # loudness
        row[:, : config.noise_channels] = generator.standard_normal((tokens, config.noise_channels), dtype=np.float32)
    return torch.from_numpy(noise)


@torch.inference_mode()
def sample_tokens(models: Models, conditions: torch.Tensor, uniforms: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Tokens from an empty state: conditions (b,), uniforms (b, l) float64 in [0, 1) -> tokens (b, l) int64."""
    mamba = models.mamba
    prefix = conditions.to(mamba.lm_head.weight.device) + mamba.config.texture_tokens  # (b,)
    return continue_tokens(mamba, prefix, mamba.empty_state(len(prefix)), uniforms, temperature)


@torch.inference_mode()
def continue_tokens(
    mamba: MambaLM, last: torch.Tensor, state: MambaState, uniforms: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """The next l tokens after the token `last` (b,), one uniform each: (b, l) -> (b, l).

    `state` moves on in place: to go on, call again with the last column of the result and the same state.
    """
    return _token_loop(mamba)(mamba, last, state, uniforms, temperature)


def _token_loop(mamba: MambaLM):
    """The fastest loop for where the model is. All are plain_tokens but for the order in which sums round."""
    if mamba.lm_head.weight.is_cuda:
        from ecg_batch import decode_graph

        return decode_graph.continue_tokens
    return decode_kernel.continue_tokens if decode_kernel.fits(mamba) else plain_tokens


@torch.inference_mode()
def plain_tokens(
    mamba: MambaLM, last: torch.Tensor, state: MambaState, uniforms: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """continue_tokens step by step: the reference, and what runs where no kernel does."""
    uniforms = torch.as_tensor(uniforms).to(last.device)  # (b, l) float64
    tokens = torch.empty(uniforms.shape, dtype=torch.int64, device=last.device)  # (b, l)
    for t in range(uniforms.shape[1]):
        logits, state = mamba.step(last, state)  # (b, v)
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


@torch.inference_mode()
def decode_texture(models: Models, tokens: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """Tokens (b, l) and noise (b, l, e + lead), None for zeros -> texture (b, lead, l * samples_per_token), float32 mV."""
    run = texture_kernel.decode_texture if texture_kernel.fits(models.vqvae) else plain_texture
    return run(models.vqvae, tokens, noise)


@torch.inference_mode()
def plain_texture(vqvae: VqVae, tokens: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """decode_texture in torch: the reference, and what runs where no kernel does."""
    tokens = tokens.to(vqvae.codebook.device)  # (b, l)
    tile = max(len(tokens), 1) if tokens.is_cuda else TILE  # a GPU wants all of them at once
    noises = [None] * len(tokens) if noise is None else noise.to(tokens.device).split(tile)  # (tile, l, e + lead) each
    tiles = zip(tokens.split(tile), noises, strict=noise is not None)
    return torch.cat([vqvae.decode(vqvae.embed(some), part) for some, part in tiles])  # (b, lead, time)
