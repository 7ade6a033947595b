"""Task: what one Slurm task does. It claims shards while there is time for another, then ends with success.

Nothing is resubmitted or handed over here: whatever ends a task, what it has not made is missing, and the driver
submits tasks for what is missing.
"""

import os
import signal
import traceback
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from ecg_batch.claim import node_name
from ecg_batch.plan import FAILURES, read_plan
from ecg_batch.slurm import TimeLeft, end_time, incarnation
from ecg_batch.worker import Generator, Stopped, Task, run_worker


@dataclass(frozen=True)
class ClusterTask:
    """Task `index` of `count`, as it travels to its node: so many workers. only: the shards asked for, None for all."""

    folder: str
    generator: Generator
    index: int
    count: int
    walltime_min: int
    only: frozenset[int] | None = None
    workers: int = 1


def run_cluster_task(work: ClusterTask) -> None:
    """Make shards until none can be claimed or the time is up. Returns also where it was told to end.

    USR2 (before the time limit, or before preemption): no further shard is begun; the one under way may be finished.
    TERM (scancel, or the limit itself): ends at once and gives the claim back. What goes wrong outside of any shard
    is left for the driver under failures/, one file per node.
    """
    print(f"task {work.index} of {work.count}, job {incarnation()} on {node_name()}", flush=True)
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
    folder = Path(work.folder)
    warned = _note_usr2()
    has_time = TimeLeft(end_time(work.walltime_min))
    try:
        task = Task(read_plan(folder), folder, work.generator, work.index, work.count, waits=False, only=work.only, sharers=sharers)
        run_worker(replace(task, may_start=lambda: not warned and has_time()))
    except (Stopped, KeyboardInterrupt):
        print(f"job {incarnation()}: told to end, or no time for another shard", flush=True)
    except FileNotFoundError:
        if folder.exists():
            raise
        # else the run was finished and renamed under us
    except Exception:
        text = f"job {incarnation()} on {node_name()}\n\n{traceback.format_exc()}"
        (folder / FAILURES / f"task-{node_name()}.txt").write_text(text, encoding="utf-8")
        raise


def _note_usr2() -> list[int]:
    """A list that is filled when USR2 comes. submitit's own handler would checkpoint and requeue the job instead."""
    came = []
    signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
    return came
