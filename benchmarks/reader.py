"""Measure how fast a dataset is read for training, in one run: naive zarr[i], zarr and our chunks, the shuffled loader, its memory,
and the WFDB export.

    python -m benchmarks.reader [DATASET] [--records 32768] [--workers 2] [--rounds 3]

DATASET: a finished one, whose records are repeated to make one of --records (default: 2,048 made as by configs/demo.yaml). Each
figure is the median of --rounds after one run that warms the cache. The last column is of processor time (user + system, all
processes), which other work on the machine changes less.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--records", type=int, default=32768)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="reader-") as scratch:
        source = args.dataset or make_demo(Path(scratch) / "demo")
        measure(repeated(source, Path(scratch) / "large", args.records), source, args.workers, args.rounds, Path(scratch))
    return 0


def make_demo(out: Path) -> Path:
    subprocess.run(
        [sys.executable, ROOT / "jobs/synthesize.py", ROOT / "configs/demo.yaml", "--out", out, "--workers", "2"], check=True
    )
    return out


def repeated(source: Path, out: Path, records: int) -> Path:
    """A finished dataset with the records of another over and over, written as any dataset is."""
    from ecg_batch.dataset.finalise import finalise
    from ecg_batch.dataset.layout import cut_shards
    from ecg_batch.dataset.plan import read_plan
    from ecg_batch.dataset.plan import run_id_of as run_id
    from ecg_batch.run.folder import open_run
    from ecg_batch.run.local import run_missing

    plan = read_plan(source)
    request = replace(plan.request, records=records, shard=4096)
    plan = replace(plan, request=request, shards=cut_shards(records, 4096), run_id=run_id(request.resolved(), plan.inputs))
    run = open_run(plan, None, out)
    run_missing(run, 1, lambda plan: partial(_repeat, str(source)))
    finalise(run)
    return out


def _repeat(source: str, shard, batch, queries_of, on_batch):
    import pyarrow as pa

    from ecg_batch.reading.synthetic import open_dataset

    dataset, records = open_dataset(source), np.arange(shard.start, shard.stop)
    rows = dataset.records.take(records % len(dataset))
    rows = rows.set_column(0, "record", pa.array(records, pa.int64()))
    rows = rows.set_column(1, "shard", pa.array(np.full(len(records), shard.index), pa.int32()))
    return dataset.raw[records % len(dataset)], rows, list(_repeated_beats(dataset, records))


def _repeated_beats(dataset, records: np.ndarray):
    """The beats of the records that these repeat, a table for each time round."""
    import pyarrow as pa

    for turn in np.unique(records // len(dataset)):
        now = records[records // len(dataset) == turn]
        for table in dataset.annotations(now % len(dataset)):
            yield table.set_column(0, "record", pa.array(table["record"].to_numpy() + turn * len(dataset)))


def measure(large: Path, small: Path, workers: int, rounds: int, scratch: Path) -> None:
    import ecg_batch

    dataset = ecg_batch.open_dataset(large)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    load = os.getloadavg()[0]
    print(f"{len(dataset):,} records, {workers} workers, {os.cpu_count()} cores, load average {load:.1f} before, commit {commit}")
    naive = shown("naive Dataset of zarr[i], one process", *timed(lambda: naive_items(dataset, 400, 0), rounds))
    both = shown(f"the same in a DataLoader with {workers} workers", *timed(lambda: naive_items(dataset, 800, workers), rounds))
    shown("zarr-python in blocks of 64, random order", *timed(lambda: zarr_blocks(dataset), rounds))
    shown("our chunks, random order, one process", *timed(lambda: own_chunks(dataset), rounds))
    for raw, name in ((True, "int16"), (False, "float32 mV")):
        shown(f"ECGLoader, {name}, 0 workers", *epochs(dataset, raw, 0, rounds))
        wall = shown(f"ECGLoader, {name}, {workers} workers", *epochs(dataset, raw, workers, rounds))
        print(f"{'':58}{wall / max(naive, both):5.0f} times the naive Dataset")
    for targets in ("labels", "waves", "beats", "rhythm"):
        shown(f"ECGLoader, int16, 0 workers, targets {targets}", *epochs(dataset, True, 0, rounds, targets))
    memory(large)
    memory(small)
    shown(f"WFDB export in PTB-XL's layout, {workers} processes", *export(small, scratch, workers))


def shown(name: str, records_per_s: float, per_cpu_s: float) -> float:
    print(f"{name:58}{records_per_s:9,.0f} records/s {per_cpu_s:9,.0f} per core-second", flush=True)
    return records_per_s


def timed(work, rounds: int) -> tuple[float, float]:
    """Records per second of wall time and of processor time; work() returns how many records it read."""
    work()
    found = []
    for _ in range(rounds):
        start, cpu = time.perf_counter(), cpu_s()
        records = work()
        took = max(cpu_s() - cpu, 1 / os.sysconf("SC_CLK_TCK"))  # of a short one the clock may see nothing
        found.append((records / (time.perf_counter() - start), records / took))
    return tuple(statistics.median(column) for column in zip(*found, strict=True))


def cpu_s() -> float:
    """Processor time of this process and of its children, those still running too."""
    ticks = 0
    for pid in [os.getpid(), *children()]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # utime, stime, and those of children that have ended
    return ticks / os.sysconf("SC_CLK_TCK")


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


class Naive:
    """What one writes without thinking: a map-style Dataset that takes one record from the Zarr array."""

    def __init__(self, path: Path, length: int):
        self.path, self.length, self.array = path, length, None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray:
        import zarr

        if self.array is None:
            self.array = zarr.open_array(self.path / "ecg.zarr/ecg", mode="r")
        return self.array[index]


def naive_items(dataset, count: int, workers: int) -> int:
    from torch.utils.data import DataLoader, SubsetRandomSampler

    chosen = np.random.default_rng(0).permutation(len(dataset))[:count].tolist()
    naive = Naive(dataset.path, len(dataset))
    loader = DataLoader(naive, batch_size=64, sampler=SubsetRandomSampler(chosen), num_workers=workers,
                        multiprocessing_context="spawn" if workers else None)  # fmt: skip
    return sum(len(batch) for batch in loader)


def zarr_blocks(dataset) -> int:
    import zarr

    array, chunks = zarr.open_array(dataset.path / "ecg.zarr/ecg", mode="r"), min(len(dataset) // 64, 128)
    return sum(len(array[64 * chunk : 64 * chunk + 64]) for chunk in np.random.default_rng(0).permutation(chunks))


def own_chunks(dataset) -> int:
    return sum(len(dataset.chunks.read(int(chunk))) for chunk in np.random.default_rng(0).permutation(len(dataset) // 64))


def epochs(dataset, raw: bool, workers: int, rounds: int, targets: str = "labels") -> tuple[float, float]:
    """Whole epochs of one loader, its workers kept: from asking for the first batch to having the last."""
    from ecg_batch import ECGIterable, ECGLoader

    loader = ECGLoader(ECGIterable(dataset, raw=raw, targets=targets), num_workers=workers, persistent_workers=workers > 0)
    return timed(lambda: sum(len(batch["signal"]) for batch in loader), rounds)


MEMORY = """
import re, sys, torch, ecg_batch
from ecg_batch import ECGIterable, ECGLoader
def peak_mib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
dataset, before = ecg_batch.open_dataset(sys.argv[1]), peak_mib()
for batch in ECGLoader(ECGIterable(dataset, raw=True)): pass
print(len(dataset), before, peak_mib())
"""


def memory(path: Path) -> None:
    """Peak memory of a process that reads one epoch, and what it was before."""
    done = subprocess.run([sys.executable, "-c", MEMORY, path], capture_output=True, text=True, check=True)
    records, before, after = map(int, done.stdout.split())
    print(
        f"{f'peak memory of one reading process, {records:,} records':58}{after:9,} MiB, of which {before} before the first batch"
    )


def export(source: Path, scratch: Path, workers: int) -> tuple[float, float]:
    """Once, in new processes: its own start is part of what a user waits for."""
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        sys.executable,
        ROOT / "jobs/export.py",
        source,
        "--format",
        "ptbxl",
        "--out",
        scratch / "ptbxl",
        "--workers",
        str(workers),
    ]
    subprocess.run(command, check=True, capture_output=True)
    wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    records = sum(1 for _ in (scratch / "ptbxl").rglob("*.dat"))
    return records / wall, records / (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)


if __name__ == "__main__":
    sys.exit(main())
