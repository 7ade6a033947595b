"""Worker: a task. It takes missing shards one after another, makes and commits each, until none is left to take.

A shard that fails by itself is put aside with its traceback and the others go on. A full disk, a signal, or a vanished
driver stops the task; its own staging folder is removed and nothing else is lost.
"""

import errno
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecg_batch.batch import batch_of, halve, is_out_of_memory, with_batch
from ecg_batch.claim import Claim, claim_shard, node_name, read_progress
from ecg_batch.commit import commit_shard, missing, read_receipt
from ecg_batch.energy import Meter
from ecg_batch.errors import UserError
from ecg_batch.plan import FAILURES, STAGING, Plan, Shard
from ecg_batch.query import query_source

POLL_S = 0.5  # between looks at a shard that somebody else is making
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Stopped(Exception):
    """The task is to end before its work is done: its driver has vanished, or asked for it."""


@dataclass(frozen=True)
class Generator:
    """The half of the system that makes samples.

    open_assets(plan) -> assets, once per process. synthesize_shard(plan, assets, shard, queries_of, on_batch) -> (ecg
    int16 (record, 12, time), rows): queries_of(start, stop) gives Queries; on_batch(done_records) is called after
    each batch.
    """

    open_assets: Callable[[Plan], Any]
    synthesize_shard: Callable[..., tuple]


@dataclass(frozen=True)
class Task:
    """Task `index` of `count` on one run.

    keep_going is asked between batches, may_start before each shard. waits: for shards that others are making, to take
    over where one of them dies; a Slurm task does not, since its driver sees to that. only: the shards to make, None
    for all. sharers: how many workers use this one's GPU.
    """

    plan: Plan
    folder: Path
    generator: Generator
    index: int = 0
    count: int = 1
    keep_going: Callable[[], bool] = lambda: True
    may_start: Callable[[], bool] = lambda: True
    waits: bool = True
    only: frozenset[int] | None = None
    sharers: int = 1


@dataclass(frozen=True)
class Tools:
    """What a worker opens once: the generator's assets, the source of queries, the energy counters."""

    assets: Any
    queries_of: Callable
    meter: Meter


def _open_tools(task: Task) -> Tools:
    assets = task.generator.open_assets(task.plan)
    return Tools(assets, query_source(task.plan.request, task.folder), Meter(task.plan.request.device, task.sharers))


def run_worker(task: Task) -> None:
    """Make shards until none is missing but failed ones, or another run has finished the dataset.

    Raises UserError on a full disk, Stopped where keep_going or may_start says no, KeyboardInterrupt on SIGINT and
    SIGTERM.
    """
    with sigterm_as_interrupt():
        todo = stripe_order(missing(task.plan, task.folder, task.only), task.index, task.count)
        tools = _open_tools(task) if todo else None
        while todo and not is_over(task.folder):
            took = [shard for shard in todo if _take(task, tools, shard)]
            todo = [shard for shard in todo if not _is_settled(task, shard)]
            if todo and not took:
                if not task.waits:
                    return
                _check(task)
                time.sleep(POLL_S)


def stripe_order(shards: Sequence[Shard], index: int, count: int) -> list[Shard]:
    """Own stripe first; then the others' from their far end, where their owners come last."""
    own = [shard for shard in shards if shard.index % count == index]
    return own + [shard for shard in reversed(shards) if shard.index % count != index]


def is_over(folder: Path) -> bool:
    """Whether finalise has cleared the run's folder, or renamed it: there is nothing left to do for anybody."""
    return not (folder / STAGING).exists()


def failure_path(folder: Path, shard_index: int) -> Path:
    return folder / FAILURES / f"{shard_index}.txt"


def _is_settled(task: Task, shard: Shard) -> bool:
    done = read_receipt(task.plan, task.folder, shard.index) is not None
    return done or failure_path(task.folder, shard.index).exists()


def _check(task: Task) -> None:
    if not task.keep_going():
        raise Stopped


def _take(task: Task, tools: Tools, shard: Shard) -> bool:
    """Make one shard if nobody else is at it. True where something was done about it."""
    if _is_settled(task, shard):
        return False
    _check(task)
    if not task.may_start():
        raise Stopped
    claim = None
    try:
        claim = claim_shard(task.folder, shard, batch_of(task.plan, task.folder, shard.index))
        if claim and not _is_settled(task, shard):  # looked at again: its maker may have ended just before the claim
            _make(task, tools, claim)
    except Exception as error:
        _handle(task, shard, claim, error)
    finally:
        if claim:
            claim.release()
    return claim is not None


def _make(task: Task, tools: Tools, claim: Claim) -> None:
    from ecg_batch.write import build_shard

    def on_batch(done_records: int) -> None:
        claim.beat(done_records)
        _check(task)

    start, plan = tools.meter.read(), with_batch(task.plan, claim.batch)
    ecg, rows = task.generator.synthesize_shard(plan, tools.assets, claim.shard, tools.queries_of, on_batch)
    built = build_shard(plan, claim.shard, ecg, rows, claim.staging)
    _check(task)
    if claim.batch == batch_of(task.plan, task.folder, claim.shard.index):  # else thought dead for want of memory, and decided anew
        commit_shard(plan, task.folder, claim, built, tools.meter.since(start))


def _handle(task: Task, shard: Shard, claim: Claim | None, error: Exception) -> None:
    """Stop, go on quietly, have it made with a smaller batch, or put it aside. What is not understood is its own failure."""
    if isinstance(error, Stopped):
        raise error
    if getattr(error, "errno", None) in DISK_FULL:
        raise UserError(disk_full_text(task.plan, task.folder)) from error
    if claim is None:
        if not isinstance(error, FileNotFoundError):
            raise error
        return  # the run is over
    if _is_lost(task, claim):
        return
    if is_out_of_memory(error) and halve(task.plan, task.folder, shard.index, claim.batch):
        return
    head = f"shard {shard.index}, records {shard.start} to {shard.stop - 1}, on {node_name()}, attempt {claim.attempt}"
    trace = "".join(traceback.format_exception(error))
    failure_path(task.folder, shard.index).write_text(f"{head}\n\n{trace}", encoding="utf-8")


def _is_lost(task: Task, claim: Claim) -> bool:
    """Whether another task took the shard over, or the run is over. Whatever went wrong here then comes of that: the staging
    folder vanishes file by file under its maker. A newer claim is there before the older one is removed.
    """
    newer = any(progress.attempt > claim.attempt for progress in read_progress(task.folder, claim.shard.index))
    return newer or not claim.staging.exists() or read_receipt(task.plan, task.folder, claim.shard.index) is not None


def disk_full_text(plan: Plan, folder: Path) -> str:
    left = sum(shard.records for shard in missing(plan, folder))
    raw_mb = left * 12 * plan.time_samples * 2 / 1e6
    return (
        f"{folder}: the disk (or quota) is full. {left:,} records are still to be made, at most {raw_mb:,.0f} MB. "
        "Free space and run the same command again; finished shards are kept"
    )


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the task as Ctrl-C does. (submitit's own worker would ignore it.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
