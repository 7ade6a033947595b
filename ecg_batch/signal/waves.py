"""P, QRS and T of every beat: onset, peak and end, found on the typical beat of its type, in milliseconds from R.

A typical beat, and intervals over all its leads, are what electrocardiographs measure (Kligfield 2007,
doi:10.1161/CIRCULATIONAHA.106.180200). The QRS is found in all leads at once; P and T in each lead by itself, and the median over
leads is the record's. How near that is to the marks of cardiologists is in docs/evidence/waves.md.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample_poly

from ecg_batch.signal.edges import WORK_HZ, feet, peaks, qrs_edges, without_spike
from ecg_batch.signal.marks import MARKS

P, QRS, T = slice(0, 3), slice(3, 6), slice(6, 9)

REACH = (250, 400)  # samples of a beat before and after R: 0.5 and 0.8 s
ALIGN_WITHIN, ALIGN_HALF = 8, 60  # a beat is moved by up to 16 ms to where its QRS, 120 ms on either side, fits the others'
FIRST_S, LAST_S = 0.35, 0.60  # of a recording: a beat in there is not whole
T_AFTER_QRS, T_ENDS_S, T_ENDS_RR = 30, 0.62, 0.72  # T lies from 60 ms after the QRS to 0.62 s * sqrt(RR in s), or 72 % of RR
T_PEAK_S, T_PEAK_SD_S = 0.31, 0.10  # after the QRS onset, times sqrt(RR in s)
P_BEFORE_QRS, P_TO_QRS = 150, 10  # samples: P begins at most 300 ms before the QRS, its peak lies at least 20 ms before it
SMOOTH, SMOOTH_CELLS = {"p": 2.5, "t": 4.0}, 5.0  # samples: of typical beats, and of single ones
SAME_PEAK = {"p": 25.0, "t": 30.0}  # samples by which a lead's peak may lie off the record's
CLEAR = {"p": 0.30, "t": 0.05}  # of the largest lead: lower waves are not read; a T wave ends in all leads, P is lost in noise
KNEE = {"p_on": 1.0, "p_end": 0.5, "t_on": 0.5, "t_end": 0.5}  # share of knee, else tangent: edges.feet
READERS_MS = {"p_on": 2.0, "p_end": -3.0, "t_on": -8.0, "t_end": 2.0}  # so much later than that foot LUDB's readers see the edge
REPEATS = 0.38  # mean correlation of two beats before their QRS: with P it is 0.57 and more in LUDB, without at most 0.23
P_HEIGHT = 0.005  # of the QRS
SAME_P, P_MOVES = 0.7, 15  # correlation with the dominant type's P wave, up to 30 ms away, where beats are too few to repeat
FEW = 3  # beats


@dataclass(frozen=True)
class Typical:
    """The typical beat of one type, R at REACH[0], and the RR intervals about it: medians, in samples."""

    beat: np.ndarray  # (lead, time)
    cells: np.ndarray  # (beat, lead, time), what it is made of
    before: float
    after: float
    usual: float  # of the recording


def wave_marks(ecg_mv: np.ndarray, beats: np.ndarray, types: np.ndarray, fs_hz: float, p_allowed: bool = True) -> np.ndarray:
    """Marks of each beat in milliseconds from its R sample, float (beat, 9) in the order of MARKS, NaN where a wave is absent.

    ecg_mv: (lead, time), any leads; beats: R samples (beat,), ascending, at least two; types: (beat,), 0 the most frequent;
    p_allowed: False where the rhythm has no P waves. P and T are those of the typical beat, so the same for all beats of a type.
    QRS and R are moved to where the typical beat fits this one best, since R samples are no finer than fs_hz.
    """
    x, r = _at_work_rate(np.asarray(ecg_mv, np.float64), np.asarray(beats), fs_hz)
    x -= _level(x, r)
    marks, dominant = np.full((len(r), len(MARKS)), np.nan), None
    for kind in np.unique(types):
        at = np.flatnonzero(types == kind)
        typical, shift = _typical(x, r, at)
        found, dominant = _marks(typical, p_allowed, dominant)
        marks[at] = found + np.median(shift)
        marks[at, QRS] = found[QRS] + shift[:, None]
    marks[:, P] = np.minimum(marks[:, P], marks[:, 3, None])
    marks[:, T] = np.maximum(marks[:, T], marks[:, 5, None])
    return marks * (1000 / WORK_HZ)


def _at_work_rate(x: np.ndarray, beats: np.ndarray, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    ratio = Fraction(WORK_HZ / fs_hz).limit_denominator(1000)
    resampled = resample_poly(x, ratio.numerator, ratio.denominator, axis=1) if ratio != 1 else x.copy()
    return resampled, np.rint(beats * float(ratio)).astype(np.int64)


def _level(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Baseline (lead, time): straight lines through the median level 100 to 50 ms before each R, level beyond the ends."""
    near, far = WORK_HZ // 20, WORK_HZ // 10
    whole = r[r >= far]
    if not len(whole):
        return np.median(x, axis=1, keepdims=True)
    levels = np.median(x[:, whole[:, None] + np.arange(-far, 1 - near)], axis=2)
    return np.stack([np.interp(np.arange(x.shape[1]), whole - (near + far) / 2, level) for level in levels])


def _cells(x: np.ndarray, r: np.ndarray, before: int, after: int) -> np.ndarray:
    """(beat, lead, time) about each R, end values repeated."""
    return x[:, np.clip(r[:, None] + np.arange(-before, after + 1), 0, x.shape[1] - 1)].transpose(1, 0, 2)


def _typical(x: np.ndarray, r: np.ndarray, at: np.ndarray) -> tuple[Typical, np.ndarray]:
    """The typical beat of the beats `at`, and by how many samples each of them lies after its R sample: (beat,)."""
    whole = (r[at] >= FIRST_S * WORK_HZ) & (r[at] < x.shape[1] - LAST_S * WORK_HZ)
    whole = whole if whole.any() else np.ones(len(at), bool)
    shift = _shifts(x, r[at], whole) if whole.sum() >= FEW else np.zeros(len(at), np.int64)
    cells = _cells(x, (r[at] + shift)[whole], *REACH)
    usual = float(np.median(np.diff(r)))
    rr = np.concatenate([[usual], np.diff(r), [usual]])
    return Typical(np.median(cells, axis=0), cells, float(np.median(rr[at])), float(np.median(rr[at + 1])), usual), shift


def _shifts(x: np.ndarray, r: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Samples by which each beat fits the median of the whole ones best (Woody 1967, doi:10.1007/BF02474247): (beat,)."""
    wide = _cells(x, r, ALIGN_HALF + ALIGN_WITHIN, ALIGN_HALF + ALIGN_WITHIN)
    moved = np.lib.stride_tricks.sliding_window_view(wide, 2 * ALIGN_HALF + 1, axis=2)  # (beat, lead, shift, time)
    power = np.square(moved).sum(axis=(1, 3)) - np.square(moved.sum(axis=3)).sum(axis=1) / moved.shape[3]
    shift = np.zeros(len(r), np.int64)
    for _ in range(2):
        median = np.median(_cells(x, (r + shift)[whole], ALIGN_HALF, ALIGN_HALF), axis=0)
        median -= median.mean(axis=1, keepdims=True)
        shift = np.argmax(np.einsum("blst,lt->bs", moved, median) / np.sqrt(power + 1e-12), axis=1) - ALIGN_WITHIN
    return shift


def _marks(typical: Typical, p_allowed: bool, dominant: tuple[Typical, np.ndarray] | None):
    """Marks of a typical beat, samples from R (9,), and the dominant type with its own."""
    origin = REACH[0]
    beat, peak = without_spike(typical.beat, origin)
    on, off = qrs_edges(beat, peak)
    typical = replace(typical, beat=beat - np.median(beat[:, on - 12 : on - 2], axis=1, keepdims=True))
    marks = np.full(len(MARKS), np.nan)
    marks[QRS] = on, origin if on < origin < off else peak, off
    marks[T] = _t_wave(typical, on, off)
    t_end = marks[8] if dominant is None else dominant[1][8] + origin
    if p_allowed:
        marks[P] = _p_wave(typical, on, t_end, dominant)
    marks -= origin
    return marks, dominant or (typical, marks)


def _t_wave(typical: Typical, on: int, off: int) -> np.ndarray:
    """T onset, peak and end (3,); NaN where the next beat leaves no room."""
    rr_s = typical.usual / WORK_HZ
    stop = min(on + T_ENDS_S * WORK_HZ * np.sqrt(rr_s), REACH[0] + T_ENDS_RR * typical.after, typical.beat.shape[1] - 1)
    first, stop = off + T_AFTER_QRS, int(stop)
    if stop - first < T_AFTER_QRS:
        return np.full(3, np.nan)
    expected = on + T_PEAK_S * WORK_HZ * np.sqrt(rr_s), T_PEAK_SD_S * WORK_HZ
    among = first, max(stop - 25, first + 10)
    return _wave(typical.beat, "t", (first, stop), among, (off + 10, stop), expected)[0]


def _p_wave(typical: Typical, on: int, t_end: float, dominant: tuple[Typical, np.ndarray] | None) -> np.ndarray:
    """P onset, peak and end (3,); NaN where nothing repeats from beat to beat, or nothing is as in the dominant type."""
    absent = np.full(3, np.nan)
    t_before = 0 if np.isnan(t_end) else int(t_end - typical.before) + 10
    first, stop = max(on - P_BEFORE_QRS, t_before, 0), on - P_TO_QRS
    if dominant is not None and len(typical.cells) < FEW:
        return _same_p(typical.beat, *dominant, (first, stop))
    if stop - first <= 25:
        return absent
    marks, height = _wave(typical.beat, "p", (first, stop), (first + 6, stop), (first, on - 2), None)
    qrs = np.linalg.norm(typical.beat[:, REACH[0] - 5 : REACH[0] + 6], axis=0).max()
    repeats = len(typical.cells) >= FEW and _repetition(typical.cells[:, :, first:stop]) >= REPEATS
    return marks if repeats and height >= P_HEIGHT * qrs else absent


def _wave(beat: np.ndarray, name: str, inside, among, between, expected) -> tuple[np.ndarray, float]:
    """Onset, peak and end (3,) of the wave of a beat, medians over the leads that show it, and its height over all leads.

    inside, among, between: samples from and to where all leads together are looked at, the peak is sought, the wave may reach.
    """
    smooth = gaussian_filter1d(beat, SMOOTH[name], axis=1)
    part = smooth[:, inside[0] : inside[1]]
    main = np.linalg.svd(part - np.median(part, axis=1, keepdims=True), full_matrices=False)[0][:, :1].T @ smooth
    centre = int(peaks(main, among, between, expected)[0][0])
    peak, height = peaks(smooth, among, between, (centre, SAME_PEAK[name]))
    upward = np.sign(height)
    clear = np.abs(height) >= CLEAR[name] * np.abs(height).max()
    on, end = (
        feet(smooth, peak, upward, limit, KNEE[edge])[clear] + READERS_MS[edge] * WORK_HZ / 1000
        for edge, limit in zip((f"{name}_on", f"{name}_end"), between, strict=True)
    )
    middle = float(np.median(peak[clear]))
    marks = np.array([min(float(np.median(on)), middle), middle, max(float(np.median(end)), middle)])
    return marks, float(np.linalg.norm(height))


def _repetition(cells: np.ndarray) -> float:
    """Mean correlation over all leads of two beats, without what is straight in each lead: (beat, lead, time)."""
    x = gaussian_filter1d(cells, SMOOTH_CELLS, axis=2)
    ramp = np.linspace(0, 1, x.shape[2])
    x = x - x[..., :5].mean(axis=2, keepdims=True) * (1 - ramp) - x[..., -5:].mean(axis=2, keepdims=True) * ramp
    x -= x.mean(axis=2, keepdims=True)
    x /= x.std(axis=0).mean(axis=1)[:, None] + 1e-12  # a noisy lead says little
    flat = x.reshape(len(x), -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-12
    return float((np.square(flat.sum(axis=0)).sum() - len(x)) / (len(x) * (len(x) - 1)))


def _same_p(beat: np.ndarray, dominant: Typical, marks: np.ndarray, between: tuple[int, int]) -> np.ndarray:
    """The dominant type's P wave (3,), moved to where it is in this beat; NaN where it is not."""
    absent = np.full(3, np.nan)
    if np.isnan(marks[0]):
        return absent
    on, _, end = marks[P].astype(int) + REACH[0]
    moves = [move for move in range(-P_MOVES, P_MOVES + 1) if between[0] <= on + move and end + move <= between[1]]
    if not moves or end - on < 10:
        return absent
    shape = _unit(dominant.beat[:, on:end])
    fit = [float((_unit(beat[:, on + move : end + move]) * shape).sum()) for move in moves]
    best = int(np.argmax(fit))
    return marks[P] + REACH[0] + moves[best] if fit[best] >= SAME_P else absent


def _unit(x: np.ndarray) -> np.ndarray:
    """(lead, time) without the mean of each lead, of norm 1."""
    x = gaussian_filter1d(x, SMOOTH_CELLS, axis=1)
    x = x - x.mean(axis=1, keepdims=True)
    return x / (np.linalg.norm(x) + 1e-12)
