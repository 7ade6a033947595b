"""Catmull-Rom interpolation: what lies between samples, and the samples themselves at whole times, so that a QRS is copied."""

import numpy as np


def catmull_rom(x: np.ndarray, time: np.ndarray) -> np.ndarray:
    """x (sample, ...) at fractional times (time,), 1 <= time <= samples - 3, in samples: float64 (time, ...).

    The reference of two compiled kernels, which differ in how x lies in memory: finish.cpp (a loop, lead by lead) and stitch.cpp
    (single beats, all leads of a sample together).
    """
    whole = time.astype(np.int64)
    u = (time - whole).reshape(-1, *[1] * (x.ndim - 1))
    before, now, after, then = (np.take(x, whole + shift, axis=0) for shift in (-1, 0, 1, 2))
    first = after - before  # twice the slope at `now`; the half's coefficients are first, second, third
    third = then - before - 3 * (after - now)
    second = 2 * (after - now) - first - third
    return now + (first + u * (second + u * third)) * (u / 2)
