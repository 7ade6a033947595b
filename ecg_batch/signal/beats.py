"""Where the beats are, how fast the heart goes, and which beats look alike."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import numpy as np

from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.leads import MODELLED

VOTE_TOLERANCE_S = 0.10  # detections of two leads closer than this are the same beat
VOTES_NEEDED = 5  # of 8 leads
QRS_HALF_WIDTH_S = 0.06  # half of the window in which two QRS are compared
SAME_TYPE_CORRELATION = 0.85
SEARCH_S = 0.15
DETECTION_SLOPE = np.array([-1, -2, 0, 2, 1])  # five-point derivative


def detect_lead(lead_mv: np.ndarray, fs_hz: float) -> np.ndarray:
    """R samples of one lead (time,) by sleepecg's Pan-Tompkins variant (doi:10.1109/TBME.1985.325532); none in a flat lead."""
    if np.ptp(lead_mv) == 0:
        return np.empty(0, np.int64)
    return np.asarray(_sleepecg().detect_heartbeats(lead_mv.astype(np.float64), fs_hz), dtype=np.int64)


@cache
def _sleepecg():
    """The library. When it is imported it looks for its settings in the user's home, and a user known by number alone has none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.devnull  # nothing is below it
        try:
            import sleepecg
        finally:
            del os.environ["HOME"]
    import sleepecg

    return sleepecg


@cache
def _sleepecg_steps():
    """Its compiled steps alone, from their file: the package around them imports scipy.stats, pandas and more, 0.5 s."""
    (folder,) = find_spec("sleepecg").submodule_search_locations
    spec = PathFinder.find_spec("sleepecg._heartbeat_detection", [folder])
    steps = module_from_spec(spec)
    spec.loader.exec_module(steps)
    return steps


def detect_rows(rows_mv: np.ndarray, fs_hz: float) -> list[np.ndarray]:
    """detect_lead of each row (row, time)."""
    row, r = detect_all(rows_mv, fs_hz)
    return np.split(r, np.searchsorted(row, np.arange(1, len(rows_mv)))) if len(rows_mv) else []


def detect_all(rows_mv: np.ndarray, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """detect_lead of each row (row, time), as joined has them. Filtered together by our own kernel: calling scipy's filter takes
    ten times as long as a row of 10 s. The other steps are sleepecg's, of the version that pyproject.toml pins; a test holds both
    to the same beats.
    """
    if not finish_kernel.library() or not len(rows_mv):
        return joined([detect_lead(row_mv, fs_hz) for row_mv in rows_mv])
    band, samples = finish_kernel.sections(2, (5, 30), "bandpass", fs_hz), rows_mv.shape[-1]
    mask, flat = _beat_mask(rows_mv, band, fs_hz), np.flatnonzero(rows_mv[:, 0] == rows_mv[:, 1])
    starts = np.argmax(rows_mv[flat] != rows_mv[flat, :1], axis=1)
    for start in np.unique(starts):  # sleepecg leaves out a flat beginning
        mask[rows := flat[starts == start]] = 0
        if start and samples - start > band[0].edge:
            mask[rows, start:] = _beat_mask(rows_mv[rows, start:], band, fs_hz)
    return np.divmod(np.flatnonzero(mask), samples)


def _beat_mask(rows_mv: np.ndarray, band, fs_hz: float) -> np.ndarray:
    """sleepecg.detect_heartbeats from its second step on: not 0 where a beat is, (row, time)."""
    steps, filtered = _sleepecg_steps(), finish_kernel.filtfilt(rows_mv, band)
    apart = np.pad(filtered, [(0, 0), (0, len(DETECTION_SLOPE) // 2)])  # so that the slopes of all rows are one call
    slopes = np.correlate(apart.ravel(), DETECTION_SLOPE, mode="same").reshape(apart.shape)[:, : rows_mv.shape[-1]]
    energies = (steps._squared_moving_integration(slope, int(0.15 * fs_hz)) for slope in slopes)
    return np.array([steps._thresholding(*each, fs_hz) for each in zip(filtered, energies, strict=True)])


def joined(beats: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The beats of records one after another: (record, sample), both (beat,)."""
    return np.repeat(np.arange(len(beats)), [len(own) for own in beats]), np.concatenate([np.empty(0, np.int64), *beats])


def detect_leads(modelled_mv: np.ndarray, fs_hz: float) -> list[np.ndarray]:
    """R samples of each lead by itself."""
    return [detect_lead(lead, fs_hz) for lead in modelled_mv]


def detect_beats(modelled_mv: np.ndarray, fs_hz: float, by_lead: list[np.ndarray] | None = None) -> np.ndarray:
    """R samples that at least five of the eight leads agree on: (lead, time) mV -> (beat,) ascending.

    One lead misses beats or counts T waves in 3 to 4 % of PTB-XL records; the vote repairs most of them. The R sample is the
    same point of each beat: the largest deflection over all leads of the typical beat, to which each beat is aligned.
    by_lead: the detections of each lead, where they are already known.
    """
    voted = voted_beats(by_lead or detect_leads(modelled_mv, fs_hz), fs_hz)
    return _aligned(modelled_mv, voted, fs_hz)


def voted_beats(by_lead: list[np.ndarray], fs_hz: float, gap_s: float = VOTE_TOLERANCE_S / 2) -> np.ndarray:
    """The medians of what at least five leads agree on, not aligned: (beat,). gap_s: from one detection to the next of a beat."""
    found = np.sort(np.concatenate(by_lead))
    if not len(found):
        return found
    groups = np.split(found, np.flatnonzero(np.diff(found) > gap_s * fs_hz) + 1)
    return np.array([int(np.median(group)) for group in groups if len(group) >= VOTES_NEEDED], dtype=np.int64)


def _aligned(modelled_mv: np.ndarray, beats: np.ndarray, fs_hz: float) -> np.ndarray:
    """Moves each beat by up to 150 ms to where it fits the median beat best (Woody 1967, doi:10.1007/BF02474247).

    sleepecg puts the first beat of a record up to 130 ms early.
    """
    half, search = round(QRS_HALF_WIDTH_S * fs_hz), round(SEARCH_S * fs_hz)
    if len(beats) < 3:
        return beats
    for _ in range(2):
        median = np.median(windows(modelled_mv, beats, 2 * half), axis=0)
        peak = int(np.argmax(np.linalg.norm(median[:, half:-half], axis=0)))  # 0 .. 2 * half, half = where R is now
        target = _unit(median[:, peak : peak + 2 * half + 1])
        shifted = beats + peak - half + np.arange(-search, search + 1)[:, None]  # (shift, beat)
        shapes = _unit(windows(modelled_mv, shifted.ravel(), half)).reshape(*shifted.shape, *target.shape)
        fit = np.sum(shapes * target, axis=(-1, -2))  # (shift, beat)
        moved = beats + peak - half + np.where(fit.max(axis=0) >= SAME_TYPE_CORRELATION, np.argmax(fit, axis=0) - search, 0)
        beats = np.unique(np.clip(moved, 0, modelled_mv.shape[-1] - 1))
    return beats


def windows(modelled_mv: np.ndarray, beats: np.ndarray, half: int) -> np.ndarray:
    """The samples within `half` of each beat, each lead about its own mean, end values repeated: (beat, lead, 2 half + 1)."""
    time = np.clip(beats[:, None] + np.arange(-half, half + 1), 0, modelled_mv.shape[-1] - 1)
    around = modelled_mv[:, time].transpose(1, 0, 2)
    return around - around.mean(axis=-1, keepdims=True)


def _unit(shapes: np.ndarray) -> np.ndarray:
    """Each (lead, time) shape scaled to norm 1."""
    return shapes / (np.linalg.norm(shapes, axis=(-1, -2), keepdims=True) + 1e-12)


def edge_beats(modelled_mv: np.ndarray, beats: np.ndarray, fs_hz: float) -> np.ndarray:
    """`beats` and those cut by the ends of the record, which no detector reports: there, a third of a QRS's steepness is a QRS."""
    speed = np.linalg.norm(np.diff(modelled_mv, axis=1, prepend=modelled_mv[:, :1]), axis=0)
    half = round(QRS_HALF_WIDTH_S * fs_hz)
    steep = 0.35 * np.median([speed[max(beat - half, 0) : beat + half + 1].max() for beat in beats])
    clear = round(0.5 * float(np.median(np.diff(beats))))
    head, tail = speed[: max(beats[0] - clear, 0)], speed[beats[-1] + clear :]
    extra = [int(np.argmax(head))] if len(head) and head.max() > steep else []
    extra += [int(beats[-1] + clear + np.argmax(tail))] if len(tail) and tail.max() > steep else []
    return np.unique(np.concatenate([beats, np.array(extra, dtype=np.int64)]))


def heart_rate_bpm(beats: np.ndarray, fs_hz: float) -> float:
    """60 over the mean RR interval; NaN with fewer than three beats."""
    if len(beats) < 3:
        return float("nan")
    return 60.0 * fs_hz * (len(beats) - 1) / float(beats[-1] - beats[0])


def heart_rates_bpm(record: np.ndarray, r: np.ndarray, records: int, fs_hz: float) -> np.ndarray:
    """heart_rate_bpm of each of so many records (record,), of beats as joined has them."""
    count, bpm = np.bincount(record, minlength=records), np.full(records, np.nan)
    end, enough = np.cumsum(count), count >= 3
    count, end = count[enough], end[enough]
    bpm[enough] = 60.0 * fs_hz * (count - 1) / (r[end - 1] - r[end - count])
    return bpm


def beat_types(modelled_mv: np.ndarray, beats: np.ndarray, fs_hz: float) -> np.ndarray:
    """Type of each beat (beat,), 0 the most frequent: beats whose QRS correlate at least 0.85 over all leads are alike."""
    shapes = _unit(windows(modelled_mv, beats, round(QRS_HALF_WIDTH_S * fs_hz)))
    alike = np.einsum("alt,blt->ab", shapes, shapes) >= SAME_TYPE_CORRELATION
    types = np.full(len(beats), -1)
    kind = 0
    while (types < 0).any():
        open_beats = types < 0
        leader = int(np.argmax((alike & open_beats).sum(axis=1) * open_beats))
        types[alike[leader] & open_beats] = kind
        kind += 1
    return types


def agree(first_bpm: float, second_bpm: float, within_bpm: float = 3.0) -> bool:
    """Whether two heart rates agree; NaN agrees with nothing."""
    return bool(abs(first_bpm - second_bpm) <= within_bpm)


LEAD_II = MODELLED.index("II")
