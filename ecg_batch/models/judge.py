"""The judge: a ResNet-1D that reads the five superclasses, and all statements, from a whole 12-lead ECG. Multi-label: a record may
hold several.

Architecture: basic blocks after He et al. 2016 (arXiv:1512.03385) with wide kernels as in resnet1d_wang (Wang et al. 2017,
arXiv:1611.06455), mean and maximum over time at the end. Everything from millivolts on is one differentiable function, so the
same network judges and refines.

Glossary
    b       batch (records)
    lead    twelve leads (leads.LEADS)
    time    samples at 100 Hz
    c       channels
    output  the five superclasses (statements.SUPERCLASSES), then the statements that the judge has learned
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.models.networks import JUDGE_HZ, JudgeConfig
from ecg_batch.models.weights import frozen, load_network
from ecg_batch.statements import SUPERCLASSES

BAND_HZ = (0.5, 40.0)
PAD_S = 1.0  # reflected at both ends before filtering
BATCH = 128

# For the many trainings of the usefulness study.
SMALL = JudgeConfig(widths=(24, 32, 48, 64), blocks=1, stem_stride=4)
# The network whose features measure fidelity: another shape, other kernels, another seed than the judge that refines.
ENCODER = JudgeConfig(widths=(64, 128, 64), kernel=5, stem_kernel=21, stem_stride=4)


class Judge(nn.Module):
    """Filtered leads (b, lead, time) -> logits (b, output). `mean` and `scale` are each lead's, over the training records."""

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        first = config.widths[0]
        self.register_buffer("mean", torch.zeros(len(LEADS)))
        self.register_buffer("scale", torch.ones(len(LEADS)))
        stem = nn.Conv1d(len(LEADS), first, config.stem_kernel, config.stem_stride, config.stem_kernel // 2, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm1d(first), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(into, out, config.kernel, stride) for into, out, stride in config.steps))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * config.widths[-1], config.outputs)

    def features(self, filtered: torch.Tensor) -> torch.Tensor:
        """What the last layer sees: (b, lead, time) -> (b, 2c)."""
        x = (filtered - self.mean[:, None]) / self.scale[:, None]  # (b, lead, time)
        x = self.blocks(self.stem(x))  # (b, c, time / 2**n)
        return torch.cat([x.mean(-1), x.amax(-1)], dim=1)  # (b, 2c)

    def forward(self, filtered: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(filtered)))  # (b, output)

    def pieces(self, filtered: torch.Tensor) -> torch.Tensor:
        """Whole records (b, lead, time) -> pieces half overlapped, the last one to the end: (b, piece, lead, window)."""
        window, time = min(self.config.window, filtered.shape[-1]), filtered.shape[-1]
        starts = [*range(0, time - window, window // 2), time - window]
        return torch.stack([filtered[..., start : start + window] for start in starts], dim=1)

    def probabilities(self, filtered: torch.Tensor) -> torch.Tensor:
        """Whole records (b, lead, time) -> mean over pieces, (b, output)."""
        pieces = self.pieces(filtered)  # (b, piece, lead, window)
        return torch.sigmoid(self(pieces.flatten(0, 1))).unflatten(0, pieces.shape[:2]).mean(1)


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, into: int, out: int, kernel: int, stride: int):
        super().__init__()
        self.first = nn.Conv1d(into, out, kernel, stride, kernel // 2, bias=False)
        self.first_norm = nn.BatchNorm1d(out)
        self.second = nn.Conv1d(out, out, kernel, 1, kernel // 2, bias=False)
        self.second_norm = nn.BatchNorm1d(out)
        self.stride = stride
        self.shortcut = nn.Conv1d(into, out, 1, bias=False) if into != out or stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.first_norm(self.first(x)))  # (b, out, time / stride)
        y = self.second_norm(self.second(y))  # (b, out, time / stride)
        past = F.avg_pool1d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        return F.relu(y + self.shortcut(past))  # (b, out, time / stride)


def band_gain(f: torch.Tensor) -> torch.Tensor:
    """Gain at frequencies f, Hz, that lets 0.5 to 40 Hz pass: the square of a second-order Butterworth's."""
    low, high = BAND_HZ
    return (f / low) ** 4 / (1 + (f / low) ** 4) / (1 + (f / high) ** 4)


def band_pass(ecg_mv: torch.Tensor) -> torch.Tensor:
    """0.5 to 40 Hz, zero phase, in the frequency domain: (b, lead, time)."""
    pad, samples = round(PAD_S * JUDGE_HZ), ecg_mv.shape[-1]
    x = F.pad(ecg_mv - ecg_mv.mean(-1, keepdim=True), (pad, pad), mode="reflect")
    f = torch.fft.rfftfreq(x.shape[-1], 1 / JUDGE_HZ, device=x.device, dtype=x.dtype)
    return torch.fft.irfft(torch.fft.rfft(x) * band_gain(f), n=x.shape[-1])[..., pad : pad + samples]


def filtered(ecg: np.ndarray, fs_hz: int) -> torch.Tensor:
    """Stored int16 (record, 12, time) -> what a Judge takes, float32 (record, 12, time at 100 Hz)."""
    parts = [band_pass(torch.from_numpy(to_judge_rate(part * np.float32(MV_PER_UV), fs_hz))) for part in _parts(ecg)]
    return torch.cat(parts) if parts else torch.empty(0, len(LEADS), 0)


def to_judge_rate(ecg_mv: np.ndarray, fs_hz: int) -> np.ndarray:
    """float32 (record, 12, time) at fs_hz -> at 100 Hz, through a zero-phase low-pass where it is faster."""
    if fs_hz == JUDGE_HZ:
        return ecg_mv
    from scipy.signal import resample_poly

    return resample_poly(ecg_mv, JUDGE_HZ, fs_hz, axis=-1).astype(np.float32)


def _parts(x) -> list:
    return [x[start : start + BATCH] for start in range(0, len(x), BATCH)]


@torch.inference_mode()
def predict(judge: Judge, x: torch.Tensor) -> np.ndarray:
    """Probabilities (record, output) of filtered records, float32 or float16."""
    judge.eval()
    return torch.cat([judge.probabilities(part.to(judge.mean.device).float()).cpu() for part in _parts(x)]).double().numpy()


def superclasses(judge: Judge, x: torch.Tensor) -> np.ndarray:
    """Of these the superclasses: (record, 5)."""
    return predict(judge, x)[:, : len(SUPERCLASSES)]


@torch.inference_mode()
def embed(judge: Judge, x: torch.Tensor) -> np.ndarray:
    """Features (record, 2c) of filtered records, mean over pieces."""
    judge.eval()
    pieces = [judge.pieces(part) for part in _parts(x)]  # (b, piece, lead, window) each
    return torch.cat([judge.features(p.flatten(0, 1)).unflatten(0, p.shape[:2]).mean(1) for p in pieces]).double().numpy()


def load_judge(path: Path) -> tuple[Judge, dict[str, str]]:
    """A trained judge, frozen, and what its file says of it. UserError where there is none."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no judge here; train one: ecg-batch train judge --ptbxl PTBXL --out {Path(path).parent}")
    judge, metadata = load_network(Path(path), "judge", Judge)
    return frozen(judge, "cpu"), metadata
