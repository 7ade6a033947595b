"""Task: what one Slurm task does. It claims shards while there is time for another, then ends with success.

Nothing is resubmitted or handed over here: whatever ends a task, what it has not made is missing, and the driver
submits tasks for what is missing.
"""

import logging
import os
import signal
import traceback
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from ecg_batch.arrow import leave_pandas_out
from ecg_batch.dataset.layout import FAILURES
from ecg_batch.dataset.run import read_run
from ecg_batch.run.identity import node_name
from ecg_batch.run.slurm.queue import TimeLeft, end_time, job_attempt
from ecg_batch.run.worker import OpenGenerator, Stopped, Worker, run_worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterTask:
    """Task `index` of `count`, as it travels to its node: so many workers. only: the shards asked for, None for all."""

    folder: str
    open_generator: OpenGenerator
    index: int
    count: int
    walltime_min: int | None
    only: frozenset[int] | None = None
    workers: int = 1


def run_cluster_task(work: ClusterTask) -> None:
    """Make shards until none can be claimed or the time is up. Returns also where it was told to end.

    USR2 (before the time limit, or before preemption): no further shard is begun; the one under way may be finished.
    TERM (scancel, or the limit itself): ends at once and gives the claim back. What goes wrong outside of any shard
    is left for the driver under failures/, one file per node.
    """
    _open_log()
    log.info("task %s of %s, job %s on %s", work.index, work.count, job_attempt(), node_name())
    if work.workers > 1:
        _run_processes(work)
    else:
        _run(work, sharers=1)


def _run_processes(work: ClusterTask) -> None:
    """A process for each worker, its stripe one of count * workers. They share the task's GPU: one decodes while others write."""
    context, sharers = get_context("spawn"), work.workers  # a fork would take a half-made CUDA or thread pool along
    alone = [replace(work, index=work.index * sharers + worker, count=work.count * sharers, workers=1) for worker in range(sharers)]
    processes = [context.Process(target=_run, args=(one, sharers)) for one in alone]

    def pass_on(number: int, frame) -> None:
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if ended := [process.exitcode for process in processes if process.exitcode]:
        raise RuntimeError(
            f"{len(ended)} of {sharers} workers of the task ended with {sorted(set(ended))}; -9: killed, out of memory?"
        )


def _run(work: ClusterTask, sharers: int) -> None:
    _open_log()
    leave_pandas_out()
    folder = Path(work.folder)
    warned = _note_usr2()
    has_time = TimeLeft(end_time(work.walltime_min))
    try:
        run = read_run(folder)
        worker = Worker(run, work.open_generator, work.index, work.count, waits=False, only=work.only, sharers=sharers)
        run_worker(replace(worker, may_start=lambda: not warned and has_time()))
    except (Stopped, KeyboardInterrupt):
        log.info("job %s: told to end, or no time for another shard", job_attempt())
    except FileNotFoundError:
        if folder.exists():
            raise
        # else the run was finished and renamed under us
    except Exception:
        text = f"job {job_attempt()} on {node_name()}\n\n{traceback.format_exc()}"
        (folder / FAILURES / f"task-{node_name()}.txt").write_text(text, encoding="utf-8")
        raise


def _open_log() -> None:
    """A task is a process of its own, so it sets up its logging itself, as the command does; submitit keeps what it prints."""
    ours = logging.getLogger("ecg_batch")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)


def _note_usr2() -> list[int]:
    """A list that is filled when USR2 comes. submitit's own handler would checkpoint and requeue the job instead."""
    came = []
    signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
    return came
