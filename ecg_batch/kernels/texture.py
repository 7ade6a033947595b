"""The VQ-VAE's decoder as a compiled kernel, texture.cpp, where one was built and this CPU can run it.

Its reference is VqVae.decode: the same mathematics, but sums that round in another order. Which of the two made a dataset stands in
its plan (build.kernels).
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from ecg_batch.kernels.build import FLOATS, INTS, address, kernel, packed

MAX_LEADS = 16


class Conv(ctypes.Structure):
    """The struct of this name in texture.cpp; so are Decoder and Piece."""

    _fields_ = [("weight", FLOATS), ("bias", FLOATS), *((name, ctypes.c_int64) for name in ("out", "into", "taps", "dilation"))]


class Decoder(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("leads", "samples", "dim", "channels", "noise", "blocks", "drift_tokens", "codes")),
        *((name, FLOATS) for name in ("codebook", "scale_mv", "loudness_mix", "loudness_spread", "hann")),
        *((name, ctypes.POINTER(Conv)) for name in ("first", "inner", "outer", "last")),
    ]


class Piece(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("length", "first", "stop")),
        ("token", INTS),
        ("noise", FLOATS),
        ("out", FLOATS),
    ]


def fits(vqvae: torch.nn.Module) -> bool:
    """Whether the kernel can stand in for VqVae.decode on this model."""
    book, config = vqvae.codebook, vqvae.config
    sizes = config.leads <= MAX_LEADS and config.noise_channels % config.leads == 0 and config.drift_tokens % 2 == 0
    return book.device.type == "cpu" and book.dtype == torch.float32 and sizes and kernel() is not None


def decode_texture(vqvae, tokens: torch.Tensor, noise: torch.Tensor | None, build: str | None = None) -> torch.Tensor:
    """decode.decode_texture on as many threads as torch has: (b, l) int64, (b, l, e + lead) -> (b, lead, time) float32 mV."""
    library, _ = kernel(build)
    config, (records, length) = vqvae.config, tokens.shape
    if records and length and not 0 <= tokens.min() <= tokens.max() < config.codes:
        raise IndexError(f"tokens from {tokens.min()} to {tokens.max()}; the codebook has rows 0 to {config.codes - 1}")
    tokens, noise = tokens.contiguous().numpy(), None if noise is None else noise.to(torch.float32).contiguous().numpy()
    out = np.empty((records, config.leads, length * config.samples_per_token), np.float32)
    decoder, _ = _decoder(vqvae)

    def decode(first: int, stop: int) -> None:
        piece = Piece(length, first, stop, address(tokens), None if noise is None else address(noise), address(out))
        if library.ecg_texture(ctypes.byref(decoder), ctypes.byref(piece)):  # ctypes lets other threads run meanwhile
            raise MemoryError("no memory for the texture decoder, about 1.2 KB a token and thread")

    share = max(1, -(-records // torch.get_num_threads()))
    starts = range(0, records, share) if length else ()
    if len(starts) == 1:
        decode(0, records)
    elif starts:
        with ThreadPoolExecutor(len(starts)) as pool:
            list(pool.map(decode, starts, (min(start + share, records) for start in starts)))
    return torch.from_numpy(out)


@lru_cache(maxsize=2)
def _decoder(vqvae: torch.nn.Module) -> tuple[Decoder, list]:
    """The model as the kernel takes it, and the arrays that must live as long. Packing takes as long as a record of 10 s, so it is
    done once a model: what decodes is finished, its weights no longer change.
    """
    c, stack = vqvae.config, vqvae.decoder
    held = [_array(tensor) for tensor in (vqvae.codebook, vqvae.scale_mv, vqvae.loudness_mix, vqvae.loudness_spread)]
    held.append(_array(hann_by_token(c.drift_tokens, c.samples_per_token)))
    sizes = (c.leads, c.samples_per_token, c.dim, c.channels, c.noise_channels, len(stack.blocks), c.drift_tokens, c.codes)
    groups = [stack.first], [block.inner for block in stack.blocks], [block.outer for block in stack.blocks], [stack.last]
    return Decoder(*sizes, *map(address, held), *(_convs(group, held) for group in groups)), held


def _convs(layers: list[torch.nn.Conv1d], held: list):
    made = []
    for layer in layers:
        weight, bias = packed(_array(layer.weight.flatten(1))), _array(layer.bias)
        held += [weight, bias]
        made.append(Conv(address(weight), address(bias), *layer.weight.shape, layer.dilation[0]))
    return (Conv * len(made))(*made)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def hann_by_token(tokens: int, samples: int) -> torch.Tensor:
    """vqvae.smooth as weights (samples, tokens + 1): sample s of token t is the sum over q of weight[s, q] drift[t + q - half]."""
    width = tokens * samples
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)) / (tokens // 2)
    at = width - samples // 2 + np.arange(samples)[:, None] - samples * np.arange(tokens + 1)  # (s, q): place in the window
    inside = (at >= 0) & (at < width)
    return torch.from_numpy(np.where(inside, window[np.clip(at, 0, width - 1)], 0.0).astype(np.float32))
