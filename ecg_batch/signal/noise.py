"""What is said of a recording's noise: how loud it is under each beat, and which kinds of it a reader saw in which leads.

A unit is the noise under one beat, from TP to TP. Its level is a whole number of steps for each lead and band, so that which
recordings are alike is the same on every machine.
"""

import numpy as np

LEVEL_BANDS_HZ = ((2.0, 8.0), (8.0, 25.0), (25.0, None))  # drift below 2 Hz goes its own way
LEVEL_STEP = 1 / 16  # of a natural logarithm: 0.54 dB
BAND_SCALE = (1, 2, 4)  # what a step counts in the distance of two levels: slow waves are few under a beat, and tell less
NO_UNIT = -128  # in a row of levels that no unit has


def has_unit(levels: np.ndarray) -> np.ndarray:
    """Which rows are of a unit: int8 (..., lead, band) -> bool (...)."""
    return levels[..., 0, 0] != NO_UNIT


def counted(levels: np.ndarray) -> np.ndarray:
    """Levels (..., lead * band), or differences of them, in units of distance: whole multiples, float64."""
    return levels * np.tile(np.float64(BAND_SCALE), levels.shape[-1] // len(BAND_SCALE))


def mean_level(levels: np.ndarray) -> np.ndarray:
    """Of each recording the mean over its units, in whole steps: int8 (recording, unit, lead, band) -> int64 without unit."""
    there = has_unit(levels)  # (recording, unit)
    total = np.where(there[..., None, None], levels, 0).sum(axis=1, dtype=np.int64)
    count = np.maximum(there.sum(axis=1), 1)[:, None, None]
    return (2 * total + count) // (2 * count)


def to_and_fro(distance: np.ndarray, room: np.ndarray) -> np.ndarray:
    """0, 1, ... room, room - 1, ... 0, 1, ... for distances 0, 1, 2, ...; where there is no room, 0."""
    phase = np.mod(distance, 2 * np.maximum(room, 1))
    return np.minimum(phase, 2 * room - phase).clip(0)
