"""Texture by units as compiled kernels, units.cpp, where they were built and this CPU can run them.

Their references are units.plain_nearest and units.plain_laid in numpy, and they give the same bits: nothing of a dataset depends on
which of the two ran.
"""

import ctypes
from functools import cache

import numpy as np

from ecg_batch.kernels.build import DOUBLES, INTS, kernel
from ecg_batch.leads import MODELLED

INT64, INT16S, BYTES = ctypes.c_int64, ctypes.POINTER(ctypes.c_int16), ctypes.POINTER(ctypes.c_uint8)
ADDRESS = ctypes.c_void_p  # of arrays that come anew with every record: a cast to a typed pointer takes 1 us each


class Units(ctypes.Structure):
    """The struct of this name in units.cpp. held: the arrays, which must live as long."""

    _fields_ = [
        *((name, INT64) for name in ("levels", "samples")),
        ("level", INT16S),
        ("square", INTS),
        ("ordinary", BYTES),
        *((name, INTS) for name in ("of_first", "of_stop", "row", "r", "first", "last")),
        ("rest", INT16S),
        *((name, INT64) for name in ("t_end", "p_begins", "least")),
    ]


TYPES = {DOUBLES: np.float64, INTS: np.int64, BYTES: np.uint8, INT16S: np.int16}


@cache
def library(build: str | None = None) -> ctypes.CDLL | None:
    """The kernels with the types of their arguments, None where there are none."""
    if kernel(build) is None:
        return None
    found = kernel(build)[0]
    lists = [ADDRESS, ADDRESS, INT64, ADDRESS]
    found.ecg_choose.argtypes = [ctypes.POINTER(Units), *lists, ADDRESS, ADDRESS, INT64, ctypes.c_double, ADDRESS]
    found.ecg_lay.argtypes = [ctypes.POINTER(Units), *[ADDRESS] * 3, INT64, *[ADDRESS] * 2, *[INT64] * 3, ADDRESS]
    return found


def all_units(**of: np.ndarray | int) -> Units:
    """The fields of Units but for the sizes: arrays, and whole numbers of samples. rest (donor, sample, lead) is not copied."""
    if of["rest"].shape[2] != len(MODELLED) or of["rest"].dtype != np.int16 or not of["rest"].flags.c_contiguous:
        raise ValueError(f"rest {of['rest'].dtype} {of['rest'].shape}; needed int16 (donor, sample, {len(MODELLED)})")
    if of["level"].shape[1] % 2:
        raise ValueError(f"level {of['level'].shape}; needed an even number of levels")
    made = Units(levels=of["level"].shape[1], samples=of["rest"].shape[1])
    made.held = {}
    for name, kind in Units._fields_[2:]:
        if kind is not INT64:
            made.held[name] = np.ascontiguousarray(of[name], TYPES[kind])
            if made.held[name] is not of[name] and not np.array_equal(made.held[name], of[name]):  # rest may be 100 MB: not read
                raise ValueError(f"{name} has numbers that are not of type {np.dtype(TYPES[kind])}")
        setattr(made, name, of[name] if kind is INT64 else ctypes.cast(made.held[name].ctypes.data, kind))
    return made


def nearest(units: Units, lenders, first, wanted, ordinary, recent: int, follow: float, build: str | None = None) -> np.ndarray:
    """units.plain_nearest of each record: lenders, an ascending list of donors each; its beats are first[i] .. first[i + 1] - 1 of
    wanted (beat, level), multiples of 1/16, and ordinary bool (beat,) -> units int64 (beat,).
    """
    count, first = np.array([len(each) for each in lenders]), np.ascontiguousarray(first, np.int64)
    lenders, ends = np.ascontiguousarray(np.concatenate(lenders), np.int64), np.cumsum(count)
    wanted, ordinary = np.ascontiguousarray(wanted, np.float64), np.ascontiguousarray(ordinary, bool)
    if wanted.shape != (len(ordinary), units.levels):
        raise ValueError(f"wanted {wanted.shape}; needed ({len(ordinary)}, {units.levels})")
    if len(first) != len(count) + 1 or first[-1] != len(ordinary):
        raise ValueError(f"{len(count)} records end at beat {first[-1]}; needed {len(ordinary)}, and their beginnings")
    chosen = np.empty(len(ordinary), np.int64)
    of_records = (lenders.ctypes.data, ends.ctypes.data, len(count), first.ctypes.data)
    asked = (*of_records, wanted.ctypes.data, ordinary.ctypes.data, recent, follow)
    if library(build).ecg_choose(ctypes.byref(units), *asked, chosen.ctypes.data):
        raise MemoryError("no memory to choose units")
    return chosen


def laid(units: Units, begins, r, unit, fades, start: int, stop: int, build: str | None = None) -> np.ndarray:
    """units.plain_laid: begins, r, unit (beat,), fades two of float64 (time,) -> float64 (lead, stop - start)."""
    begins, r, unit = (np.ascontiguousarray(part, np.int64) for part in (begins, r, unit))
    if not len(begins) == len(r) == len(unit) > 0:
        raise ValueError(f"{len(begins)} beginnings of cells, {len(r)} beats, {len(unit)} units; needed one of each for a beat")
    rising, falling = fades
    out = np.empty((len(MODELLED), stop - start))
    cells = (begins.ctypes.data, r.ctypes.data, unit.ctypes.data, len(r))
    crossfade = (rising.ctypes.data, falling.ctypes.data, len(rising))
    if library(build).ecg_lay(ctypes.byref(units), *cells, *crossfade, start, stop - start, out.ctypes.data):
        raise IndexError("a unit reaches out of its recording")
    return out
