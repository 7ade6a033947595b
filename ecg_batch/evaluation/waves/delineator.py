"""A small U-Net that says of one lead, any lead, where P, QRS and T are: network, training, and the waves of what it says.

U-Net: Ronneberger 2015 (arXiv:1505.04597); for delineation Moskalenko 2020 (arXiv:2001.04689). It sees 0.5 to 40 Hz at 250 Hz, and
says every 8 ms how probable P, QRS, T and none of them are. No mark of a reader is needed: see evaluation/waves/compare.py.

Glossary
    row     one lead of one record, or a part of it
    time    samples at NETWORK_HZ, said_time: at SAID_HZ
    wave    P, QRS, T
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.evaluation import weights
from ecg_batch.keys import Range
from ecg_batch.models.judge import band_gain

NETWORK_HZ, SAID_HZ = 250, 125
PAD_S = 1.0  # reflected at both ends before filtering
WIDTHS, KERNEL, STEM_KERNEL = (16, 24, 32, 48, 64), 9, 15
STEP = 2 ** len(WIDTHS)  # the network takes whole multiples of so many samples
WINDOW_S, MARGIN_S = 10.0, 1.0  # longer leads are read in windows that overlap by twice the margin
UNKNOWN = 255  # in targets: not marked, so nothing is learned there
TURNED = 0.15  # of rows in training: electrodes may be anywhere
FORMAT = "ecg-batch delineator 1"


@dataclass(frozen=True)
class Training:
    """What a training spends."""

    steps: Annotated[int, Range(1, 10**6, "")] = 2000
    rows: Annotated[int, Range(1, 10**5, "of each step")] = 32
    rate: float = 4e-3
    crop_s: float = 4.096
    seed: int = 0


@dataclass(frozen=True)
class Taught:
    """Examples. ecg: (record, lead, time), any unit; waves: uint8 (record, lead, wave, time), 1 inside P, QRS, T, 0 outside,
    UNKNOWN where nobody said; lead is 1 where all leads have the same.
    """

    ecg: np.ndarray
    waves: np.ndarray
    fs_hz: int


class Delineator(nn.Module):
    """Prepared leads (row, time) -> logits (row, 4, said_time): none, P, QRS, T."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        deeper = list(zip(widths, widths[1:], strict=False))
        self.stem = _layer(1, widths[0], STEM_KERNEL, stride=NETWORK_HZ // SAID_HZ)
        self.down = nn.ModuleList([_layer(widths[0], widths[0])])
        self.down.extend(nn.Sequential(_layer(into, out), _layer(out, out)) for into, out in deeper)
        self.up = nn.ModuleList(_layer(above + below, above) for above, below in deeper)
        self.head = nn.Conv1d(widths[0], 4, 1)

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        x, skipped = self.stem(prepared[:, None]), []
        for depth, layers in enumerate(self.down):
            x = layers(F.max_pool1d(x, 2) if depth else x)
            skipped.append(x)
        for layers, beside in zip(reversed(self.up), reversed(skipped[:-1]), strict=True):
            x = layers(torch.cat([F.interpolate(x, scale_factor=2.0), beside], dim=1))
        return self.head(x)


def _layer(into: int, out: int, kernel: int = KERNEL, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv1d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(out), nn.ReLU(inplace=True))


def at_network_rate(ecg: torch.Tensor, fs_hz: float) -> torch.Tensor:
    """What the network sees of leads (..., time) at fs_hz: float32 at 250 Hz, 0.5 to 40 Hz, in the frequency domain."""
    samples, pad = ecg.shape[-1], round(min(PAD_S, (ecg.shape[-1] - 1) / fs_hz) * fs_hz)
    x = (ecg - ecg.mean(-1, keepdim=True)).reshape(-1, samples)
    x = F.pad(x, (pad, pad), mode="reflect")
    f = torch.fft.rfftfreq(x.shape[-1], 1 / fs_hz)
    out = round(x.shape[-1] * NETWORK_HZ / fs_hz)
    x = torch.fft.irfft(torch.fft.rfft(x) * band_gain(f), n=out) * (out / x.shape[-1])
    first = round(pad * NETWORK_HZ / fs_hz)
    return x[:, first : first + round(samples * NETWORK_HZ / fs_hz)].reshape(*ecg.shape[:-1], -1)


def scaled(x: torch.Tensor) -> torch.Tensor:
    """Each row without its mean, of standard deviation 1."""
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)


def said(waves: torch.Tensor, fs_hz: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (row, 4, said_time) of waves (row, wave, time), and where they are known (row, said_time), by straight lines."""
    x = torch.cat([waves == 1, (waves == UNKNOWN).any(1, keepdim=True)], dim=1).float()
    at = torch.arange(round(x.shape[-1] * SAID_HZ / fs_hz)) * (fs_hz / SAID_HZ)
    low = at.floor().long().clamp(max=x.shape[-1] - 1)
    share = (at - low).float()
    x = x[..., low] * (1 - share) + x[..., (low + 1).clamp(max=x.shape[-1] - 1)] * share
    found = x[:, :3] / x[:, :3].sum(1, keepdim=True).clamp(min=1)
    return torch.cat([1 - found.sum(1, keepdim=True), found], dim=1), x[:, 3] == 0


# Training -------------------------------------------------------------------------------------------------------------


def fit(taught: Taught, training: Training, show=iter) -> Delineator:
    """A network of these examples: each step takes rows, parts of them, and turns some over. The same on one machine each time."""
    torch.manual_seed(training.seed)
    rng, model = np.random.default_rng(training.seed), Delineator()
    optimizer = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, training.steps, pct_start=0.1)
    model.train()
    for _ in show(range(training.steps)):
        loss = loss_of(model, *batch(taught, training, rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def batch(taught: Taught, training: Training, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As examples() gives them, of records and leads by lot."""
    record = rng.integers(len(taught.ecg), size=training.rows)
    lead = rng.integers(taught.ecg.shape[1], size=training.rows)
    ecg = torch.from_numpy(taught.ecg[record, lead].astype(np.float32))
    waves = torch.from_numpy(taught.waves[record, lead % taught.waves.shape[1]])
    return examples(ecg, waves, taught.fs_hz, training.crop_s, rng)


def examples(ecg: torch.Tensor, waves: torch.Tensor, fs_hz: float, crop_s: float, rng: np.random.Generator):
    """Leads (row, time) and their waves uint8 (row, wave, time) as a step takes them, parts by lot, some turned over: (row, time),
    targets (row, 4, said_time), where they are known (row, said_time).
    """
    x, (target, known) = at_network_rate(ecg, fs_hz), said(waves, fs_hz)
    ratio, crop = NETWORK_HZ // SAID_HZ, round(crop_s * SAID_HZ) // STEP * STEP
    start = torch.from_numpy(rng.integers(0, target.shape[-1] - crop + 1, len(x)))[:, None]
    at = start + torch.arange(crop)
    x = x.gather(1, ratio * start + torch.arange(ratio * crop))
    turned = torch.from_numpy(np.where(rng.random((len(x), 1)) < TURNED, -1, 1).astype(np.float32))
    return scaled(x) * turned, target.gather(2, at[:, None].expand(-1, 4, -1)), known.gather(1, at)


def loss_of(model: Delineator, x: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return (F.cross_entropy(model(x), target, reduction="none") * known).sum() / known.sum().clamp(min=1)


# Reading --------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def probabilities(model: Delineator, ecg: np.ndarray, fs_hz: float) -> np.ndarray:
    """Of leads (lead, time) at fs_hz, of any length and unit: (lead, 4, said_time)."""
    x = at_network_rate(torch.from_numpy(np.asarray(ecg, np.float32)), fs_hz)
    return np.stack([_of_lead(model, lead) for lead in x])


def _of_lead(model: Delineator, x: torch.Tensor) -> np.ndarray:
    """(time,) -> (4, said_time), in windows of equal length."""
    ratio, samples = NETWORK_HZ // SAID_HZ, len(x)
    window = min(-(-samples // STEP), round(WINDOW_S * NETWORK_HZ) // STEP + 1) * STEP
    margin = round(MARGIN_S * NETWORK_HZ) // ratio * ratio
    x = F.pad(x[None], (0, max(window - samples, samples % ratio)), mode="reflect")[0]
    starts = [*range(0, len(x) - window, window - 2 * margin), len(x) - window]
    found = torch.zeros(4, -(-len(x) // ratio))
    for first in range(0, len(starts), 64):
        some = starts[first : first + 64]
        p = torch.softmax(model(scaled(torch.stack([x[start : start + window] for start in some]))), dim=1)
        for start, each in zip(some, p, strict=True):
            skip = margin // ratio if start else 0  # the window before knows better what lies here
            found[:, start // ratio + skip : start // ratio + each.shape[1]] = each[:, skip:]
    return found[:, : -(-samples // ratio)].numpy()


# Weights --------------------------------------------------------------------------------------------------------------


def save(path: Path, model: Delineator, says: dict[str, str]) -> None:
    """Writes a safetensors file whose metadata are `says`; a file that is there is replaced at once, never half."""
    weights.save(path, model, says, FORMAT)


def load(path: Path) -> tuple[Delineator, dict[str, str]]:
    """The network of a file, and what the file says. UserError where it is absent, damaged or of another kind."""
    return weights.load(path, Delineator(), FORMAT, "examples/train_delineator.py")
