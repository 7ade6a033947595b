"""Whole runs as a user starts them, from the command to the finished dataset; and what a second thread would give one worker.

On a GPU (--device cuda; not yet measured) as configs/published.yaml has them, with one worker, four, and as many as there are
cores, up to sixteen: they share it.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.turns import median_seconds
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.batch import make_batch
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

ROOT = Path(__file__).parents[1]
DEMO, PUBLISHED = (ROOT / "configs" / f"{name}.yaml" for name in ("demo", "published"))
SHORTER = 8  # so many times fewer records has the other run: in the difference of both there is no start-up
ON_GPU = 8  # times as many, in batches and shards that are worth a GPU's while
ASKED = {"cpu": [str(DEMO), "--set", "shard=4096"], "cuda": [str(PUBLISHED), "--set", "device=cuda", "batch=1024", "shard=1024"]}


def measure(rounds: int, device: str = "cpu", records: int = 65_536) -> list[dict]:
    rows, many = [], records * (ON_GPU if device == "cuda" else 1)
    few = many // SHORTER
    cores = min(len(os.sched_getaffinity(0)), 16)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        for workers in sorted({1, 4, cores}, reverse=True) if device == "cuda" else (2, 1):
            few_s, many_s = (
                _run_seconds(Path(scratch) / f"{workers}-{count}", workers, count, ASKED[device]) for count in (few, many)
            )
            rate = (many - few) / (many_s - few_s)
            beside = f"and a start-up of {few_s - few / rate:.1f} s; a million in {1e6 / rate / 60:.0f} min"
            rows.append({"what": f"{workers} worker(s), checked, written", "value": rate, "unit": "records/s", "beside": beside})
    return rows + (_threads(rounds) if device == "cpu" else [])


def _run_seconds(out: Path, workers: int, records: int, asked: list[str]) -> float:
    """asked: a request file and changes of it."""
    command = [sys.executable, str(ROOT / "jobs" / "synthesize.py"), *asked, f"records={records}", "--out", str(out)]
    start = time.perf_counter()
    subprocess.run([*command, "--workers", str(workers)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _threads(rounds: int) -> list[dict]:
    """Making a batch, nothing written, on one thread and on two. (A worker always takes one.)"""
    plan, _ = make_plan(load_request(DEMO))
    synthesizer, queries = open_synthesizer(plan), query_source(plan.request, Path("no table"))(0, plan.request.batch)

    def run(threads: int) -> None:
        torch.set_num_threads(threads)
        make_batch(synthesizer, queries)

    seconds = median_seconds({threads: lambda threads=threads: run(threads) for threads in (1, 2)}, rounds)
    torch.set_num_threads(1)
    unit = {"unit": "records/s"}
    return [
        {"what": f"one worker on {threads} thread(s), not written", "value": plan.request.batch / took, **unit}
        for threads, took in seconds.items()
    ]
