"""The token loop as a compiled kernel, token_loop.cpp, where one was built and this CPU can run it.

Its reference is models/sampling.plain_tokens: the same mathematics and draws, but sums that round in another order, so
that a record in many comes out with other tokens (docs/evidence/performance.md). Its plan says which made a dataset.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

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


def fits(mamba) -> bool:
    """Whether the kernel can stand in for the plain loop on this model."""
    import torch

    weight = mamba.lm_head.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and kernel() is not None


def continue_tokens(mamba, last, state, uniforms, temperature: float, condition=None, build: str | None = None):
    """decode.continue_tokens on as many threads as torch has: (b,), state, (b, l) float64 -> tokens (b, l) int64.

    condition: float32 (b, d), added to the embedding of every token, or None.
    """
    import torch

    library, lanes = kernel(build)
    last, uniforms = last.clone(), uniforms.to(torch.float64).contiguous()  # (b,), (b, l)
    tokens = torch.empty(uniforms.shape, dtype=torch.int64)  # (b, l)
    if not (state.conv.is_contiguous() and state.ssm.is_contiguous()):
        raise ValueError("the state of the token loop must be contiguous, as MambaLM.empty_state gives it")
    model, held = _model(mamba)
    records, length = uniforms.shape
    added = None if condition is None else condition.to(torch.float32).contiguous()  # (b, d)

    def decode(first: int, stop: int) -> None:
        tensors = map(address, (last, state.conv, state.ssm, uniforms, tokens))
        call = Call(records, first, stop, length, *tensors, temperature, None if added is None else address(added))
        if library.ecg_decode(ctypes.byref(model), ctypes.byref(call)):  # ctypes lets other threads run meanwhile
            raise MemoryError("no memory for the token loop, about 500 KB a thread")

    tiles, threads = -(-records // lanes), torch.get_num_threads()
    share = -(-tiles // threads) * lanes
    starts = range(0, records, share)
    if len(starts) == 1:
        decode(0, records)
    else:
        with ThreadPoolExecutor(len(starts)) as pool:
            list(pool.map(decode, starts, (min(start + share, records) for start in starts)))
    return tokens


@lru_cache(maxsize=2)
def _model(mamba) -> tuple[Model, list]:
    """The model as the kernel takes it, and the tensors that must live as long. Packed once a model: what decodes is finished, its
    weights no longer change.
    """
    config, held, layers = mamba.config, [], []
    for block in mamba.backbone.layers:
        mixer = block.mixer
        weights = (
            block.norm.weight, packed(mixer.in_proj.weight), mixer.conv1d.weight, mixer.conv1d.bias, packed(mixer.x_proj.weight),
            packed(mixer.dt_proj.weight), mixer.dt_proj.bias, -mixer.A_log.exp() * LOG2_E, mixer.D, packed(mixer.out_proj.weight),
        )  # fmt: skip
        weights = [weight.detach().contiguous() for weight in weights]
        held += weights
        layers.append(Layer(*map(address, weights)))
    embedding = mamba.backbone.embedding.weight.detach().contiguous()
    ends = [embedding, mamba.backbone.norm_f.weight.detach().contiguous(), packed(embedding[: config.texture_tokens])]
    sizes = (config.n_layer, config.d_model, config.d_inner, config.d_state, config.d_conv, config.dt_rank, config.texture_tokens)
    model = Model(*sizes, (Layer * len(layers))(*layers), *map(address, ends))
    return model, [held, ends]
