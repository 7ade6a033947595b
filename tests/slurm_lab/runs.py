"""What the tests on a real Slurm cluster share: a cluster for the session, a run of 64 small shards, its driver, its faults."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from places import TESTS

from ecg_batch.dataset.layout import PLAN, partial_of
from ecg_batch.dataset.receipts import missing
from ecg_batch.dataset.run import Run, read_run
from ecg_batch.run.claim import Progress, read_progress
from slurm_lab.lab import Lab

SHARDS = 64
RUN = {"records": SHARDS * 64, "shard": 64, "batch": 64}
CLUSTER = {"walltime_min": 5, "memory_gb": 0.2, "most_tasks": 8, "shards_per_task": 8, "poll_s": 1, "partition": "main"}


@dataclass
class SlurmRun:
    """A run on a test cluster, driven by processes that the tests may kill."""

    lab: Lab
    request: Path
    out: Path
    pause_s: float
    settings: dict
    drivers: list[subprocess.Popen] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return partial_of(self.out)

    @property
    def logs(self) -> Path:
        return self.out.with_name(f"{self.out.name}.logs")

    def drive(self, *poisoned: int, hungry: str = "", environment: dict[str, str] | None = None) -> subprocess.Popen:
        """Start a driver, as `ecg-batch synthesize REQUEST --out OUT --cluster FILE` does, with the fake generator."""
        cluster = self.request.with_name("cluster.yaml")
        cluster.write_text(yaml.safe_dump({**CLUSTER, **self.settings}))
        words = [TESTS / "fakes.py", self.request, self.out, 1, self.pause_s, cluster, hungry, *poisoned]
        log = open(self.request.with_name(f"driver{len(self.drivers)}.log"), "w")
        path = f"{TESTS}{os.pathsep}{TESTS.parent}"
        driver = subprocess.Popen(
            [sys.executable, *map(str, words)],
            env={**self.lab.environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self.drivers.append(driver)
        return driver

    def finish(self, driver: subprocess.Popen | None = None, seconds: float = 120) -> tuple[int, str]:
        """Exit status and words of the newest driver, or of this one."""
        driver = driver or self.drivers[-1]
        status = driver.wait(timeout=seconds)
        return status, self.words(driver)

    def words(self, driver: subprocess.Popen | None = None) -> str:
        number = self.drivers.index(driver) if driver else len(self.drivers) - 1
        return self.request.with_name(f"driver{number}.log").read_text()

    def all_words(self) -> str:
        """What drivers and tasks said, for the message of a failed test."""
        logs = sorted(self.logs.glob("*.log")) if self.logs.exists() else []
        return "\n".join([self.words(driver) for driver in self.drivers] + [f"== {log}\n{log.read_text()[-3000:]}" for log in logs])

    def done(self) -> int:
        """Shards with a receipt."""
        if (self.out / PLAN).exists():
            return SHARDS
        return SHARDS - len(missing(read_run(self.folder))) if (self.folder / PLAN).exists() else 0

    def makers(self) -> list[Progress]:
        return [claim for claim in read_progress(Run(None, self.folder)) if claim.age_s < 60]

    def await_done(self, shards: int, seconds: float = 60) -> None:
        self.wait_for(lambda: self.done() >= shards, seconds)

    def wait_for(self, condition: Callable, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain\n{self.all_words()}"
            time.sleep(0.05)

    def tasks(self, *options: str, form: str = "%i %T") -> list[str]:
        return self.lab.queue(*options, form=form)

    def clear(self) -> None:
        for driver in self.drivers:
            driver.kill()
            driver.wait()
        self.lab.restore()
