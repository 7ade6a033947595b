"""The compiled kernels: which builds there are, which of them this CPU runs, and what their wrappers share.

A wheel brings them. An installation from source compiles them; without a compiler there are none, and the plain references run: a
fifth of the speed.
"""

import ctypes
import logging
import os
import platform
import shutil
import sysconfig
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

log = logging.getLogger(__name__)

VERSION = 8  # to be raised with every change of the kernels (*.cpp, *.h) that can change a bit; setup.py writes it into them
OF_MACHINE = {"x86_64": (("_avx512", 16), ("_avx2", 8), ("_sse2", 4)), "arm64": (("_neon", 4),)}  # setup.py makes them
MACHINE = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
BUILDS = OF_MACHINE.get(MACHINE, ())  # files here and their lanes, widest first
# Sums are rounded otherwise without fused multiply-add; on arm64 nobody has compared them with those of other machines.
OTHER_BITS = {"_sse2": " without FMA", "_neon": " for arm64"}
GPU_KERNELS = ("triton", "mamba-ssm", "causal-conv1d")  # packages that bring other kernels for a GPU than torch's own
VECTORS = ("avx", "fma", "amx", "sse4", "asimd", "sve", "bf16")  # how names of vector instructions begin
CAPS = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE")
GROUP = 4  # rows, as in lanes.h

FLOATS = ctypes.POINTER(ctypes.c_float)
DOUBLES = ctypes.POINTER(ctypes.c_double)
INTS = ctypes.POINTER(ctypes.c_int64)


@cache
def kernel(name: str | None = None) -> tuple[ctypes.CDLL, int] | None:
    """The widest build that runs here, or the one named, and its lanes. None where there is none."""
    for build, lanes in BUILDS:
        if name in (None, build) and _file(build).exists():
            library, problem = _loaded(build)
            if problem:
                log.debug("compiled kernels: %s", problem)
            elif library.ecg_decode_runs_here():
                log.debug("compiled kernels: %s", _file(build))
                return library, lanes
    log.debug("compiled kernels: none runs here; plain torch is used")
    return None


def _file(build: str) -> Path:
    return Path(__file__).with_name(f"{build}.so")


def _loaded(build: str) -> tuple[ctypes.CDLL | None, str]:
    """The library, or why it is of no use: built for a newer system that shares the folder, or of a former version of the code."""
    try:
        library = ctypes.CDLL(str(_file(build)))
    except OSError as error:
        return None, str(error)
    if not hasattr(library, "ecg_kernels_version") or library.ecg_kernels_version() != VERSION:
        return None, f"{_file(build)} was built of another version of this code; install ecg-batch again"
    library.ecg_decode_compiler.restype = ctypes.c_char_p
    library.build = build
    return library, ""


def kernels() -> str:
    """What makes tokens and texture on this machine's CPU, for the plan. Another compiler may fuse other products and sums."""
    if not kernel():
        return "plain"
    library, _ = kernel()
    return f"compiled {VERSION} by {library.ecg_decode_compiler().decode()}{OTHER_BITS.get(library.build, '')}"


def gpu_kernels() -> str:
    """What beside torch may make tokens on a GPU, for the plan: each rounds otherwise. As installed: who plans may have no GPU."""
    from importlib.metadata import PackageNotFoundError, version  # 33 ms

    there = []
    for name in GPU_KERNELS if triton_runs() else GPU_KERNELS[1:]:
        with suppress(PackageNotFoundError):
            there.append(f"{name} {version(name)}")
    return ", ".join(there) or "those of torch"


def triton_runs() -> bool:
    """Whether Triton is here with what it compiles its launcher by, a C compiler and Python's headers: images may lack both."""
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # as Triton does on Debian
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(find_spec("triton") and compiler) and Path(sysconfig.get_path("include", scheme), "Python.h").exists()


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
    if not BUILDS:
        return f"there are none for {MACHINE}"
    if there := [build for build, _ in BUILDS if _file(build).exists()]:
        return _loaded(there[-1])[1] or f"this CPU runs none of {', '.join(there)}"
    return "none were built: install a wheel, which has them, or a C++ compiler and then ecg-batch again"


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
