"""A small network that says of one beat of one lead, any lead, whether it is N, S or V: network, training, weights.

A few convolutions over the shapes that features.py gives, their means and maxima beside its numbers. Classes are those of
ANSI/AAMI EC57 (rhythm_words.py); fusions and unknown beats teach nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.errors import UserError
from ecg_batch.evaluation import weights
from ecg_batch.evaluation.beats.features import NUMBERS, SHAPES, Seen
from ecg_batch.keys import Range
from ecg_batch.rhythm_words import AAMI, BEAT_CLASSES

SAID = BEAT_CLASSES[:3]  # N, S, V
SHARES = (0.5, 0.2, 0.3)  # of the beats of each step
RARER = (0.0, 1.0, 1.0)  # log odds by which S and V are taken to be rarer in recordings than in a step: docs/evidence/beats.md
WIDTHS, KERNEL, STRIDES = (24, 32, 48, 48), 7, (2, 2, 2, 1)
HIDDEN, DROPPED = 48, 0.3
TURNED = 0.15  # of beats in training: electrodes may be anywhere
FORMAT = "ecg-batch beat classifier 1"


@dataclass(frozen=True)
class Training:
    """What a training spends."""

    steps: Annotated[int, Range(1, 10**6, "")] = 1500
    beats: Annotated[int, Range(8, 10**5, "of each step")] = 128
    rate: float = 4e-3
    seed: int = 0


@dataclass(frozen=True)
class Taught:
    """Examples. kind: int64 (beat,), index in BEAT_CLASSES."""

    seen: Seen
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


def kinds_of(symbols: np.ndarray) -> np.ndarray:
    """Index in BEAT_CLASSES of each of WFDB's symbols of beats, (beat,)."""
    return np.array([BEAT_CLASSES.index(AAMI[symbol]) for symbol in symbols], np.int64)


def together(parts: list[Taught]) -> Taught:
    shapes, numbers = (np.concatenate([getattr(part.seen, name) for part in parts]) for name in ("shapes", "numbers"))
    return Taught(Seen(shapes, numbers), np.concatenate([part.kind for part in parts]))


class BeatClassifier(nn.Module):
    """Shapes (beat, shape, time) and numbers (beat, number) -> logits (beat, 3): N, S, V."""

    def __init__(self):
        super().__init__()
        widths = zip((len(SHAPES), *WIDTHS), WIDTHS, STRIDES, strict=False)
        self.layers = nn.Sequential(*(_layer(into, out, stride) for into, out, stride in widths))
        self.head = nn.Sequential(
            nn.Dropout(DROPPED), nn.Linear(2 * WIDTHS[-1] + len(NUMBERS), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(SAID))
        )
        self.register_buffer("mean", torch.zeros(len(NUMBERS)))
        self.register_buffer("sd", torch.ones(len(NUMBERS)))

    def forward(self, shapes: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = self.layers(shapes)
        return self.head(torch.cat([x.mean(-1), x.amax(-1), (numbers - self.mean) / self.sd], dim=1))


def _layer(into: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(into, out, KERNEL, stride, KERNEL // 2), nn.BatchNorm1d(out), nn.ReLU())


def fit(taught: Taught, training: Training, show=iter) -> BeatClassifier:
    """A network of these examples. The same on one machine each time. UserError where fewer than two classes are there."""
    of_class = [np.flatnonzero(taught.kind == kind) for kind in range(len(SAID))]
    if sum(len(rows) > 0 for rows in of_class) < 2:
        raise UserError(f"{sum(map(len, of_class)):,} beats teach, of one class of N, S, V at most; needed two. Ask for labels "
                        "such as PVC and PAC beside others")  # fmt: skip
    torch.manual_seed(training.seed)
    rng, model = np.random.default_rng(training.seed), BeatClassifier()
    numbers = taught.seen.numbers[np.concatenate(of_class)]
    model.mean.copy_(torch.from_numpy(numbers.mean(axis=0)))
    model.sd.copy_(torch.from_numpy(numbers.std(axis=0) + 1e-3))
    optimizer = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, total_steps=training.steps)
    model.train()
    for _ in show(range(training.steps)):
        shapes, numbers, kind = batch(taught, of_class, training.beats, rng)
        loss = F.cross_entropy(model(shapes, numbers), kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def batch(taught: Taught, of_class: list[np.ndarray], beats: int, rng: np.random.Generator):
    """Beats by lot, so many of each class as SHARES says, varied: (shapes, numbers, kind)."""
    some = [rng.choice(rows, max(round(beats * share), 1)) for rows, share in zip(of_class, SHARES, strict=True) if len(rows)]
    at = np.concatenate(some)
    return varied(taught.seen.shapes[at], rng), torch.from_numpy(taught.seen.numbers[at]), torch.from_numpy(taught.kind[at])


def varied(shapes: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Louder or softer, noisier, off the line, turned over, and shifted by up to 30 ms."""
    drawn = lambda low, high, *size: rng.uniform(low, high, (len(shapes), *size)).astype(np.float32)  # noqa: E731
    noise = drawn(0, 0.12, 1, 1) * rng.standard_normal(shapes.shape, np.float32)
    x = shapes * drawn(0.7, 1.4, 1, 1) + noise + drawn(-0.15, 0.15, shapes.shape[1], 1)
    x *= np.where(rng.random((len(x), 1, 1)) < TURNED, np.float32(-1), np.float32(1))
    return torch.from_numpy(np.roll(x, int(rng.integers(-3, 4)), axis=-1))


@torch.inference_mode()
def said_of(model: BeatClassifier, seen: Seen) -> np.ndarray:
    """How probable N, S and V are in a recording: (beat, 3)."""
    parts = zip(*(torch.from_numpy(x).split(4096) for x in (seen.shapes, seen.numbers)), strict=True)
    rarer = torch.tensor(RARER)
    return torch.cat([torch.softmax(model(*part) - rarer, dim=1) for part in parts]).numpy()


def save(path: Path, model: BeatClassifier, says: dict[str, str]) -> None:
    """Writes a safetensors file whose metadata are `says`."""
    weights.save(path, model, says, FORMAT)


def load(path: Path) -> tuple[BeatClassifier, dict[str, str]]:
    """The network of a file, and what the file says. UserError where it is absent, damaged or of another kind."""
    return weights.load(path, BeatClassifier(), FORMAT, "examples/train_beat_classifier.py")

