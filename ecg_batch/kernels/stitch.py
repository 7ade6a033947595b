"""The skeleton of long records as compiled kernels, stitch.cpp, where they were built and this CPU can run them.

Their references are long.stitch._crossfaded and respiration._axis_moved in numpy, which call these where they can.
"""

import ctypes
from functools import cache

import numpy as np

from ecg_batch.kernels.build import DOUBLES, kernel

INT64, INT64S = ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)


class Side(ctypes.Structure):
    """The struct of this name in stitch.cpp."""

    _fields_ = [(name, DOUBLES) for name in ("time", "rise", "tilt", "value", "slope")]


@cache
def library(build: str | None = None) -> ctypes.CDLL | None:
    """The kernels with the types of their arguments, None where there are none."""
    if kernel(build) is None:
        return None
    found = kernel(build)[0]
    found.ecg_stitch.argtypes = [DOUBLES, INT64, *[ctypes.POINTER(Side)] * 2, DOUBLES, INT64S, INT64, DOUBLES]
    found.ecg_sway.argtypes = [*[DOUBLES] * 6, INT64, DOUBLES]
    found.ecg_stitch.restype = found.ecg_sway.restype = None
    return found


def crossfaded(x: np.ndarray, a: tuple, b: tuple, fade: np.ndarray, k: np.ndarray, build: str | None = None) -> np.ndarray:
    """long.stitch._crossfaded: x (sample, lead), a and b as there, fade and k (time,) -> (lead, time)."""
    x, k, fade = np.ascontiguousarray(x), np.ascontiguousarray(k, np.int64), np.ascontiguousarray(fade)
    sides = [[np.ascontiguousarray(part) for part in side] for side in (a, b)]
    pointers = (ctypes.byref(Side(*map(_at, side))) for side in sides)
    out = np.empty((x.shape[1], len(fade)))
    library(build).ecg_stitch(_at(x), len(x), *pointers, _at(fade), _at(k, INT64S), len(fade), _at(out))
    return out


def axis_moved(
    x: np.ndarray, level: np.ndarray, breath: np.ndarray, drift: np.ndarray, by: np.ndarray, build: str | None = None
) -> np.ndarray:
    """respiration._axis_moved: x (lead, time), level (lead,), breath and drift (time,), by (2, lead, lead) -> (lead, time)."""
    x, level, breath, drift, by = (np.ascontiguousarray(part, np.float64) for part in (x, level, breath, drift, by))
    out = np.empty_like(x)
    library(build).ecg_sway(*map(_at, (x, level, breath, drift, by[0], by[1])), x.shape[1], _at(out))
    return out


def _at(array: np.ndarray, kind=DOUBLES):
    """The address of an array's first element, as the kernels take it."""
    return ctypes.cast(array.ctypes.data, kind)
