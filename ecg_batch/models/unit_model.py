"""One code a beat: a codebook of how noise changes from beat to beat, and a Mamba that writes sequences of its codes.

A code stands for how much louder than the mean of its recording the noise under one beat is, lead by lead and band by band
(signal/noise.py). No sample is decoded from it: it is rendered by a recorded unit of that level (synthesis/units.py). Encoder and
decoder of the codebook are the identity: it is the vector quantisation of a VQ-VAE without the networks around it.

The condition of a sequence is added at every step, so that it is never forgotten: the mean level of the donor's own noise, and
which kinds of noise a reader saw in which of its leads.

Here weights are read and codes drawn, in numpy and a compiled kernel; the network that is trained is in unit_network.py.

Glossary
    b       batch (records)
    l       length in beats
    K       codes
    level   lead times band
    kind    kind of noise times lead
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ecg_batch.kernels import token_loop
from ecg_batch.kernels.build import kernel
from ecg_batch.models.networks import UnitConfig
from ecg_batch.models.weights import load_arrays
from ecg_batch.signal.noise import counted

CODE_STEP = 1 / 16  # of a step of levels: a codebook holds multiples, so that distances are sums of whole numbers, exact anywhere


@dataclass(frozen=True, eq=False)
class UnitModel:
    """The weights of a file. tensors: float32, with the names of unit_network.UnitNetwork."""

    config: UnitConfig
    tensors: dict[str, np.ndarray]

    @property
    def codebook(self) -> np.ndarray:
        """(K, level): steps above a recording's mean level."""
        return self.tensors["codebook"]

    @cached_property
    def mamba(self) -> token_loop.Packed:
        return token_loop.pack(self.config.mamba, {name.removeprefix("mamba."): one for name, one in self.tensors.items()})

    def said(self, level: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        return said(level, kinds, self.tensors["mean"], self.tensors["scale"])


def said(level: np.ndarray, kinds: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a condition is made of, of mean levels (b, level) in steps and kinds of noise (b, kind): float32 (b, level + kind).

    mean, scale (level,): of the levels of training records.
    """
    return np.concatenate([(level.astype(np.float32) - mean) / scale, kinds.astype(np.float32)], axis=1)


def nearest(points: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Which point (point, level) is nearest to each level (unit, level), both in steps: int64 (unit,).

    All are multiples of CODE_STEP, so the sums are exact in float64 in whatever order a machine adds.
    """
    points, found = counted(points), np.empty(len(levels), np.int64)
    for start in range(0, len(levels), 4096):  # 16 MB of distances to 512 codes
        part = counted(levels[start : start + 4096])
        found[start : start + 4096] = (np.square(points).sum(axis=1) - 2 * part @ points.T).argmin(axis=1)
    return found


def conditions(model: UnitModel, said: np.ndarray) -> np.ndarray:
    """What is added at every step, float32 (b, d). Summed in order: a product of matrices is rounded otherwise on other CPUs."""
    return _in_order(np.maximum(_in_order(said, model, "inner"), 0), model, "outer")


def _in_order(x: np.ndarray, model: UnitModel, layer: str) -> np.ndarray:
    out = np.tile(model.tensors[f"{layer}.bias"], (len(x), 1))
    for column, weight in zip(x.T, model.tensors[f"{layer}.weight"].T, strict=True):
        out += column[:, None] * weight  # (b, out)
    return out


def draw_codes(model: UnitModel, condition: np.ndarray, uniforms: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Codes of sequences from their beginning: condition (b, d), uniforms (b, l) in [0, 1) -> int64 (b, l).

    A row depends on its own row of the arguments, and a longer one begins the same.
    """
    if kernel() is None:
        from ecg_batch.models.unit_network import plain_codes

        return plain_codes(model, condition, uniforms, temperature)
    first, state = np.full(len(condition), model.config.codes), model.mamba.empty_state(len(condition))
    return token_loop.draw(model.mamba, first, state, uniforms, temperature, condition)


def load_unit_model(path: Path) -> UnitModel:
    """The model of a file. UserError where there is none."""
    return UnitModel(*load_arrays(path, "units"))
