"""Whether two recordings are one, although their samples differ: registries contain each other's, at other rates and gains.

Of the challenge's records HR00001 to HR21837 all are PTB-XL's, at 500 Hz. Brought to 100 Hz by our filter they are not PTB-XL's own
100 Hz to the bit, so a digest does not find them, and a patient of fold 10 would be a donor.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
from scipy.ndimage import uniform_filter1d

from ecg_batch.leads import MODELLED, MODELLED_INDEX

BLOCK_HZ = 25  # means over 40 ms: what filters and rates leave alone
END_S = 0.4  # at both ends: PTB-XL's last samples at 100 Hz are a spike of its own resampling, of up to 4 mV
DRIFT_S = 1.0
NUMBERS = 32
SAME = 0.2  # distance of two traces: in 488 pairs of PTB-XL at 100 and 500 Hz at most 0.11, between 7,000 recordings at least 0.43


def trace_of(ecg: np.ndarray, fs_hz: int) -> np.ndarray:
    """float32 (32,) of length about 1: the shape of an ECG, int16 (12 leads, time), without scale and drift.

    Means over 40 ms of the eight leads, projected at random (Johnson and Lindenstrauss 1984): what is d apart stays so, about.
    """
    samples, end = fs_hz // BLOCK_HZ, round(END_S * fs_hz)
    modelled = ecg[list(MODELLED_INDEX), end:-end].astype(np.float32)
    blocks = modelled[:, : modelled.shape[1] // samples * samples].reshape(len(MODELLED), -1, samples).mean(axis=-1)
    blocks -= uniform_filter1d(blocks, round(DRIFT_S * BLOCK_HZ), axis=1, mode="nearest")
    return (blocks.ravel() / (np.linalg.norm(blocks) + 1e-6)) @ _projection(blocks.size)


@cache
def _projection(size: int) -> np.ndarray:
    return (np.random.Generator(np.random.Philox(1)).standard_normal((size, NUMBERS)) / np.sqrt(NUMBERS)).astype(np.float32)


class Traces:
    """Traces that were there before."""

    def __init__(self, first: Iterable[np.ndarray] = ()) -> None:
        self._known, self._count = np.empty((1024, NUMBERS), np.float32), 0
        for trace in first:
            self.add(trace)

    def add(self, trace: np.ndarray) -> None:
        if self._count == len(self._known):
            self._known = np.concatenate([self._known, np.empty_like(self._known)])
        self._known[self._count] = trace
        self._count += 1

    def hold(self, trace: np.ndarray) -> bool:
        """Whether one of them is of the same recording."""
        known = self._known[: self._count]
        return bool((np.einsum("rn,rn->r", known, known) + trace @ trace - 2 * (known @ trace) < SAME**2).any())
