"""Which donors, and which of their beats, a request can use."""

import numpy as np

from ecg_batch.donors.loop import SEAM_S
from ecg_batch.donors.split import END_S, JOIN_S

MIN_BEATS = 3  # usable ones of the main type: with fewer there is nothing to draw a long record from


def enough_beats(r_sample: np.ndarray, p_on: np.ndarray, t_end: np.ndarray, samples: int, fs_hz: int) -> np.ndarray:
    """Which donors have at least three beats that lie wholly inside them: bool (donor,), from columns of the bank."""
    return usable_beats(r_sample, p_on[:, None], t_end[:, None], samples, fs_hz).sum(axis=1) >= MIN_BEATS


def usable_beats(r: np.ndarray, p_on, t_end, samples: int, fs_hz: int) -> np.ndarray:
    """Which beats lie wholly inside their donor of so many samples, P onset to T end, with room for a joint; -1 is no beat."""
    clear = round((SEAM_S + END_S + JOIN_S) * fs_hz)
    return (r >= 0) & (r + p_on >= clear) & (r + t_end < samples - clear)
