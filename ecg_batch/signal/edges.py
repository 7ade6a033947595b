"""Where a wave begins and ends in a typical beat: a quiet stretch beside the QRS, the foot of a flank beside P and T.

Beats are (lead, time) at WORK_HZ, the rate at which waves.py works; all times are samples of it.
"""

import numpy as np
from scipy.ndimage import gaussian_filter1d

WORK_HZ = 500

# QRS: LUDB's readers see it begin where the speed of all leads, smoothed over 8 ms, has 5 % of its greatest, and end where that
# which is smoothed over 5 ms has 6 %. The plateau of R' in a bundle branch block lasts up to 20 ms and is no end.
QRS_BEFORE, QRS_AFTER = 70, 100  # a QRS begins at most 140 ms before R and ends at most 200 ms after it: R may be a spike
ON_SMOOTH, ON_SHARE, ON_QUIET = 4.0, 0.05, 8  # samples, share of the greatest speed, samples that stay below it
OFF_SMOOTH, OFF_SHARE, OFF_QUIET = 2.5, 0.06, 12
REST_BEFORE, REST_AFTER = (-110, -40), (60, 140)  # from R: where the speed at rest is measured
OVER_REST = 1.5  # times the lower quartile there: noise before the QRS, the slope of ST after it
REST_FACTORS = (1.0, 1.5, 2.0, 3.0)  # by which the limit is raised until there is a stretch of rest

# In LUDB a beat's speed changes between two samples by at most 0.92 of its greatest; with the spike of a pacemaker by 1.28 to 1.97.
SPIKE_JERK = 1.1
SPIKE_BETWEEN = (-60, 20)  # from R, which may have been found at the spike itself
SPIKE_LASTS = (5, 6)  # before and after its sharpest sample

FALLEN, RISEN = 0.4, 0.06  # of a flank's height: it is over where it rises by this, once it has fallen by that
SHORTEST = 6  # from peak to foot: in less there is nothing to choose


def without_spike(beat: np.ndarray, r: int) -> tuple[np.ndarray, int]:
    """A beat without its pacing spike, and the sample of its QRS's peak; a beat without a spike as it is, and r."""
    first, last = r + SPIKE_BETWEEN[0], r + SPIKE_BETWEEN[1]
    speed = np.diff(beat[:, first:last], axis=1)
    jerk = np.linalg.norm(np.diff(speed, axis=1), axis=0)
    if jerk.max() < SPIKE_JERK * np.linalg.norm(speed, axis=0).max():
        return beat, r
    sharpest = first + int(np.argmax(jerk)) + 1
    start, stop = sharpest - SPIKE_LASTS[0], sharpest + SPIKE_LASTS[1]
    out = beat.copy()
    out[:, :start] += beat[:, [stop]] - beat[:, [start]]  # what follows a spike begins at another level
    out[:, start:stop] = beat[:, [stop]]
    height = np.linalg.norm(out[:, r - QRS_BEFORE : r + QRS_AFTER] - beat[:, [stop]], axis=0)
    return out, r - QRS_BEFORE + int(np.argmax(height))


def qrs_edges(beat: np.ndarray, r: int) -> tuple[int, int]:
    """Onset and end of the QRS whose peak is at r, over all leads: the first stretches on either side in which little moves."""
    around = slice(r - QRS_BEFORE, r + QRS_AFTER + 1)
    speed = _speed(beat, ON_SMOOTH)
    steepest = r - QRS_BEFORE + int(np.argmax(speed[r - QRS_BEFORE : r + 1]))
    least = max(ON_SHARE * speed[around].max(), OVER_REST * _at_rest(speed, r, REST_BEFORE))
    on = steepest - _first_rest(speed[r - QRS_BEFORE - ON_QUIET : steepest][::-1], least, ON_QUIET)
    speed = _speed(beat, OFF_SMOOTH)
    steepest = r + int(np.argmax(speed[around][QRS_BEFORE:]))
    least = max(OFF_SHARE * speed[around].max(), OVER_REST * _at_rest(speed, r, REST_AFTER))
    off = steepest + _first_rest(speed[steepest + 1 : r + QRS_AFTER + OFF_QUIET], least, OFF_QUIET)
    return on, off


def _speed(beat: np.ndarray, smooth: float) -> np.ndarray:
    return np.linalg.norm(np.gradient(gaussian_filter1d(beat, smooth, axis=1), axis=1), axis=0)


def _at_rest(speed: np.ndarray, r: int, between: tuple[int, int]) -> float:
    return float(np.percentile(speed[r + between[0] : r + between[1]], 25))


def _first_rest(speed: np.ndarray, least: float, length: int) -> int:
    """Where the first stretch begins of so many samples under `least`; where P or T lie too near for that, under more."""
    for factor in REST_FACTORS:
        runs = np.flatnonzero(np.convolve(speed < factor * least, np.ones(length), "valid") == length)
        if len(runs):
            return int(runs[0])
    return len(speed) - length


def peaks(smooth: np.ndarray, among: tuple[int, int], between: tuple[int, int], near: tuple[float, float] | None):
    """Of each lead the sample farthest from the line between its levels at both ends, and by how much, signed: (lead,) each.

    among: from and to where it is sought; between: from and to where the wave may reach; near: its place and SD, where known.
    """
    time = np.arange(among[0], among[1] + 1)
    levels = [np.median(smooth[:, at : at + 10], axis=1) for at in (between[0], between[1] - 9)]
    rising = (time - among[0]) / (among[1] - among[0])
    off = smooth[:, time] - levels[0][:, None] - rising * (levels[1] - levels[0])[:, None]
    weight = np.exp(-0.5 * ((time - near[0]) / near[1]) ** 2) if near else np.ones(len(time))
    at = np.argmax(np.abs(off) * weight, axis=1)
    return among[0] + at, off[np.arange(len(off)), at]


def feet(smooth: np.ndarray, peak: np.ndarray, upward: np.ndarray, limit: int, knee_share: float) -> np.ndarray:
    """Where the flank from each lead's peak towards `limit` ends: (lead,). peak: (lead,); upward: (lead,), the sign of the wave.

    The foot is `knee_share` of the way from the tangent to the knee. The tangent at the steepest point meets the level of the
    valley that follows (Lepeschkin and Surawicz 1952, doi:10.1161/01.CIR.6.3.378). The knee lies farthest below the straight line
    from the steepest point to that valley (Zack 1977, doi:10.1177/25.7.70454, of histograms). Like the trapezium of
    Vazquez-Seisdedos (2011, doi:10.1186/1475-925X-10-43) it needs no level; unlike it, it gives no weight to what lies early.
    """
    step = 1 if limit >= peak.max() else -1
    last = np.abs(limit - peak)
    time, lead = np.arange(last.max() + 1), np.arange(len(peak))
    y = upward[:, None] * smooth[lead[:, None], peak[:, None] + step * np.minimum(time, last[:, None])]
    valley = np.minimum(_valley(y), last)
    slope = np.gradient(y, axis=1)
    steepest = np.argmin(np.where(time <= valley[:, None], slope, np.inf), axis=1)
    run = np.maximum(valley - steepest, 1)
    fall = y[lead, steepest] - y[lead, valley]
    below = y[lead, steepest][:, None] - fall[:, None] * ((time - steepest[:, None]) / run[:, None]) - y
    knee = np.argmax(np.where((time >= steepest[:, None]) & (time <= valley[:, None]), below, -np.inf), axis=1)
    tangent = np.minimum(steepest + fall / np.maximum(-slope[lead, steepest], 1e-12), valley)
    foot = knee_share * knee + (1 - knee_share) * tangent
    return peak + step * np.where((valley < SHORTEST) | (valley - steepest < SHORTEST // 2), valley, foot)


def _valley(y: np.ndarray) -> np.ndarray:
    """Where each row, falling from its first value, has begun to rise again, or its last sample: (lead,)."""
    low = np.minimum.accumulate(y, axis=1)
    height = (y[:, 0] - low[:, -1])[:, None]
    over = (y > low + RISEN * height) & (y[:, :1] - low > FALLEN * height)
    return np.where(over.any(axis=1), np.argmax(over, axis=1), y.shape[1] - 1)
