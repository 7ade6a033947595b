"""Beat times: when each beat falls, from the current RR and the cycles between beats, at the asked mean rate and between the
shortest and the longest RR.
"""

from collections.abc import Callable

import numpy as np

from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.synthesis.long.clock import summed_rate

ROUNDS = 12  # of correcting the rate until the mean over the record is the asked one
WITHIN_BPM = 0.05
SCALED = (0.985, 1.015)  # times of a record with pauses
LONGEST_PAUSE_S = 12.0  # where events are asked for
QT_AT_1_S = 0.39  # QT in seconds at RR = 1 s; QT = 0.39 RR ** (1/3), Fridericia's rule
REFRACTORY_OF_QT = 0.67  # the ventricle's effective refractory period over QT: nothing is conducted before


def refractory_s(rr_s):
    """The shortest RR that a ventricle conducts whose repolarisation has followed this RR."""
    return REFRACTORY_OF_QT * QT_AT_1_S * np.cbrt(rr_s)


def beat_times(
    p: RhythmParameters,
    rr_s: np.ndarray,
    grid_s: np.ndarray,
    cycles: np.ndarray,
    mean_hr_bpm: float,
    duration_s: float,
    first: float,
    high: float,
) -> np.ndarray:
    """R times: where the integrated rate reaches the summed cycles, the rate scaled until the mean rate is the asked one."""
    integral, low = summed_rate(rr_s), shortest_rr_s(p, mean_hr_bpm)
    scale, best, least = mean_hr_bpm / 60 * duration_s / np.interp(duration_s, grid_s, integral), None, (np.inf, np.inf)
    longest = 0.999 * high * mean_hr_bpm / 60  # cycle
    for _ in range(ROUNDS):
        marks = np.cumsum(cycles) - cycles[0] * (1 - first)
        r_s = np.interp(marks[marks < scale * integral[-1]], scale * integral, grid_s)
        r_s = r_s[r_s < duration_s]
        if (len(r_s) < 2 or r_s[0] > high) and cycles.max() > longest:  # a pause before the first beat, which no RR shows
            cycles = np.minimum(cycles, longest)
            continue
        if len(r_s) < 2:
            break
        rr = np.diff(r_s)
        over = (rr < low) | (rr > high)
        measured = 60 / rr.mean()
        off = (int(over.sum()), abs(measured - mean_hr_bpm))
        if off < least:
            best, least = r_s, off
        if not over.any() and off[1] < WITHIN_BPM:
            return best
        cycles = cycles.copy()
        cycles[1 : len(r_s)] *= np.where(over, np.clip(rr, 1.001 * low, 0.999 * high) / rr, 1)
        scale *= mean_hr_bpm / measured
    if best is None:
        best = np.arange(first * 60 / mean_hr_bpm, duration_s, 60 / mean_hr_bpm)
    return _between_rails(best, low, high, 60 / mean_hr_bpm, duration_s)


def shortest_rr_s(p: RhythmParameters, mean_hr_bpm: float) -> float:
    """Of a record with this mean rate."""
    return max(p.rr_low_s, refractory_s(60 / mean_hr_bpm))


def timed_order(p: RhythmParameters, order_of: Callable, rr_s: np.ndarray, first: float, mean_hr_bpm: float, duration_s: float):
    """(the order, R times) of a record whose order is written by its own clock: made anew with another rate until the mean is the
    asked one, since times that are asked for cannot be scaled afterwards. Where none of ROUNDS is within WITHIN_BPM, the nearest,
    scaled where nothing has its place.
    """
    best, least, factor, too_fast, too_slow = None, np.inf, 1.0, 0.0, np.inf
    for _ in range(ROUNDS):
        order = order_of(np.clip(factor * rr_s, p.rr_low_s, p.rr_high_s), first)
        r_s = np.array(order.r_s)
        r_s = r_s[r_s < duration_s]
        measured = 60 / np.diff(r_s).mean()
        if (off := abs(measured - mean_hr_bpm)) < least:
            best, least = (order, r_s), off
        if off < WITHIN_BPM:
            break
        too_fast, too_slow = (factor, too_slow) if measured > mean_hr_bpm else (too_fast, factor)
        factor *= measured / mean_hr_bpm
        if not too_fast < factor < too_slow:  # an event more or fewer: the mean jumps
            factor = (too_fast + too_slow) / 2
    order, r_s = best
    if least > WITHIN_BPM and not order.fixed:  # by a percent or so: pauses are as long as asked all but
        r_s = np.array(order.r_s) * np.clip(60 / np.diff(r_s).mean() / mean_hr_bpm, *SCALED)
        r_s = r_s[r_s < duration_s]
    return order, r_s


def _between_rails(r_s: np.ndarray, low: float, high: float, mean_rr_s: float, duration_s: float) -> np.ndarray:
    """The last resort where no scale keeps all intervals: each is cut to the rails. Where that brings the last beat forward, beats
    at the mean follow (an hour of fibrillation at 26 bpm lacked its last minute); those beyond the end are dropped.
    """
    r_s = min(r_s[0], high) + np.concatenate([[0], np.cumsum(np.clip(np.diff(r_s), low, high))])
    if duration_s - r_s[-1] > high:
        r_s = np.append(r_s, np.arange(r_s[-1] + mean_rr_s, duration_s, mean_rr_s))
    return r_s[r_s < duration_s]
