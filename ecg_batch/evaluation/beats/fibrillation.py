"""A small network that says of ten seconds of one lead, any lead, whether the atria fibrillate: what it sees, training, weights.

It sees numbers alone: how irregular RR is, and how probable a P wave is before each QRS. Both are read off what the bundled
delineator (evaluation/waves/delineator.py), a convolutional network, says of the lead. No mark of a reader has taught it.

Glossary
    window  WINDOW_S of a lead, or all of a shorter one; the next one begins HOP_S later
    number  NUMBERS
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.bundled import BUNDLED
from ecg_batch.errors import UserError
from ecg_batch.evaluation import weights
from ecg_batch.evaluation.waves import delineator
from ecg_batch.evaluation.waves.delineator import SAID_HZ, probabilities
from ecg_batch.evaluation.waves.scores import P_BEFORE_S, beats_of
from ecg_batch.files import sha256_file

WINDOW_S, HOP_S = 10.0, 5.0
FEWEST = 4  # beats of a window: of fewer nothing is irregular, and all numbers are 0
LATEST_P_S = 0.04  # before R
STEP = 0.1  # of RR, as a logarithm: larger ones are irregular
NUMBERS = (
    "median step", "mean step", "upper step", "lower step", "share of steps over 10 %", "step over two", "SD of RR", "median RR",
    "mean P", "median P", "share with P", "median step without P",
)  # fmt: skip
HIDDEN, DROPPED, BALANCED = 32, 0.3, 0.5  # half of the windows of each step fibrillate
FORMAT = "ecg-batch fibrillation 1"
WEIGHTS = BUNDLED / "delineator.safetensors"


# What it sees ---------------------------------------------------------------------------------------------------------


@cache
def bundled_delineator() -> delineator.Delineator:
    return delineator.load(WEIGHTS)[0]


def delineator_sum() -> str:
    return sha256_file(WEIGHTS)[:16]


def starts_of(seconds: float) -> np.ndarray:
    """Where the windows of a lead begin, seconds (window,). The last one ends with the lead."""
    last = max(seconds - WINDOW_S, 0.0)
    return np.unique(np.append(np.arange(0, last, HOP_S), last))


def windows_of(lead: np.ndarray, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """(start (window,) in seconds, numbers float32 (window, number)) of a lead (time,), in any unit."""
    said = probabilities(bundled_delineator(), np.asarray(lead)[None], fs_hz)[0]
    r_s, start_s = beats_of(said), starts_of(len(lead) / fs_hz)
    p = probability_of_p(said[1], r_s)
    first, stop = np.searchsorted(r_s, start_s), np.searchsorted(r_s, start_s + WINDOW_S)
    return start_s, np.stack([numbers_of(r_s[a:b], p[a:b]) for a, b in zip(first, stop, strict=True)])


def probability_of_p(said: np.ndarray, r_s: np.ndarray) -> np.ndarray:
    """The greatest probability of P (said_time,) before each R peak: (beat,)."""
    first = np.maximum((r_s - P_BEFORE_S) * SAID_HZ, 0).astype(int)
    stop = np.maximum((r_s - LATEST_P_S) * SAID_HZ, 1).astype(int)
    return np.array([said[a:b].max() for a, b in zip(first, stop, strict=True)])


def numbers_of(r_s: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Of the R peaks of a window and how probable P is before each, (beat,) both: float32 (number,)."""
    if len(r_s) < FEWEST:
        return np.zeros(len(NUMBERS), np.float32)
    rr = np.log(np.maximum(np.diff(r_s), 0.2))
    steps, mean_p = np.abs(np.diff(rr)), p.mean()
    over_two = np.abs(rr[2:] - rr[:-2]) if len(rr) > 2 else steps
    median = np.median(steps)
    return np.array([
        median, np.minimum(steps, 0.5).mean(), np.quantile(steps, 0.75), np.quantile(steps, 0.25), (steps > STEP).mean(),
        np.median(over_two), rr.std(), np.median(rr), mean_p, np.median(p), (p > 0.5).mean(), median * (1 - mean_p),
    ], np.float32)  # fmt: skip


def irregular(numbers: np.ndarray) -> np.ndarray:
    """The rule: the share of RR that differ from the one before by over 10 %, (window,)."""
    return numbers[:, NUMBERS.index("share of steps over 10 %")]


# The network ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Examples. numbers: float32 (window, number); fibrillates: bool (window,)."""

    numbers: np.ndarray
    fibrillates: np.ndarray


@dataclass(frozen=True)
class WindowTraining:
    """What a training spends."""

    steps: int = 1500
    windows: int = 48
    rate: float = 3e-3
    seed: int = 0


class FibrillationNet(nn.Module):
    """Numbers (window, number) -> log odds that the atria fibrillate (window,)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(NUMBERS)))
        self.register_buffer("sd", torch.ones(len(NUMBERS)))
        self.layers = nn.Sequential(nn.Dropout(DROPPED), nn.Linear(len(NUMBERS), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.layers((numbers - self.mean) / self.sd)[:, 0]


def fit(taught: Windows, training: WindowTraining) -> FibrillationNet:
    """A network of these examples. The same on one machine each time. UserError where all of them fibrillate, or none."""
    of_class = [np.flatnonzero(taught.fibrillates == kind) for kind in (False, True)]
    if not all(map(len, of_class)):
        raise UserError(f"{len(taught.numbers):,} windows teach, of which {len(of_class[1]):,} fibrillate; needed some of both. "
                        "Ask for records with the label AFIB beside others")  # fmt: skip
    torch.manual_seed(training.seed)
    rng, model, half = np.random.default_rng(training.seed), FibrillationNet(), round(BALANCED * training.windows)
    model.mean.copy_(torch.from_numpy(taught.numbers.mean(axis=0)))
    model.sd.copy_(torch.from_numpy(taught.numbers.std(axis=0) + 1e-3))
    optimizer = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, total_steps=training.steps)
    model.train()
    for _ in range(training.steps):
        at = np.concatenate([rng.choice(rows, half) for rows in of_class])
        target = torch.from_numpy(taught.fibrillates[at].astype(np.float32))
        loss = F.binary_cross_entropy_with_logits(model(torch.from_numpy(taught.numbers[at])), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def log_odds(model: FibrillationNet, numbers: np.ndarray) -> np.ndarray:
    """(window, number) -> (window,)."""
    return model(torch.from_numpy(numbers)).numpy()


def save(path: Path, model: FibrillationNet, says: dict[str, str]) -> None:
    """Writes a safetensors file whose metadata are `says`."""
    weights.save(path, model, says, FORMAT)


def load(path: Path) -> tuple[FibrillationNet, dict[str, str]]:
    """The network of a file, and what the file says. UserError where it is absent, damaged or of another kind."""
    return weights.load(path, FibrillationNet(), FORMAT, "ecg-batch evaluate with --mitdb or --cinc2017")
