"""What one thread of this machine does at best of what decoding and writing are made of: peak.cpp, compiled here, says how many
multiply-adds and bytes; torch, memory and disk stand beside.
"""

import ctypes
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.turns import median_seconds
from ecg_batch.kernels.build import kernel, why_plain

MATRIX = 1024
MANY = 12  # as in peak.cpp
TIMES, ROUNDS = 4_000_000, 4000
IN_CACHE = 192 << 10  # bytes: beyond the first cache of a core, within the second
EXP_FLOP = 18  # of an exponential in float32: six multiply-adds, which count two each, and six operations beside
SINGLE, DOUBLE, PAIRS = "float32 multiply-adds", "float64 multiply-adds", "multiply-adds of 16 bits"
LOADS, STORES = "loads from the second cache", "stores to the second cache"


def measure(rounds: int, mebibytes: int = 256) -> list[dict]:
    size = mebibytes << 20
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    product = torch.empty_like(a)
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    data = np.random.default_rng(0).bytes(size)

    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "sgemm": lambda: torch.mm(a, b, out=product),
            "memory copy": lambda: np.copyto(target, source),
            "disk write with fsync": lambda: _write(Path(folder) / "file", data),
        }
        seconds = median_seconds(candidates, rounds)
    torch.set_num_threads(former)
    done = {"sgemm": 2 * MATRIX**3, "memory copy": size, "disk write with fsync": size}
    peak = [{"what": name, "value": value, "unit": unit} for name, (value, unit) in thread_rates(rounds).items()]
    units = {"sgemm": "GFLOP/s"}
    rates = {name: done[name] / took / 1e9 for name, took in seconds.items()}
    return peak + [{"what": name, "value": rate, "unit": units.get(name, "GB/s")} for name, rate in rates.items()]


def thread_rates(rounds: int) -> dict[str, tuple[float, str]]:
    """Of the calling thread: multiply-adds a second, each counts two, and bytes: the best of the rounds. Compiles peak.cpp."""
    if not kernel():
        raise SystemExit(f"no compiled kernels, whose vectors are measured here: {why_plain()}")
    _, lanes = kernel()
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "peak.so"
        command = [os.environ.get("CXX", "g++"), "-O3", "-std=c++17", "-march=native", f"-DLANES={lanes}", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(built), str(Path(__file__).with_name("peak.cpp"))], check=True)
        peak = ctypes.CDLL(str(built))
    number, cached = ctypes.c_int64, np.ones(IN_CACHE // 4, np.float32)
    vectors, address = number(len(cached) // lanes), ctypes.c_void_p(cached.ctypes.data)
    over_all = vectors, number(ROUNDS)
    calls = {
        SINGLE: (lambda: peak.peak_single(number(TIMES), ctypes.c_float(0.5)), 2 * lanes * MANY * TIMES),
        DOUBLE: (lambda: peak.peak_double(number(TIMES), ctypes.c_double(0.5)), lanes * MANY * TIMES),
        PAIRS: (lambda: peak.peak_pairs(number(TIMES), ctypes.c_int32(3)), 4 * lanes * MANY * TIMES),
        LOADS: (lambda: peak.peak_loads(address, *over_all), IN_CACHE * ROUNDS),
        STORES: (lambda: peak.peak_stores(address, *over_all, ctypes.c_float(1)), IN_CACHE * ROUNDS),
    }
    rates = {}
    for name, (call, done) in calls.items():
        took = []
        for _ in range(rounds):
            start = time.process_time()
            call()
            took.append(time.process_time() - start)
        rates[name] = done / min(took) / 1e9, "GB/s" if "cache" in name else "Gop/s"
    return rates


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
