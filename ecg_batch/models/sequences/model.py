"""A sequence of codes, one a beat, written by a Mamba whose condition is added at every step, so that it is never forgotten.

Here weights are read and codes drawn, in numpy and a compiled kernel; the network that is trained is in network.py. What
the codes and the conditions are, say unit_model.py (noise under a beat) and rhythm_codes.py (which beat comes next, and when).

Glossary
    b       batch (records)
    l       length in beats
    K       codes
    said    numbers that a condition is made of
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecg_batch.kernels import token_loop
from ecg_batch.kernels.build import kernel
from ecg_batch.models.networks import RhythmConfig, UnitConfig


@dataclass(frozen=True, eq=False)
class SequenceModel:
    """The weights of a file. tensors: float32, with the names of its network."""

    config: UnitConfig | RhythmConfig
    tensors: dict[str, np.ndarray]

    @cached_property
    def mamba(self) -> token_loop.Packed:
        return token_loop.pack(self.config.mamba, {name.removeprefix("mamba."): one for name, one in self.tensors.items()})


def conditions(model: SequenceModel, said: np.ndarray) -> np.ndarray:
    """What is added at every step, float32 (b, d), of said (b, said). Summed in order: a product of matrices is rounded otherwise
    on other CPUs.
    """
    return _in_order(np.maximum(_in_order(said, model, "inner"), 0), model, "outer")


def _in_order(x: np.ndarray, model: SequenceModel, layer: str) -> np.ndarray:
    out = np.tile(model.tensors[f"{layer}.bias"], (len(x), 1))
    for column, weight in zip(x.T, model.tensors[f"{layer}.weight"].T, strict=True):
        out += column[:, None] * weight  # (b, out)
    return out


def draw_codes(model: SequenceModel, condition: np.ndarray, uniforms: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Codes of sequences from their beginning: condition (b, d), uniforms (b, l) in [0, 1) -> int64 (b, l).

    A row depends on its own row of the arguments, and a longer one begins the same.
    """
    if kernel() is None:
        from ecg_batch.models.sequences.network import plain_codes

        return plain_codes(model, condition, uniforms, temperature)
    return token_loop.draw(model.mamba, np.full(len(condition), model.config.codes), None, uniforms, temperature, condition)
