"""The token loop as a compiled kernel, token_loop.cpp, where one was built and this CPU can run it.

Its reference is models/sampling.plain_tokens: the same mathematics and draws, but sums that round in another order, so
that a record in many comes out with other tokens (docs/evidence/performance.md). Its plan says which made a dataset.
"""

import ctypes
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ecg_batch.kernels.build import DOUBLES, FLOATS, INTS, address, kernel, packed

LOG2_E = 1.4426950408889634

LAYER = ("norm", "in_proj", "conv_weight", "conv_bias", "x_proj", "dt_weight", "dt_bias", "A2", "D", "out_proj")
SIZES = ("layers", "d", "d_in", "n", "k", "r", "texture_tokens")


class Layer(ctypes.Structure):
    """The struct of this name in token_loop.cpp; so are Model and Call."""

    _fields_ = [(name, FLOATS) for name in LAYER]


class Model(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in SIZES),
        ("layer", ctypes.POINTER(Layer)),
        ("embedding", FLOATS),
        ("norm_f", FLOATS),
        ("head", FLOATS),
    ]


class Call(ctypes.Structure):
    _fields_ = [
        ("records", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("stop", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
        ("last", INTS),
        ("conv", FLOATS),
        ("ssm", FLOATS),
        ("uniform", DOUBLES),
        ("out", INTS),
        ("temperature", ctypes.c_double),
        ("condition", FLOATS),
    ]


@dataclass(frozen=True)
class Packed:
    """A Mamba as the kernel takes it. held: the arrays that must live as long."""

    model: Model
    held: list[np.ndarray]


def nearest_exp(x: np.ndarray) -> np.ndarray:
    """exp, rounded to the nearest float32. That of torch gives another in one value of a hundred, that of numpy in one of three."""
    return np.exp(x.astype(np.float64)).astype(np.float32)


def pack(config, tensors: Mapping[str, np.ndarray], exp=nearest_exp) -> Packed:
    """A Mamba of these sizes and tensors, float32 with the names of models/mamba.MambaLM. What decodes is finished: they no longer
    change. exp: of A_log.
    """
    held, layers = [], []
    for layer in range(config.n_layer):
        at = f"backbone.layers.{layer}."
        of = {name.removeprefix(f"{at}mixer."): tensor for name, tensor in tensors.items() if name.startswith(at)}
        A2 = -exp(of["A_log"]) * np.float32(LOG2_E)
        weights = (
            of[f"{at}norm.weight"], packed(of["in_proj.weight"]), of["conv1d.weight"], of["conv1d.bias"],
            packed(of["x_proj.weight"]), packed(of["dt_proj.weight"]), of["dt_proj.bias"], A2, of["D"],
            packed(of["out_proj.weight"]),
        )  # fmt: skip
        weights = [np.ascontiguousarray(weight) for weight in weights]
        held += weights
        layers.append(Layer(*map(address, weights)))
    embedding = np.ascontiguousarray(tensors["lm_head.weight"])  # tied
    ends = [embedding, np.ascontiguousarray(tensors["backbone.norm_f.weight"]), packed(embedding[: config.texture_tokens])]
    sizes = (config.n_layer, config.d_model, config.d_inner, config.d_state, config.d_conv, config.dt_rank, config.texture_tokens)
    return Packed(Model(*sizes, (Layer * len(layers))(*layers), *map(address, ends)), held + ends)


def draw(
    mamba: Packed,
    last: np.ndarray,
    state: tuple[np.ndarray, np.ndarray] | None,
    uniforms: np.ndarray,
    temperature: float,
    condition: np.ndarray | None = None,
    threads: int = 1,
    build: str | None = None,
) -> np.ndarray:
    """The next l tokens after the token `last` (b,), one uniform each: (b, l) float64 -> (b, l) int64.

    `state`, as MambaLM.empty_state has it, moves on in place; None: the empty one, which is not kept. condition: (b, d), added to
    the embedding of every token.
    """
    library, lanes = kernel(build)
    if state is not None and not all(part.flags.c_contiguous for part in state):
        raise ValueError("the state of the token loop must be contiguous, as MambaLM.empty_state gives it")
    last, uniforms = np.array(last, np.int64), np.ascontiguousarray(uniforms, np.float64)  # (b,) that moves on, (b, l)
    tokens = np.empty(uniforms.shape, np.int64)  # (b, l)
    records, length = uniforms.shape
    added = None if condition is None else np.ascontiguousarray(condition, np.float32)  # (b, d)

    def decode(first: int, stop: int) -> None:
        states = (None, None) if state is None else map(address, state)
        arrays = address(last), *states, address(uniforms), address(tokens)
        call = Call(records, first, stop, length, *arrays, temperature, None if added is None else address(added))
        if library.ecg_decode(ctypes.byref(mamba.model), ctypes.byref(call)):  # ctypes lets other threads run meanwhile
            raise MemoryError("no memory for the token loop, about 500 KB a thread")

    tiles = -(-records // lanes)
    share = -(-tiles // threads) * lanes
    starts = range(0, records, share)
    if len(starts) == 1:
        decode(0, records)
    else:
        with ThreadPoolExecutor(len(starts)) as pool:
            list(pool.map(decode, starts, (min(start + share, records) for start in starts)))
    return tokens


# For networks of torch ------------------------------------------------------------------------------------------------


def fits(mamba) -> bool:
    """Whether the kernel can stand in for the plain loop on this model."""
    import torch

    weight = mamba.lm_head.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and kernel() is not None


def continue_tokens(mamba, last, state, uniforms, temperature: float, condition=None, build: str | None = None):
    """decode.continue_tokens on as many threads as torch has: (b,), state, (b, l) float64 -> tokens (b, l) int64."""
    import torch

    arrays = last.numpy(), (state.conv.numpy(), state.ssm.numpy()), uniforms.numpy()
    added = None if condition is None else condition.numpy()
    return torch.from_numpy(draw(_pack_network(mamba), *arrays, temperature, added, torch.get_num_threads(), build))


@lru_cache(maxsize=2)
def _pack_network(mamba) -> Packed:
    import torch

    tensors = {name: tensor.numpy() for name, tensor in mamba.state_dict().items()}
    return pack(mamba.config, tensors, lambda x: torch.from_numpy(x).exp().numpy())  # as the datasets of before were made
