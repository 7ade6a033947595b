"""Skeleton and texture of a donor: what a clinician reads, and what is left when it is taken away. See docs/evidence/split.md.

baseline   cubic spline through the level just before each QRS (Meyer and Keiser 1977, doi:10.1016/0010-4809(77)90042-5), but not
           before an early one, where the T wave of the beat before may lie
QRS        the donor's own samples, baseline removed; so are the first and last 100 ms
P, ST, T   the typical beat of each type: above 20 Hz as far as it recurs with every beat
skeleton   these, joined; rounded to the stored integers
texture    donor - skeleton, exactly: noise, respiration, drift, beat-to-beat variation
"""

from dataclasses import dataclass

import numpy as np

from ecg_batch.signal.beats import beat_types, edge_beats
from ecg_batch.signal.filters import band

BEFORE_R_S = 0.30  # a beat's cell begins here, in the TP segment ...
BEFORE_R_RR = 0.40  # ... but no earlier than 40 % of the RR interval
QRS_S = (-0.10, 0.12)  # about R; kept as recorded
JOIN_S = 0.03
END_S = 0.10  # PTB-XL's last samples often hold a spike of its own resampling: kept out of the texture, as recorded
TRIMMED = 0.25  # of a type's beats at either end: the mean of the others is as safe from an odd beat as a median, with less noise
SMOOTH_HZ = 20.0  # P and T have little above (ST-T 99 % below 10 Hz); so what is there must show that it recurs
SNR_S = 0.15  # over which its signal-to-noise ratio is measured
DOUBT = 2.4  # times the variance of a mean of the middle half of the beats: noise that looks like signal by chance stays out
EARLY_RR = 0.8  # of the usual RR
DRIFT_HZ = 0.5
ATRIAL_BAND_HZ = (2.0, 15.0)
# Atrial activity that is not locked to the QRS is averaged away by a median over beats, yet a clinician reads it.
UNLOCKED_ATRIAL = frozenset({"AFIB", "AFLT", "2AVB", "3AVB", "SVTAC", "PSVT"})


@dataclass(frozen=True)
class Split:
    """skeleton + texture = the donor's modelled leads, int16 (lead, time) each; beats with those cut by the ends, types (beat,)."""

    skeleton: np.ndarray
    texture: np.ndarray
    beats: np.ndarray
    types: np.ndarray


def split(donor: np.ndarray, beats: np.ndarray, fs_hz: float, keep_atrial: bool) -> Split:
    """Splits one record: donor int16 (lead, time) in microvolts, beats (beat,) R samples, at least three."""
    x = donor.astype(np.float64)
    beats = edge_beats(x, beats, fs_hz)
    drift = band(x, (None, DRIFT_HZ), fs_hz) if keep_atrial else baseline(x, beats, fs_hz)
    flat = x - (drift - np.median(drift, axis=1, keepdims=True))  # a constant is no drift: it stays with the skeleton
    types = beat_types(flat, beats, fs_hz)
    skeleton = typical_beats(flat, beats, types, fs_hz)
    if keep_atrial:
        skeleton += band(flat - skeleton, ATRIAL_BAND_HZ, fs_hz)
    weight = as_recorded(x.shape[-1], beats, fs_hz)
    skeleton = np.rint(weight * flat + (1 - weight) * skeleton).astype(np.int16)
    return Split(skeleton, donor - skeleton, beats, types)


def baseline(x: np.ndarray, beats: np.ndarray, fs_hz: float) -> np.ndarray:
    """Baseline (lead, time): a cubic spline through the median level 100 to 50 ms before each R that is not early, level beyond the
    ends.
    """
    from scipy.interpolate import CubicSpline  # here and below: what plans and opens a bank needs the constants of this file only

    near, far = round(0.05 * fs_hz), round(0.10 * fs_hz)
    beats = beats[beats >= far]
    beats = beats[~_early(beats)]
    knots = beats - (near + far) / 2
    before = beats.astype(int)[:, None] + np.arange(-far, 1 - near)  # (beat, time)
    levels = np.median(x[:, before], axis=-1).T  # (beat, lead)
    time = np.clip(np.arange(x.shape[-1]), knots[0], knots[-1])
    return CubicSpline(knots, levels, axis=0)(time).T


def _early(beats: np.ndarray) -> np.ndarray:
    """Which beats (beat,) come early for their record: no more than two in a row, for a run has a level of its own."""
    rr = np.diff(beats)
    usual = max(np.median(rr), rr.mean())  # where every other beat is early, the median may be their RR
    early = np.insert(rr < EARLY_RR * usual, 0, False)
    early[2:] &= ~(early[1:-1] & early[:-2])
    return early


def typical_beats(flat: np.ndarray, beats: np.ndarray, types: np.ndarray, fs_hz: float) -> np.ndarray:
    """The record rebuilt from the median beat of each type: (lead, time), cells joined by a cross-fade in the TP segment."""
    join = round(JOIN_S * fs_hz)
    rr = int(np.median(np.diff(beats)))
    before = np.minimum(BEFORE_R_S * fs_hz, BEFORE_R_RR * np.diff(beats, prepend=beats[0] - rr)).astype(int)
    starts = beats - before
    stops = np.append(starts[1:], beats[-1] + rr - before[0])
    cells = {kind: _stacked(flat, beats, starts - join, stops + join, types == kind) for kind in np.unique(types)}
    means = {kind: _middle_mean(stack) for kind, (_, stack) in cells.items()}
    spreads = {kind: _spread(cells[kind][1], means[kind], fs_hz) for kind in cells if kind == 0 or len(cells[kind][1]) > 2}
    noise = spreads[0].mean(axis=-1, keepdims=True)  # of the most frequent type, (lead, 1)
    shapes = {
        kind: (origin, _typical(stack, means[kind], spreads[kind] if len(stack) > 2 else noise, fs_hz))
        for kind, (origin, stack) in cells.items()  # of fewer it cannot be told what recurs, so they have the noise of the others
    }
    head, tail = _outer_beats(flat, starts[0], stops[-1], beats, rr, shapes[0])
    placed = [(head, 0, head - before[0], starts[0]), *zip(beats, types, starts, stops, strict=True)]
    placed[-1] = (beats[-1], types[-1], starts[-1], tail - before[0])
    placed.append((tail, 0, tail - before[0], tail + rr))
    out, total = np.zeros_like(flat), np.full(flat.shape[-1], 1e-9)
    for r, kind, start, stop in placed:
        time = np.arange(max(start - join, 0), min(stop + join, flat.shape[-1]))
        ramp = np.clip(np.minimum(time - start + join, stop + join - time) / (2 * join), 1e-6, 1.0)
        out[:, time] += ramp * _reach(shapes[kind], time - r)
        total[time] += ramp
    return out / total


def _stacked(flat: np.ndarray, beats: np.ndarray, starts: np.ndarray, stops: np.ndarray, chosen: np.ndarray):
    """(origin, stack): the cells of the chosen beats, (beat, lead, time about R); stack[..., origin] is R, NaN beyond a cell."""
    cells = list(zip(beats[chosen], starts[chosen], stops[chosen], strict=True))
    origin = int(max(r - start for r, start, _ in cells))
    stack = np.full((len(cells), flat.shape[0], origin + int(max(stop - r for r, _, stop in cells))), np.nan)
    for row, (r, start, stop) in zip(stack, cells, strict=True):
        start, stop = max(start, 0), min(stop, flat.shape[-1])
        row[:, start - r + origin : stop - r + origin] = flat[:, start:stop]
    return origin, stack


def _typical(stack: np.ndarray, shape: np.ndarray, noise: np.ndarray, fs_hz: float) -> np.ndarray:
    """What is the same in every beat (beat, lead, time): (lead, time). shape: its _middle_mean; noise: variance of one beat above
    SMOOTH_HZ, (lead, time) or (lead, 1).

    Each sample is a mean over those beats whose cell reaches it, so a long RR interval keeps its own end. Its part above SMOOTH_HZ
    is multiplied by signal / (signal + noise), after Wiener: a mean of ten beats still holds a tenth of their noise.
    """
    high = shape - _smooth(shape, fs_hz)
    reached = np.maximum((~np.isnan(stack[:, 0])).sum(axis=0), 1)
    power = _local_mean(high**2, fs_hz) + 1e-3  # of a silent lead as well
    return shape - high + np.clip(1 - DOUBT * noise / reached / power, 0, 1) * high


def _middle_mean(stack: np.ndarray) -> np.ndarray:
    """The mean over beats without the lowest and highest quarter of each sample, 0 where no cell reaches: (lead, time)."""
    ordered, reached = np.sort(stack, axis=0), (~np.isnan(stack)).sum(axis=0)  # NaN comes last
    cut, rank = (TRIMMED * reached).astype(int), np.arange(len(stack))[:, None, None]
    kept = (rank >= cut) & (rank < reached - cut)
    return np.where(kept, ordered, 0).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)


def _spread(stack: np.ndarray, mean: np.ndarray, fs_hz: float) -> np.ndarray:
    """Variance over beats of what lies above SMOOTH_HZ: (lead, time)."""
    off = np.where(np.isnan(stack), 0, stack - mean)
    variance = np.square(off - _smooth(off, fs_hz)).mean(axis=0) * len(stack) / max(len(stack) - 1, 1)
    return _local_mean(variance, fs_hz)


def _smooth(x: np.ndarray, fs_hz: float) -> np.ndarray:
    """x (..., time) below SMOOTH_HZ, its end values going on beyond its ends."""
    beyond = round(0.2 * fs_hz)
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(beyond, beyond)], mode="edge")
    return band(padded, (None, SMOOTH_HZ), fs_hz)[..., beyond:-beyond]


def _local_mean(x: np.ndarray, fs_hz: float) -> np.ndarray:
    from scipy.ndimage import uniform_filter1d

    return uniform_filter1d(x, round(SNR_S * fs_hz), axis=-1, mode="nearest")


def _reach(shape: tuple[int, np.ndarray], offsets: np.ndarray) -> np.ndarray:
    """The shape at offsets from its R (time,), its end values beyond its ends: (lead, time)."""
    origin, values = shape
    return values[:, np.clip(offsets + origin, 0, values.shape[-1] - 1)]


def _outer_beats(flat: np.ndarray, start: int, stop: int, beats: np.ndarray, rr: int, shape) -> tuple[int, int]:
    """R samples of the beats before and after the record, whose T and P waves reach into it: where the shape fits best."""

    def best(candidates: np.ndarray, time: np.ndarray) -> int:
        errors = np.square(flat[:, time] - _reach(shape, time - candidates[:, None]).swapaxes(0, 1)).mean(axis=(1, 2))
        return int(candidates[int(np.argmin(errors))])

    samples = flat.shape[-1]
    near, far = round(0.6 * rr), round(1.5 * rr)
    heads = np.arange(beats[0] - far, min(beats[0] - near, 0) + 1)
    tails = np.arange(max(beats[-1] + near, samples - 1), beats[-1] + far + 1)
    head_time, tail_time = np.arange(0, start), np.arange(min(beats[-1] + near, samples), samples)
    head = best(heads, head_time) if len(heads) and len(head_time) else int(beats[0] - rr)
    tail = best(tails, tail_time) if len(tails) and len(tail_time) else int(beats[-1] + rr)
    return head, tail


def as_recorded(samples: int, beats: np.ndarray, fs_hz: float) -> np.ndarray:
    """1 inside QRS and near the ends, 0 elsewhere, linear over 30 ms: (time,)."""
    time = np.arange(samples)
    nearest = time - beats[np.argmin(np.abs(time[:, None] - beats[None, :]), axis=1)]
    outside_s = np.maximum(QRS_S[0] - nearest / fs_hz, nearest / fs_hz - QRS_S[1])
    outside_s = np.minimum(outside_s, np.minimum(time, samples - 1 - time) / fs_hz - END_S)
    return np.clip(1 - outside_s / JOIN_S, 0.0, 1.0)
