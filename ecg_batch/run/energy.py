"""Energy: joules of a piece of work, by the counters there are: NVML for the GPU, RAPL for the CPU packages.

Where a counter cannot be read, its energy is "not measured": never guessed from a data sheet.
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PROC_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Counter:
    """A counter of joules that goes up, and begins again at 0 after wrap_j (None: never)."""

    part: str  # "gpu" or "cpu"
    read: Callable[[], float]
    wrap_j: float | None = None


@dataclass(frozen=True)
class Reading:
    """All counters at one moment. own_s, busy_s: CPU time of this process, and of the whole node."""

    joules: tuple[float, ...]
    own_s: float
    busy_s: float


class Meter:
    """The counters of this process: its GPU where it uses one, and the node's CPU packages."""

    def __init__(self, device: str, sharers: int = 1):
        """device: the request's; sharers: how many workers use its GPU at once."""
        self.sharers = sharers
        self.counters = (gpu_counters() if device == "cuda" else []) + package_counters()

    def read(self) -> Reading:
        return Reading(tuple(counter.read() for counter in self.counters), time.process_time(), node_busy_s())

    def since(self, start: Reading) -> dict[str, float]:
        """Joules by part since a reading. The packages count whatever runs on the node, so this process is given its
        share of the node's CPU time. A GPU is taken to be used by its sharers alike and by nobody else.
        """
        now, joules = self.read(), {}
        busy_s = now.busy_s - start.busy_s
        share = min(1.0, (now.own_s - start.own_s) / busy_s) if busy_s > 0 else 1.0
        for counter, before, after in zip(self.counters, start.joules, now.joules, strict=True):
            spent = after - before
            if spent < 0 and counter.wrap_j:  # at most once in a shard: a package wraps in about 40 min at 100 W
                spent += counter.wrap_j
            joules[counter.part] = joules.get(counter.part, 0.0) + spent * (share if counter.part == "cpu" else 1 / self.sharers)
        return joules


def gpu_counters() -> list[Counter]:
    """The GPU that torch uses here, found by its UUID: NVML's own numbering knows nothing of CUDA_VISIBLE_DEVICES."""
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no package, no driver, a MIG slice, a card before Volta: then it is not measured, and that is said
        return []
    return [Counter("gpu", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)]  # mJ


def package_counters() -> list[Counter]:
    """RAPL counters of whole packages, where this user may read them (since 2020 often only root may)."""
    counters = []
    for folder in sorted(POWERCAP.glob("intel-rapl:*")):
        if not re.fullmatch(r"intel-rapl:[0-9]+", folder.name):  # intel-rapl:0:0 is a part of intel-rapl:0
            continue
        with suppress(OSError, ValueError):
            read = _microjoules(folder / "energy_uj")
            read()
            counters.append(Counter("cpu", read, _microjoules(folder / "max_energy_range_uj")()))
    return counters


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6


def node_busy_s() -> float:
    """CPU time of the whole node, all cores, that was not idle, s; 0 where /proc does not say."""
    try:
        ticks = [int(word) for word in PROC_STAT.read_text().splitlines()[0].split()[1:9]]  # user ... steal
    except (OSError, ValueError):
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # without idle and iowait
