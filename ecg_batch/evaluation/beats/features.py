"""What a classifier sees of each beat of one lead: the beat, the patient's typical beat, the beat before, and numbers beside them.

All is relative to the patient: voltages to that of the typical QRS, intervals to the usual RR. No type of a beat enters.

Glossary
    beat    R peaks in the order of time, those of every type
    shape   SHAPES, each HALF samples before and after R at HZ
    number  NUMBERS
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.signal import butter, resample_poly, sosfiltfilt

HZ, HALF = 100, 64
BAND_HZ = (0.5, 40)
SHAPES = ("beat", "typical", "previous")
NUMBERS = (
    "RR before / usual", "RR after / usual", "RR before last / usual", "usual RR", "RR before / of record", "RR after / of record",
    "RR before / long", "RR before / before last", "RR after / before", "RR after next / usual", "irregularity", "share of early",
    "QRS unlike", "QRS width / typical", "QRS height / typical", "P like", "P unlike", "RR of record",
)  # fmt: skip
FEWEST = 8  # beats: of fewer nothing is usual
EARLY = 0.88  # of the usual RR
NEAR, AROUND = 20, 25  # beats before and after over which RR is usual, irregular
QRS = slice(HALF - 10, HALF + 11)  # 100 ms either side of R
P = slice(HALF - 28, HALF - 6)  # 280 to 70 ms before R


@dataclass(frozen=True)
class Seen:
    """shapes: float32 (beat, shape, time); numbers: float32 (beat, number)."""

    shapes: np.ndarray
    numbers: np.ndarray

    def take(self, key) -> "Seen":
        return Seen(self.shapes[key], self.numbers[key])


def at_rate(ecg: np.ndarray, fs_hz: float) -> np.ndarray:
    """Leads (..., time) at HZ."""
    ratio = Fraction(HZ / fs_hz).limit_denominator(1000)
    return np.asarray(ecg, np.float64) if ratio == 1 else resample_poly(ecg, ratio.numerator, ratio.denominator, axis=-1)


def seen(lead: np.ndarray, r: np.ndarray) -> Seen:
    """Of a lead (time,) at HZ, in any unit, and its R peaks (beat,), ascending, FEWEST of them at least."""
    if len(r) < FEWEST:
        raise ValueError(f"{len(r)} beats; needed {FEWEST}")
    x = np.pad(sosfiltfilt(butter(2, BAND_HZ, "band", fs=HZ, output="sos"), lead), 2 * HALF, mode="edge")
    r = np.asarray(r, np.int64) + 2 * HALF
    near = _windows(x, r, 8)  # (beat, time)
    x, near = x / (np.median(np.abs(near).max(axis=1)) + 1e-6), np.median(near, axis=0)
    sign = np.sign(near[np.abs(near).argmax()]) or 1.0
    peaks = r + _to_peak(sign * _windows(x, r, 6))
    beats = _windows(x, peaks, HALF)[:, :-1]
    before = np.concatenate([peaks[:1] - 80, peaks[:-1]])
    typical = _typical(beats)
    shapes = np.stack([beats, np.broadcast_to(typical, beats.shape), _windows(x, before, HALF)[:, :-1]], axis=1)
    numbers = np.concatenate([_of_rhythm(r), _of_shape(beats, typical), _of_record(r)], axis=1)
    return Seen((sign * shapes).clip(-4, 4).astype(np.float32), numbers.clip(-3, 3).astype(np.float32))


def _windows(x: np.ndarray, at: np.ndarray, half: int) -> np.ndarray:
    """(beat, 2 half + 1)."""
    return x[np.clip(at[:, None] + np.arange(-half, half + 1), 0, len(x) - 1)]


def _to_peak(upright: np.ndarray) -> np.ndarray:
    """How far from the middle of windows (beat, time) the R peak is; far ones must be higher."""
    half = upright.shape[1] // 2
    return (upright - 0.02 * np.abs(np.arange(-half, half + 1))).argmax(axis=1) - half


def _typical(beats: np.ndarray) -> np.ndarray:
    """The median (time,) of those beats (beat, time) whose QRS is like the median's: of the most frequent type."""
    typical = np.median(beats, axis=0)
    for _ in range(3):
        like = alike(beats[:, QRS], typical[QRS])
        typical = np.median(beats[like >= max(0.8, np.quantile(like, 0.3))], axis=0) if like.max() >= 0.8 else typical
    return typical


def alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation over the last axis."""
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return (a * b).sum(-1) / (np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1)) + 1e-6)


def _of_rhythm(r: np.ndarray) -> np.ndarray:
    """(beat, 12): the intervals about each beat, as logarithms of ratios, and how irregular it is around it."""
    rr = np.maximum(np.diff(r) / HZ, 0.15)  # (beat - 1,)
    usual = _around(rr, NEAR, lambda near: np.median(near, axis=1))
    long = _around(rr, NEAR, lambda near: np.quantile(near, 0.75, axis=1))
    steps = np.abs(np.diff(np.log(rr)))
    steps = np.concatenate([steps[:1], steps, steps[-1:]])  # (beat,)
    before, after = np.concatenate([usual[:1], rr]), np.concatenate([rr, usual[-1:]])
    last, next = np.concatenate([usual[:1], before[:-1]]), np.concatenate([after[1:], usual[-1:]])
    irregular = _around(steps, AROUND, lambda near: np.median(near, axis=1))[: len(r)]
    early = _around((before < EARLY * usual).astype(float), AROUND, lambda near: near.mean(axis=1))[: len(r)]
    of_record = np.median(rr)
    ratios = [before / usual, after / usual, last / usual, usual, before / of_record, after / of_record, before / long,
              before / last, after / before, next / usual]  # fmt: skip
    return np.stack([*map(np.log, ratios), 5 * irregular, 2 * early], axis=1)


def _around(values: np.ndarray, half: int, of) -> np.ndarray:
    """`of` (window, value) -> (window,) over the values near each beat: (len(values) + 1,), the last one twice."""
    padded = np.pad(values, half, mode="reflect" if len(values) > half else "symmetric")
    found = of(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1))
    return np.concatenate([found, found[-1:]])


def _of_shape(beats: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """(beat, 5): how far QRS and P are from the typical ones; widths and heights as logarithms of ratios."""
    unlike = 2 * (1 - alike(beats[:, QRS], typical[QRS]))
    width = np.log((_width(beats) + 0.1) / (_width(typical) + 0.1))
    height = np.log((_height(beats) + 0.05) / (_height(typical) + 0.05))
    p, own = beats[:, P] - np.median(beats[:, P], axis=1, keepdims=True), typical[P] - np.median(typical[P])
    return np.stack([unlike, width, height, alike(p, own), 5 * np.sqrt(np.square(p - own).mean(axis=1))], axis=1)


def _height(beats: np.ndarray) -> np.ndarray:
    return np.abs(beats[..., HALF - 8 : HALF + 9]).max(-1)


def _width(beats: np.ndarray) -> np.ndarray:
    """Area over height, in samples."""
    return np.abs(beats[..., HALF - 14 : HALF + 15]).sum(-1) / (_height(beats) + 1e-3)


def _of_record(r: np.ndarray) -> np.ndarray:
    return np.full((len(r), 1), np.log(np.median(np.maximum(np.diff(r) / HZ, 0.15)) / 0.8))
