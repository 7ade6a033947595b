"""A Slurm task of several workers, here without Slurm: it is a function in a process of its own."""

import os
import signal
import time
from multiprocessing import get_context

import pytest
from fakes import fake

from ecg_batch.dataset.receipts import missing
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import read_progress
from ecg_batch.run.folder import open_run
from ecg_batch.run.planning import make_plan
from ecg_batch.run.slurm.task import ClusterTask, run_cluster_task

WORKERS = 3


@pytest.fixture
def run(write_request, tmp_path):
    """(plan, folder, process): a task of three workers on a run of many shards, started."""
    plan, table = make_plan(load_request(write_request(), ["records=2048", "batch=64", "shard=64"]))
    run = open_run(plan, table, tmp_path / "run")
    work = ClusterTask(str(run.folder), fake(pause_s=0.3), 0, 1, walltime_min=60, workers=WORKERS)
    process = get_context("spawn").Process(target=run_cluster_task, args=(work,))
    process.start()
    yield run, process
    process.kill()
    process.join()


def busy_workers(run, count: int) -> set[int]:
    """Process ids of the workers, once so many have been seen."""
    seen, deadline = set(), time.monotonic() + 120
    while len(seen) < count:
        assert time.monotonic() < deadline, f"{len(seen)} workers seen, not {count}"
        seen |= {progress.pid for progress in read_progress(run)}
        time.sleep(0.02)
    return seen


@pytest.mark.slow
def test_its_workers_make_all_shards_side_by_side(run):
    begun, process = run
    assert process.pid not in busy_workers(begun, WORKERS)
    process.join(120)
    assert process.exitcode == 0 and missing(begun) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_reaches_every_worker_and_claims_are_given_back(run, number):
    begun, process = run
    busy_workers(begun, WORKERS)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 0
    assert missing(begun), "the signal came before the end"
    assert read_progress(begun) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_fails_the_task_after_the_others_are_done(run):
    begun, process = run
    os.kill(min(busy_workers(begun, WORKERS)), signal.SIGKILL)
    process.join(120)
    assert process.exitcode == 1
    assert len(missing(begun)) <= 1, "all but the shard in the dead worker's hands; a live one may have taken even that"
