"""Decode: conditions and random numbers in, texture out. The models hold no randomness of their own.

A record's tokens and texture depend on its own row of every argument, and on the batch size, which belongs to the
request : floating-point sums may round differently in a batch of another size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ecg_batch import draws
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.kernels import texture as texture_kernel
from ecg_batch.kernels import token_loop
from ecg_batch.kernels.build import triton_runs
from ecg_batch.models import cuda_graph as decode_graph
from ecg_batch.models.conditions import condition_of
from ecg_batch.models.mamba import MambaLM, MambaState
from ecg_batch.models.sampling import plain_tokens
from ecg_batch.models.stated import check_pair, labels_of, rate_of
from ecg_batch.models.vqvae import VqVae
from ecg_batch.models.weights import frozen, load_network

NON_FINITE = "the texture models gave NaN or infinity, so their weights are damaged; train or fetch them again"
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
    model, metadata = load_network(path, "vqvae", VqVae)
    return frozen(model, device), rate_of(path, metadata)


def load_models(folder: Path, device: torch.device | str = "cpu") -> Models:
    """The two weight files of one folder. UserError where they are absent or do not belong together."""
    folder = Path(folder)
    vqvae, fs_hz = load_vqvae(folder / "vqvae.safetensors", device)
    path = folder / "mamba.safetensors"
    mamba, metadata = load_network(path, "mamba", MambaLM)
    if metadata.get("vqvae_sha256") != sha256_file(folder / "vqvae.safetensors"):
        raise UserError(
            f"{path} was trained on the tokens of another VQ-VAE than the vqvae.safetensors beside "
            "it; its tokens would decode to something else. Take both files from one training, or run "
            "ecg-batch train mamba again"
        )
    check_pair(path, vqvae.config, mamba.config)
    return Models(vqvae, frozen(mamba, device), *labels_of(path, metadata), fs_hz)


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
        return (_triton_loop(mamba) or decode_graph).continue_tokens
    return token_loop.continue_tokens if token_loop.fits(mamba) else plain_tokens


def _triton_loop(mamba: MambaLM):
    """The module of the loop in Triton, None where it does not run or is not for this model. The plan says whether it runs."""
    if not triton_runs():
        return None
    from ecg_batch.kernels import token_loop_triton

    return token_loop_triton if token_loop_triton.fits(mamba) else None


@torch.inference_mode()
def decode_texture(models: Models, tokens: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """Tokens (b, l) and noise (b, l, e + lead), None for zeros -> texture (b, lead, l * samples_per_token), float32 mV."""
    run = texture_kernel.decode_texture if texture_kernel.fits(models.vqvae) else plain_texture
    return run(models.vqvae, tokens, noise)


def refuse_non_finite(texture: torch.Tensor) -> None:
    """ValueError where any sample is NaN or infinite. Both stay in a sum; a mask of all samples would cost 10 ms a batch."""
    if not torch.isfinite(texture.sum()):
        raise ValueError(NON_FINITE)


@torch.inference_mode()
def plain_texture(vqvae: VqVae, tokens: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """decode_texture in torch: the reference, and what runs where no kernel does."""
    tokens = tokens.to(vqvae.codebook.device)  # (b, l)
    tile = max(len(tokens), 1) if tokens.is_cuda else TILE  # a GPU wants all of them at once
    noises = [None] * len(tokens) if noise is None else noise.to(tokens.device).split(tile)  # (tile, l, e + lead) each
    tiles = zip(tokens.split(tile), noises, strict=noise is not None)
    return torch.cat([vqvae.decode(vqvae.embed(some), part) for some, part in tiles])  # (b, lead, time)
