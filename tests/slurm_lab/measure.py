"""The figures of docs/evidence/cluster.md, measured here: PYTHONPATH=.:tests python tests/slurm_lab/measure.py overhead|scale

overhead: 64 tiny shards on a test cluster: wall time, the driver's memory, its calls of Slurm, with few and many tasks.
scale:    plan, status and finalise at 245 and 24,415 shards with simulated receipts; samples of a few bytes, tables of one row
          (bookkeeping alone) and of 4,096 real rows.
"""

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from fakes import ROW_COLUMNS, fake, write_fake_bank, write_fake_models
from places import ROOT, TESTS

from ecg_batch.dataset.finalise import finalise_steps
from ecg_batch.dataset.layout import ecg_file, part_file
from ecg_batch.dataset.parts import write_groups
from ecg_batch.dataset.run import Run
from ecg_batch.files import sha256_file, to_json
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.request.parse import load_request
from ecg_batch.run.folder import open_run
from ecg_batch.run.local import synthesize
from ecg_batch.run.planning import make_plan
from ecg_batch.run.slurm.driver import Driver
from ecg_batch.run.status import describe
from ecg_batch.synthesis.generate import open_generator
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


def scale(folder: Path) -> None:
    import pyarrow as pa

    one = pa.table({name: pa.nulls(1, pa.float32()) for name in ROW_COLUMNS})
    for rows in (one, in_a_process(real_rows, folder)):
        for records in (1_000_000, 100_000_000):
            in_a_process(simulate, folder, records, rows)


def in_a_process(function, *given):
    """What it returns, from a process of its own: memory is measured as a process's peak, which children begin with."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, given)


def real_rows(folder: Path):
    """The table of a shard of 4,096 records: that of 512 records of the demo, eight times over."""
    import pyarrow as pa

    demo = load_request(ROOT / "configs" / "demo.yaml", ["records=512", "shard=512"])
    synthesize(demo, folder / "demo", 1, open_generator)
    return pa.concat_tables([open_dataset(folder / "demo").records] * 8).combine_chunks()


def simulate(folder: Path, records: int, rows) -> None:
    request = load_request(request_in(folder, records, 4096, 256))
    marks = [("", time.perf_counter())]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    plan, _ = make_plan(request)
    run = open_run(plan, None, folder / f"run{records}-{rows.num_rows}")
    mark("plan")
    write_receipts(run, rows)
    mark("(simulated receipts)")
    describe(run.folder)
    mark("status")
    driver = Driver(run, None, fake(), None)
    assert driver.unsettled() == []
    mark("driver's first look")
    driver.unsettled()
    mark("driver's next look")
    driver_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    list(finalise_steps(run))
    mark("finalise")
    times = [f"{name} {after - before:.2f} s" for (_, before), (name, after) in zip(marks, marks[1:], strict=False)]
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{records:,} records, {len(plan.shards):,} shards, tables of {rows.num_rows:,} rows: {', '.join(times)}")
    print(f"memory {driver_mb:.0f} MB, after finalise {memory_mb:.0f} MB", flush=True)


def write_receipts(run: Run, rows) -> None:
    """Receipts of shards whose samples are a few bytes and whose rows are these, in one file with many names."""
    write_groups(part := run.staging / "file-0", [rows])
    (ecg := run.staging / "file-1").write_bytes(b"samples")
    told = {path: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in (part, ecg)}
    for shard in run.shards:
        files = {ecg_file(shard.index): ecg, part_file(shard.index): part}
        for name, path in files.items():
            os.link(path, run.folder / name)
        stated = {name: told[path] for name, path in files.items()}
        receipt = {"format": 1, "run_id": run.plan.run_id, "shard": shard.index, "records": shard.records, "files": stated}
        receipt |= {"content_sha256": "0" * 64, "bytes": 1_000_000, "seconds": 60.0, "joules": 1.0, "joules_of": ["gpu"]}
        receipt |= {"host": f"node{shard.index % 64}", "attempt": 1, "finished_unix_s": 0.0}
        run.receipt(shard.index).write_bytes(to_json(receipt))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ecg-measure-") as scratch:
        {"overhead": overhead, "scale": scale}[sys.argv[1]](Path(scratch))
