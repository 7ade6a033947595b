"""P onset, QRS onset and end, T end of a record's typical beat: what re-timing must keep, and what may stretch.

All leads are read at once, as their root mean square, so one answer holds for the record ("global" intervals, as on a
12-lead electrocardiograph). Held against NeuroKit2's delineator in docs/evidence/split.md.
"""

from dataclasses import dataclass

import numpy as np

from ecg_batch.signal.beats import windows

QRS_LIMITS_S = (0.10, 0.14)  # a QRS begins at most 100 ms before R and ends at most 140 ms after it
QRS_STEEPNESS = 0.12  # of the steepest point: below it the QRS has not begun or is over
T_BEGINS_S = 0.06  # after the QRS
P_BEGINS_S = 0.28  # before R, at the earliest
P_HEIGHT = 0.025  # of the R wave, over all leads: lower is no P wave


@dataclass(frozen=True)
class Fiducials:
    """Samples from R of a record's typical beat: p_on < qrs_on < 0 < qrs_off < t_end. Without a P wave, p_on = qrs_on - 1."""

    p_on: int
    qrs_on: int
    qrs_off: int
    t_end: int

    def intervals_ms(self, fs_hz: float) -> dict[str, float]:
        """PR, QRS and QT in ms; PR is NaN without a P wave."""
        samples = {"PR": self.qrs_on - self.p_on, "QRS": self.qrs_off - self.qrs_on, "QT": self.t_end - self.qrs_on}
        if samples["PR"] == 1:
            samples["PR"] = float("nan")
        return {name: 1000 * value / fs_hz for name, value in samples.items()}


def r_peaks(modelled: np.ndarray, beats: np.ndarray, fs_hz: float) -> np.ndarray:
    """Sample of the largest deflection over all leads within 60 ms of each beat: (beat,)."""
    half = round(0.06 * fs_hz)
    return beats + np.argmax(np.linalg.norm(windows(modelled, beats, half), axis=1), axis=1) - half


def delineate(modelled: np.ndarray, beats: np.ndarray, fs_hz: float) -> Fiducials:
    """Fiducials of the median beat: modelled (lead, time) in any unit, beats (beat,) of one type, at least two."""
    rr = float(np.median(np.diff(beats)))
    reach = int(min(0.75 * fs_hz, 0.9 * rr))
    beat = np.median(windows(modelled, beats, reach), axis=0)
    speed = np.linalg.norm(np.gradient(beat, axis=1), axis=0)
    qrs_on, qrs_off = _qrs(speed, reach, fs_hz)
    level = np.median(beat[:, max(qrs_on - round(0.03 * fs_hz), 0) : qrs_on], axis=1, keepdims=True)
    height = np.linalg.norm(beat - level, axis=0)
    t_stop = min(reach + int(0.70 * rr), 2 * reach)
    t_end = _t_end(height, qrs_off + round(T_BEGINS_S * fs_hz), t_stop)
    p_on = _p_onset(height, max(reach - round(P_BEGINS_S * fs_hz), 0), qrs_on, height[reach - 2 : reach + 3].max(), fs_hz)
    return Fiducials(p_on - reach, qrs_on - reach, qrs_off - reach, t_end - reach)


def _qrs(speed: np.ndarray, r: int, fs_hz: float) -> tuple[int, int]:
    """Onset and end (samples) of the QRS about r: the first quiet 20 ms outward from the outermost steep samples."""
    before, after = (round(limit * fs_hz) for limit in QRS_LIMITS_S)
    first, last = max(r - before, 0), min(r + after, len(speed) - 1)
    steep = np.flatnonzero(speed[first : last + 1] > QRS_STEEPNESS * speed[first : last + 1].max()) + first
    quiet = max(round(0.02 * fs_hz), 2)
    left = r - _first_gap(r - steep[steep <= r][::-1], quiet)
    right = r + _first_gap(steep[steep >= r] - r, quiet)
    return max(left - 1, first), min(right + 1, last)


def _first_gap(distances: np.ndarray, quiet: int) -> int:
    """The last of ascending distances from R before a jump of more than `quiet`; 1 if there is none."""
    if not len(distances):
        return 1
    gaps = np.flatnonzero(np.diff(np.concatenate([[0], distances])) > quiet)
    return int(distances[gaps[0] - 1]) if len(gaps) and gaps[0] > 0 else int(distances[-1] if not len(gaps) else 1)


def _t_end(height: np.ndarray, first: int, stop: int) -> int:
    """T end by the largest trapezium after the T peak (Vazquez-Seisdedos 2011, doi:10.1186/1475-925X-10-43)."""
    stop = min(stop, len(height))
    if stop - first < 4:
        return max(stop - 1, first)
    peak = first + int(np.argmax(height[first:stop]))
    steepest = peak + int(np.argmin(np.gradient(height)[peak:stop]))
    time = np.arange(steepest, stop)
    area = (height[steepest] - height[time]) * (2 * (stop - 1) - steepest - time)
    return int(time[np.argmax(area)])


def _p_onset(height: np.ndarray, first: int, qrs_on: int, r_height: float, fs_hz: float) -> int:
    """P onset by the same trapezium, backwards from the P peak; qrs_on - 1 when there is no P wave."""
    stop = qrs_on - round(0.02 * fs_hz)
    if stop - first < 5:
        return qrs_on - 1
    wave = height[first:stop] - np.percentile(height[first:stop], 10)
    peak = int(np.argmax(wave))
    if wave[peak] < P_HEIGHT * r_height or peak < 3:
        return qrs_on - 1
    steepest = int(np.argmax(np.gradient(wave)[: peak + 1]))
    time = np.arange(steepest + 1)
    area = (wave[steepest] - wave[time]) * (steepest + time)
    return first + int(time[np.argmax(area)])
