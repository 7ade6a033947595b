"""The ceilings: what one thread of this machine does at best of what decoding and writing are made of."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.turns import median_seconds

MATRIX = 1024
EXPONENTIALS = 8192  # 32 KB, so that the cache and not the memory sets the pace
REPEATS = 2000


def measure(rounds: int, mebibytes: int = 256) -> list[dict]:
    size = mebibytes << 20
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b, x = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX), torch.randn(EXPONENTIALS)
    product, exponential = torch.empty_like(a), torch.empty_like(x)
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    data = np.random.default_rng(0).bytes(size)

    def exponentials() -> None:
        for _ in range(REPEATS):
            torch.exp(x, out=exponential)

    with tempfile.TemporaryDirectory() as folder:
        candidates = {
            "sgemm": lambda: torch.mm(a, b, out=product),
            "exp": exponentials,
            "memory copy": lambda: np.copyto(target, source),
            "disk write with fsync": lambda: _write(Path(folder) / "file", data),
        }
        seconds = median_seconds(candidates, rounds)
    torch.set_num_threads(former)
    done = {"sgemm": 2 * MATRIX**3, "exp": REPEATS * EXPONENTIALS, "memory copy": size, "disk write with fsync": size}
    units = {"sgemm": "GFLOP/s", "exp": "G/s"}
    return [{"what": name, "value": done[name] / took / 1e9, "unit": units.get(name, "GB/s")} for name, took in seconds.items()]


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
