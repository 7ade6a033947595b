"""Uniform numbers of many records as a compiled kernel, draws.cpp. Its reference is numpy's Philox: the numbers are the same."""

import ctypes
from functools import cache

import numpy as np

from ecg_batch.kernels.build import kernel


@cache
def library(build: str | None = None) -> ctypes.CDLL | None:
    """The kernel with the types of its arguments, None where there is none."""
    if kernel(build) is None:
        return None
    found, address, number = kernel(build)[0], ctypes.c_void_p, ctypes.c_uint64
    found.ecg_uniforms.argtypes = [number, address, ctypes.c_int64, number, ctypes.c_int64, address]
    found.ecg_uniforms.restype = None
    return found


def uniforms(seed: int, records: np.ndarray, stream: int, count: int, build: str | None = None) -> np.ndarray:
    """draws.uniforms: float64 (record, count)."""
    keys, out = np.ascontiguousarray(records).astype(np.uint64), np.empty((len(records), count))
    library(build).ecg_uniforms(seed, keys.ctypes.data, len(keys), stream, count, out.ctypes.data)
    return out
