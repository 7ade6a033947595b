"""Overhead in docs/evidence/cluster.md, measured here: PYTHONPATH=.:tests python tests/slurm_lab/measure.py

64 tiny shards on a test cluster: wall time, the driver's memory, its calls of Slurm, with few and many tasks. What many shards
cost is measured by benchmarks/scale.py.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from fakes import write_fake_bank, write_fake_models
from places import TESTS

from slurm_lab.lab import new_lab

MIX = {"labels": {"NORM": 1.0}}
COUNTED = ("sbatch", "squeue", "sacct", "scontrol", "scancel")
SHIM = '#!/bin/sh\necho {name} >> "$CALLS"\nexec {real} "$@"\n'


def request_in(folder: Path, records: int, shard: int, batch: int) -> Path:
    for make, name in ((write_fake_bank, "bank"), (write_fake_models, "models")):
        if not (folder / name).exists():
            make(folder / name)
    raw = {"records": records, "shard": shard, "batch": batch, "bank": "bank", "models": "models", "mix": MIX}
    (folder / f"{records}.yaml").write_text(yaml.safe_dump(raw))
    return folder / f"{records}.yaml"


def overhead(folder: Path) -> None:
    lab = new_lab(folder / "lab")
    lab.start()
    try:
        counting = count_calls(lab, folder)
        for tasks in (8, 64):
            measure_run(lab, folder, counting, tasks)
    finally:
        lab.stop()


def count_calls(lab, folder: Path) -> dict[str, str]:
    """An environment in which Slurm's commands count their calls in the file $CALLS."""
    (folder / "bin").mkdir()
    for name in COUNTED:
        real = lab.run("which", name, check=False).strip()
        if real:
            (folder / "bin" / name).write_text(SHIM.format(name=name, real=real))
            (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}:{lab.environment['PATH']}"
    return {**lab.environment, "PATH": path, "PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}


def measure_run(lab, folder: Path, environment: dict[str, str], tasks: int) -> None:
    request = request_in(folder, 64 * 64, 64, 64)
    cluster = folder / f"cluster{tasks}.yaml"
    settings = {"memory_gb": 0.2, "most_tasks": tasks, "shards_per_task": 64 // tasks, "poll_s": 2, "walltime_min": 10}
    cluster.write_text(yaml.safe_dump(settings))
    calls = folder / f"calls{tasks}"
    start = time.perf_counter()
    program = TESTS / "fakes.py"
    command = [sys.executable, program, request, folder / f"run{tasks}", 1, 0, cluster]
    subprocess.run(list(map(str, command)), env={**environment, "CALLS": str(calls)}, check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - start
    made = calls.read_text().split()
    memory_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    shown = ", ".join(f"{made.count(name)} {name}" for name in COUNTED)
    print(f"64 shards, {tasks} tasks: {took_s:.1f} s, {took_s / 64:.2f} s a shard; driver {memory_mb:.0f} MB; all calls: {shown}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ecg-measure-") as scratch:
        overhead(Path(scratch))
