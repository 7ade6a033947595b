"""One code a beat: a codebook of how noise changes from beat to beat, and a Mamba that writes sequences of its codes.

A code stands for how much louder than the mean of its recording the noise under one beat is, lead by lead and band by band
(signal/noise.py). No sample is decoded from it: it is rendered by a recorded unit of that level (synthesis/units.py). Encoder and
decoder of the codebook are the identity: it is the vector quantisation of a VQ-VAE without the networks around it.

The condition of a sequence is added at every step, so that it is never forgotten: the mean level of the donor's own noise, and
which kinds of noise a reader saw in which of its leads.

Glossary
    b       batch (records)
    l       length in beats
    K       codes
    level   lead times band
    kind    kind of noise times lead
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.kernels import token_loop
from ecg_batch.models.mamba import MambaLM
from ecg_batch.models.networks import UnitConfig
from ecg_batch.models.sampling import plain_tokens
from ecg_batch.models.weights import frozen, load_network
from ecg_batch.signal.noise import counted

CODE_STEP = 1 / 16  # of a step of levels: a codebook holds multiples, so that distances are sums of whole numbers, exact anywhere


class UnitModel(nn.Module):
    """codebook (K, level): steps above a recording's mean level; mean, scale (level,) of those of training records, in steps."""

    def __init__(self, config: UnitConfig):
        super().__init__()
        self.config = config
        self.register_buffer("codebook", torch.zeros(config.codes, config.levels))
        self.register_buffer("mean", torch.zeros(config.levels))
        self.register_buffer("scale", torch.ones(config.levels))
        self.inner = nn.Linear(config.levels + config.kinds, config.hidden)
        self.outer = nn.Linear(config.hidden, config.d_model)
        self.mamba = MambaLM(config.mamba)

    def forward(self, codes: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Logits of each code given those before it: codes (b, l), said (b, level + kind) -> (b, l, K)."""
        first = codes.new_full((len(codes), 1), self.config.codes)  # the condition token
        condition = self.outer(F.relu(self.inner(said)))  # (b, d)
        return self.mamba(torch.cat([first, codes[:, :-1]], dim=1), condition)[..., : self.config.codes]

    def said(self, level: np.ndarray, kinds: np.ndarray) -> torch.Tensor:
        """What a condition is made of, of mean levels (b, level) in steps and kinds of noise (b, kind): (b, level + kind)."""
        standard = (torch.from_numpy(level).float() - self.mean) / self.scale
        return torch.cat([standard, torch.from_numpy(kinds).float()], dim=1)


def nearest(points: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Which point (point, level) is nearest to each level (unit, level), both in steps: int64 (unit,).

    All are multiples of CODE_STEP, so the sums are exact in float64 in whatever order a machine adds.
    """
    points, found = counted(points), np.empty(len(levels), np.int64)
    for start in range(0, len(levels), 4096):  # 16 MB of distances to 512 codes
        part = counted(levels[start : start + 4096])
        found[start : start + 4096] = (np.square(points).sum(axis=1) - 2 * part @ points.T).argmin(axis=1)
    return found


@torch.inference_mode()
def conditions(model: UnitModel, said: torch.Tensor) -> torch.Tensor:
    """What is added at every step, float32 (b, d). Summed in order: a product of matrices is rounded otherwise on other CPUs."""
    return _in_order(torch.relu(_in_order(said, model.inner)), model.outer)


def _in_order(x: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    out = layer.bias.expand(len(x), -1).clone()
    for column, weight in zip(x.T, layer.weight.T, strict=True):
        out += column[:, None] * weight  # (b, out)
    return out


@torch.inference_mode()
def draw_codes(model: UnitModel, condition: torch.Tensor, uniforms: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Codes of sequences from their beginning: condition (b, d), uniforms (b, l) in [0, 1) -> int64 (b, l).

    A row depends on its own row of the arguments, and a longer one begins the same.
    """
    mamba, numbers = model.mamba, torch.from_numpy(uniforms)

    def drawn(loop, rows: slice) -> np.ndarray:
        some = condition[rows]
        first = torch.full((len(some),), model.config.codes)
        return loop(mamba, first, mamba.empty_state(len(some)), numbers[rows], temperature, some).numpy()

    if token_loop.fits(mamba):
        return drawn(token_loop.continue_tokens, slice(None))
    return np.concatenate([drawn(plain_tokens, slice(at, at + 1)) for at in range(len(condition))])  # torch's sums know neighbours


def load_unit_model(path: Path) -> UnitModel:
    """The model of a file, frozen. UserError where there is none."""
    return frozen(load_network(path, "units", UnitModel)[0], "cpu")
