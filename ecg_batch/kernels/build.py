"""The compiled kernels: which builds there are, which of them this CPU runs, and what their wrappers share.

Without a compiler at the time of installing there are none, and the plain references run: a fifth of the speed.
"""

import ctypes
import logging
import os
import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path

log = logging.getLogger(__name__)

VERSION = 5  # to be raised with every change of the kernels (*.cpp, *.h) that can change a bit
BUILDS = (("_avx512", 16), ("_avx2", 8))  # extension modules of pyproject.toml and their lanes, widest first
VECTORS = ("avx", "fma", "amx", "sse4", "asimd", "sve", "bf16")  # how names of vector instructions begin
CAPS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE")
GROUP = 4  # rows, as in lanes.h

FLOATS = ctypes.POINTER(ctypes.c_float)
DOUBLES = ctypes.POINTER(ctypes.c_double)
INTS = ctypes.POINTER(ctypes.c_int64)


@cache
def kernel(name: str | None = None) -> tuple[ctypes.CDLL, int] | None:
    """The widest build that runs here, or the one named, and its lanes.

    None where none was built (no compiler at the time of installing) or the CPU lacks AVX2 with FMA.
    """
    for build, lanes in BUILDS:
        found = find_spec(f"ecg_batch.kernels.{build}")
        if found and name in (None, build):
            library = ctypes.CDLL(found.origin)
            library.ecg_decode_compiler.restype = ctypes.c_char_p
            if library.ecg_decode_runs_here():
                log.debug("compiled kernels: %s", found.origin)
                return library, lanes
    log.debug("compiled kernels: none runs here; plain torch is used")
    return None


def kernels() -> str:
    """What makes tokens and texture on this machine's CPU, for the plan. Another compiler may fuse other products and sums."""
    return f"compiled {VERSION} by {kernel()[0].ecg_decode_compiler().decode()}" if kernel() else "plain"


def instructions() -> str:
    """What torch's own sums depend on here: the vector instructions of the CPU, and the variables that take some of them away."""
    caps = [f"{name}={os.environ[name]}" for name in CAPS if os.environ.get(name)]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return " ".join([platform.machine(), *caps])
    known = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return " ".join([*sorted(flag for flag in known if flag.startswith(VECTORS)), *caps])


def why_plain() -> str:
    """Why there are no compiled kernels for this machine, "" where there are."""
    if kernel():
        return ""
    if any(find_spec(f"ecg_batch.kernels.{build}") for build, _ in BUILDS):
        return "this CPU lacks AVX2 with FMA"
    return "none were built: install a C++ compiler, then ecg-batch again"


def packed(weight):
    """A matrix (rows, columns) in groups of rows, each column by column: a product then reads it from one end to the other.

    Where every row lies by itself, as torch has them, the caches see eight short streams: the token loop takes a sixth longer.
    """
    import numpy as np

    rows = np.pad(weight, [(0, -len(weight) % GROUP), (0, 0)])
    return np.ascontiguousarray(rows.reshape(-1, GROUP, weight.shape[1]).transpose(0, 2, 1))


def address(array):
    """The address of an array's first element, as the struct fields take it."""
    return ctypes.cast(array.ctypes.data, {"float32": FLOATS, "float64": DOUBLES, "int64": INTS}[array.dtype.name])
