"""One code a beat: a codebook of how noise changes from beat to beat, and a Mamba that writes sequences of its codes.

A code stands for how much louder than the mean of its recording the noise under one beat is, lead by lead and band by band
(signal/noise.py). No sample is decoded from it: it is rendered by a recorded unit of that level (synthesis/units.py). Encoder and
decoder of the codebook are the identity: it is the vector quantisation of a VQ-VAE without the networks around it.

The condition of a sequence is the mean level of the donor's own noise, and which kinds of noise a reader saw in which of its leads.

Glossary, beside that of model.py
    level   lead times band
    kind    kind of noise times lead
"""

from pathlib import Path

import numpy as np

from ecg_batch.models.sequences.model import SequenceModel
from ecg_batch.models.weights import load_arrays
from ecg_batch.signal.noise import counted

CODE_STEP = 1 / 16  # of a step of levels: a codebook holds multiples, so that distances are sums of whole numbers, exact anywhere


class UnitModel(SequenceModel):
    """The weights of a file, of network.UnitNetwork."""

    @property
    def codebook(self) -> np.ndarray:
        """(K, level): steps above a recording's mean level."""
        return self.tensors["codebook"]

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


def load_unit_model(path: Path) -> UnitModel:
    """The model of a file. UserError where there is none."""
    return UnitModel(*load_arrays(path, "units"))
