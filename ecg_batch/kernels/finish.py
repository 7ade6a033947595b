"""What finishes a record as compiled kernels, finish.cpp, where they were built and this CPU can run them.

Their references are retime.plain_read_loop, filters.band, compose.plain_compose, texture_stream.plain_shelf and, of the
filter of beats.detect_rows, sleepecg's own.
"""

import ctypes
from functools import cache

import numpy as np

from ecg_batch.kernels import butterworth
from ecg_batch.kernels.build import DOUBLES, FLOATS, kernel
from ecg_batch.leads import MODELLED

INT16S, INT32S = ctypes.POINTER(ctypes.c_int16), ctypes.POINTER(ctypes.c_int32)
INT64, DOUBLE = ctypes.c_int64, ctypes.c_double


class Filter(ctypes.Structure):
    """The struct of this name in finish.cpp."""

    _fields_ = [("sections", INT64), ("edge", INT64), ("sos", DOUBLES), ("start", DOUBLES)]


@cache
def library(build: str | None = None) -> ctypes.CDLL | None:
    """The kernels with the types of their arguments, None where there are none."""
    if kernel(build) is None:
        return None
    found = kernel(build)[0]
    found.ecg_read_loop.argtypes = [INT16S, INT64, INT64, DOUBLES, INT64, DOUBLES]
    found.ecg_filtfilt.argtypes = [ctypes.POINTER(Filter), DOUBLES, INT64, INT64, DOUBLES]
    found.ecg_compose.argtypes = [DOUBLES, DOUBLES, INT64, DOUBLE, DOUBLE, DOUBLE, INT32S, DOUBLES]
    found.ecg_first_order.argtypes = [DOUBLES, FLOATS, INT64, INT64, INT64, DOUBLES, DOUBLES, INT64]
    found.ecg_compose.restype = found.ecg_first_order.restype = None
    return found


def read_loop(loop: np.ndarray, donor_time: np.ndarray, build: str | None = None) -> np.ndarray:
    """retime.read_loop: int16 (lead, n), float64 (time,) -> float64 (lead, time)."""
    loop, donor_time = np.ascontiguousarray(loop), np.ascontiguousarray(donor_time)
    out = np.empty((len(loop), len(donor_time)))
    if library(build).ecg_read_loop(_at(loop, INT16S), *loop.shape, _at(donor_time), len(donor_time), _at(out)):
        raise MemoryError("no memory to read a donor's loop")
    return out


@cache
def sections(order: int, edge_hz: float | tuple[float, float], kind: str, fs_hz: float) -> tuple[Filter, list[np.ndarray]]:
    """A Butterworth filter, and the arrays that must live as long. It extends the ends of a signal as sosfiltfilt does."""
    sos, start = butterworth.sections(order, edge_hz, kind, fs_hz)
    taps = 2 * len(sos) + 1 - min((sos[:, 2] == 0).sum(), (sos[:, 5] == 0).sum())
    return Filter(len(sos), 3 * taps, _at(sos), _at(start)), [sos, start]


def filtfilt(x: np.ndarray, made: tuple[Filter, list[np.ndarray]], build: str | None = None) -> np.ndarray:
    """scipy.signal.sosfiltfilt of such sections: (..., time), as float64."""
    x, samples = np.ascontiguousarray(x, dtype=np.float64), x.shape[-1]
    if samples <= made[0].edge:
        raise ValueError(f"{samples} samples are too few to filter; needed more than {made[0].edge}")
    out = np.empty_like(x)
    if library(build).ecg_filtfilt(ctypes.byref(made[0]), _at(x), x.size // samples, samples, _at(out)):
        raise MemoryError("no memory for the filter, 128 bytes a sample")
    return out


def first_order(b, a, x: np.ndarray, state: np.ndarray, out: np.ndarray, build: str | None = None) -> None:
    """scipy.signal.lfilter(b, a, x, zi=state) of two coefficients each, a[0] = 1: x (row, time) float32 into out, float64.

    state (row, 1) goes on in place. Rows of x and of out may lie apart, their samples must not.
    """
    if x.dtype != np.float32 or out.dtype != np.float64 or x.shape != out.shape or state.shape != (len(x), 1):
        given = f"x {x.dtype} {x.shape}, out {out.dtype} {out.shape}, state {state.shape}"
        raise ValueError(f"{given}; needed float32 (row, time), float64 (row, time), float64 (row, 1)")
    if x.strides[1] != x.itemsize or out.strides[1] != out.itemsize or not state.flags.c_contiguous:
        raise ValueError("the samples of a row must lie one after another")
    coefficients, apart = np.array([*b, a[1]]), (x.strides[0] // x.itemsize, out.strides[0] // out.itemsize)
    call = library(build).ecg_first_order
    call(_at(coefficients), _at(x, FLOATS), apart[0], *x.shape, _at(state), _at(out), apart[1])


def compose(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float, rounding_mv: float, build: str | None = None):
    """compose.compose: (steps int32 (record, 12, time), PRD in % (record,), alpha (record,)) of float64 (record, 8, time) mV."""
    skeleton_mv, texture_mv = (np.ascontiguousarray(part, dtype=np.float64) for part in (skeleton_mv, texture_mv))
    records, leads, samples = skeleton_mv.shape
    if leads != len(MODELLED) or texture_mv.shape != skeleton_mv.shape:
        raise ValueError(
            f"skeleton {skeleton_mv.shape} and texture {texture_mv.shape}; needed (record, {len(MODELLED)}, time) of both"
        )
    steps, reached = np.empty((records, 12, samples), np.int32), np.empty((records, 2))
    for record in range(records):
        parts = (_at(part[record]) for part in (skeleton_mv, texture_mv))
        library(build).ecg_compose(
            *parts, samples, alpha, prd_limit_pct, rounding_mv, _at(steps[record], INT32S), _at(reached[record])
        )
    return steps, reached[:, 0].copy(), reached[:, 1].copy()


def _at(array: np.ndarray, kind=DOUBLES):
    """The address of an array's first element, as the kernels take it."""
    return ctypes.cast(array.ctypes.data, kind)
