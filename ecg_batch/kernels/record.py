"""Beats of records of 10 s, and the records, as compiled kernels, record.cpp, where they were built and this CPU runs them.

Their references are retime.time_beats, retime.plain_read_loop, units.plain_laid and compose.plain_compose, in numpy.
"""

import ctypes
from functools import cache

import numpy as np

from ecg_batch.kernels.build import DOUBLES, INTS, kernel
from ecg_batch.kernels.finish import INT16S, INT32S, INT64, Filter
from ecg_batch.kernels.units import Units
from ecg_batch.leads import MODELLED

CORNERS = 5  # of the time map from one beat to the next, the first at R
DOUBLE = ctypes.c_double
TYPES = {DOUBLES: np.float64, INTS: np.int64, INT16S: np.int16, INT32S: np.int32}
REFUSED = {1: (MemoryError, "no memory for a record"), 2: (IndexError, "a unit reaches out of its recording")}


class _Struct(ctypes.Structure):
    """A struct of record.cpp, made of arrays, which it holds, and numbers. An array that is not given is a null."""

    def __init__(self, **given):
        super().__init__()
        self.held = []
        for name, kind in self._fields_:
            if kind in TYPES:
                if given.get(name) is not None:
                    array = np.ascontiguousarray(given[name], TYPES[kind])
                    self.held.append(array)
                    setattr(self, name, ctypes.cast(array.ctypes.data, kind))
            elif given.get(name) is not None:
                setattr(self, name, given[name])


class Loops(_Struct):
    _fields_ = [
        *((name, INT64) for name in ("samples", "most")),
        ("around", INT16S),
        *((name, INTS) for name in ("r", "beats", "length", "fiducials")),
    ]


class Job(_Struct):
    _fields_ = [
        *((name, INT64) for name in ("records", "samples")),
        *((name, INTS) for name in ("donor", "corner_first")),
        *((name, DOUBLES) for name in ("corner_out", "corner_in", "matrix", "skeleton_uv", "texture_mv")),
        *((name, INTS) for name in ("cell_first", "begins", "r", "unit")),
        *((name, DOUBLES) for name in ("rising", "falling")),
        ("fade", INT64),
        ("drift", INTS),
        ("slow", INT16S),
        ("share", DOUBLES),
        *((name, DOUBLE) for name in ("alpha", "limit_pct", "rounding_mv")),
        ("low_pass", ctypes.POINTER(Filter)),
        ("skeleton_mv", DOUBLES),
        ("ecg", INT16S),
        ("extremes", INT32S),
        ("reached", DOUBLES),
    ]


@cache
def library(build: str | None = None) -> ctypes.CDLL | None:
    """The kernels with the types of their arguments, None where there are none."""
    if kernel(build) is None:
        return None
    found, address = kernel(build)[0], ctypes.c_void_p
    of_records = [address] * 4 + [INT64, INT64, address, DOUBLE, DOUBLE]
    found.ecg_time_beats.argtypes, found.ecg_time_beats.restype = [ctypes.POINTER(Loops), *of_records, *[address] * 5], None
    found.ecg_records.argtypes = [ctypes.POINTER(Loops), ctypes.POINTER(Units), ctypes.POINTER(Job)]
    return found


def time_beats(loops: Loops, donor, rr_samples, uniforms, factors, first, samples: int, clear: float, build: str | None = None):
    """retime.time_beats of each record: donor, rr_samples (record,), uniforms (record, 2), factors (record, interval) or None; its
    beats are first[i] .. first[i + 1] - 1 -> stretch (record,), placed, source (beat,), corners out and in (corner,).
    """
    donor, first = np.ascontiguousarray(donor, np.int64), np.ascontiguousarray(first, np.int64)
    given = [np.ascontiguousarray(x, np.float64) for x in (rr_samples, uniforms)]
    factors = None if factors is None else np.ascontiguousarray(factors, np.float64)
    records, beats = len(donor), int(first[-1])
    made = [np.empty(size, kind) for size, kind in (
        (records, np.float64), *[(beats, np.int64)] * 2, *[(CORNERS * (beats - records), np.float64)] * 2
    )]  # fmt: skip
    library(build).ecg_time_beats(
        ctypes.byref(loops), donor.ctypes.data, *(x.ctypes.data for x in given), None if factors is None else factors.ctypes.data,
        0 if factors is None else factors.shape[1], records, first.ctypes.data, samples, clear, *(x.ctypes.data for x in made),
    )  # fmt: skip
    return made


def records(loops: Loops | None, units: Units | None, samples: int, count: int, build: str | None = None, **given):
    """Records of what Job's fields say: ecg int16 (record, 12, time), extremes int32 (record, 12, 2), PRD in %, alpha (record,)."""
    ecg, extremes = np.empty((count, 12, samples), np.int16), np.empty((count, 12, 2), np.int32)
    reached = np.empty((count, 2))
    for name in ("skeleton_uv", "texture_mv", "skeleton_mv"):
        if given.get(name) is not None and given[name].shape != (count, len(MODELLED), samples):
            raise ValueError(f"{name} {given[name].shape}; needed ({count}, {len(MODELLED)}, {samples})")
    if units is not None and samples > units.samples:
        raise ValueError(f"{samples} samples a record; textures of the bank have {units.samples}")
    job = Job(records=count, samples=samples, ecg=ecg, extremes=extremes, reached=reached, **given)
    failed = library(build).ecg_records(loops and ctypes.byref(loops), units and ctypes.byref(units), ctypes.byref(job))
    if failed:
        kind, why = REFUSED[failed]
        raise kind(why)
    return ecg, extremes, reached[:, 0].copy(), reached[:, 1].copy()
