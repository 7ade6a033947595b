"""The nine marks of a beat, by name, and as a bank stores them: whole milliseconds from R."""

import numpy as np

MARKS = ("p_on", "p_peak", "p_end", "qrs_on", "r", "qrs_end", "t_on", "t_peak", "t_end")
ABSENT_MS = np.iinfo(np.int16).min  # of a wave that a beat does not have, and of beats that are not there


def stored_marks(marks: np.ndarray, most: int) -> np.ndarray:
    """Marks in ms from R, float (beat, mark), NaN is absent, as a bank stores those of a donor: int16 (most, mark)."""
    out = np.full((most, len(MARKS)), ABSENT_MS, np.int16)
    rows = marks[:most]
    out[: len(rows)] = np.where(np.isnan(rows), ABSENT_MS, np.rint(rows))
    return out


def read_marks(wave_ms: np.ndarray) -> np.ndarray:
    """Stored marks of any shape as float64, NaN where absent."""
    return np.where(wave_ms == ABSENT_MS, np.nan, wave_ms)
