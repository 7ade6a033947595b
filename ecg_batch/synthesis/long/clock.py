"""Clock: how long a cycle is in seconds, while the order of a record is written.

A cycle is in units of the current RR. RoughClock takes the RR at the beat before for all of it, and goes ahead of the record or
behind, by some seconds an hour: enough for what comes by chance. ExactClock integrates the rate, as rhythm.py does, so that its
times are the record's: for what is asked at a place, or in seconds.
"""

from bisect import bisect_right

import numpy as np

GRID_HZ = 4.0  # of the current RR: twice as fast as anything that modulates the rate


class RoughClock:
    """rr_s (time,): the current RR on the grid."""

    def __init__(self, rr_s: np.ndarray):
        self._rr = rr_s.tolist()

    def rr_at(self, time_s: float) -> float:
        """The current RR."""
        return self._rr[min(max(int(time_s * GRID_HZ), 0), len(self._rr) - 1)]

    def after(self, time_s: float, cycle: float) -> float:
        """When a beat comes that is so many cycles after one at time_s."""
        return time_s + cycle * self.rr_at(time_s)

    def cycles(self, time_s: float, seconds: float) -> float:
        """How many cycles so many seconds are, from time_s on."""
        return seconds / self.rr_at(time_s)


class ExactClock(RoughClock):
    """The same to the rate between the points of the grid; before and after it the rate is that of its ends."""

    def __init__(self, rr_s: np.ndarray):
        super().__init__(rr_s)
        self._sum = summed_rate(rr_s).tolist()

    def after(self, time_s: float, cycle: float) -> float:
        """As above, to the grid's rate."""
        return self._time_of(self._cycles_at(time_s) + cycle)

    def cycles(self, time_s: float, seconds: float) -> float:
        """As above, to the grid's rate."""
        return self._cycles_at(time_s + seconds) - self._cycles_at(time_s)

    def _cycles_at(self, time_s: float) -> float:
        at = min(max(int(time_s * GRID_HZ), 0), len(self._sum) - 2)
        return self._sum[at] + (time_s * GRID_HZ - at) * (self._sum[at + 1] - self._sum[at])

    def _time_of(self, cycles: float) -> float:
        at = min(max(bisect_right(self._sum, cycles) - 1, 0), len(self._sum) - 2)
        return (at + (cycles - self._sum[at]) / (self._sum[at + 1] - self._sum[at])) / GRID_HZ


def summed_rate(rr_s: np.ndarray) -> np.ndarray:
    """Cycles from 0 s to each point of the grid: (time,)."""
    return np.concatenate([[0], np.cumsum((1 / rr_s[1:] + 1 / rr_s[:-1]) / (2 * GRID_HZ))])
