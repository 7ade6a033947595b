"""Task: what one Slurm task does. It claims shards while there is time for another, then ends with success.

Nothing is resubmitted or handed over here: whatever ends a task, what it has not made is missing, and the driver
submits tasks for what is missing.
"""

import signal
import traceback
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.claim import node_name
from ecg_batch.plan import FAILURES, read_plan
from ecg_batch.slurm import TimeLeft, end_time, incarnation
from ecg_batch.worker import Generator, Stopped, Task, run_worker


@dataclass(frozen=True)
class ClusterTask:
    """Task `index` of `count`, as it travels to its node. only: the shards asked for, None for all."""

    folder: str
    generator: Generator
    index: int
    count: int
    walltime_min: int
    only: frozenset[int] | None = None


def run_cluster_task(work: ClusterTask) -> None:
    """Make shards until none can be claimed or the time is up. Returns also where it was told to end.

    USR2 (before the time limit, or before preemption): no further shard is begun; the one under way may be finished.
    TERM (scancel, or the limit itself): ends at once and gives the claim back. What goes wrong outside of any shard
    is left for the driver under failures/, one file per node.
    """
    folder = Path(work.folder)
    warned = _note_usr2()
    has_time = TimeLeft(end_time(work.walltime_min))
    print(f"task {work.index} of {work.count}, job {incarnation()} on {node_name()}", flush=True)
    try:
        plan = read_plan(folder)
        may_start = lambda: not warned and has_time()  # noqa: E731
        run_worker(Task(plan, folder, work.generator, work.index, work.count, may_start=may_start, waits=False, only=work.only))
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
