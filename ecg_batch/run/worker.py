"""Worker: a process that takes missing shards one after another, makes and commits each, until none is left to take.

A shard that fails by itself is put aside with its traceback and the others go on. A full disk, a signal, or a vanished
driver stops the worker; its own staging folder is removed and nothing else is lost.
"""

import errno
import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import missing, read_receipt
from ecg_batch.dataset.run import Run
from ecg_batch.errors import UserError, number_of
from ecg_batch.progress import timed
from ecg_batch.run.claim import Claim, claim_shard, read_progress
from ecg_batch.run.commit import commit_shard
from ecg_batch.run.energy import Meter
from ecg_batch.run.identity import node_name
from ecg_batch.run.oom import batch_of, halve, is_out_of_memory
from ecg_batch.synthesis.source import query_source

POLL_S = 0.5  # between looks at a shard that somebody else is making
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Stopped(Exception):
    """The worker is to end before its work is done: its driver has vanished, or asked for it."""


# make_shard(shard, batch, queries_of, on_batch) -> (ecg int16 (record, 12, time), rows), of long records with beats as a third, of
# streamed ones a synthesis.long.batch.LongShard. batch: records in one model call; queries_of(start, stop) gives Queries;
# on_batch(done_records) is called after each batch, and each minute of long records.
MakeShard = Callable[[Shard, int, Callable, Callable], Any]
# The half of the system that makes samples, opened once by each process: synthesis.generate.open_generator.
OpenGenerator = Callable[[Plan], MakeShard]


def always() -> bool:  # by its name, so that a Worker can be pickled
    return True


@dataclass(frozen=True)
class Worker:
    """Worker `index` of `count` on one run.

    keep_going is asked between batches, may_start before each shard. waits: for shards that others are making, to take
    over where one of them dies; a Slurm worker does not, since its driver sees to that. only: the shards to make, None
    for all. sharers: how many workers use this one's GPU. on_commit is called after each shard.
    """

    run: Run
    open_generator: OpenGenerator
    index: int = 0
    count: int = 1
    keep_going: Callable[[], bool] = always
    may_start: Callable[[], bool] = always
    waits: bool = True
    only: frozenset[int] | None = None
    sharers: int = 1
    on_commit: Callable[[], object] = always


@dataclass(frozen=True)
class Tools:
    """What a worker opens once: the generator, the source of queries, the energy counters."""

    make_shard: MakeShard
    queries_of: Callable
    meter: Meter


def _open_tools(worker: Worker) -> Tools:
    run = worker.run
    with timed("bank and models opened"):
        make_shard = worker.open_generator(run.plan)
    gc.freeze()  # what is open stays open: the collector need not look through it each time
    return Tools(make_shard, query_source(run.request, run.folder), Meter(run.request.device, worker.sharers))


def run_worker(worker: Worker) -> None:
    """Make shards until none is missing but failed ones, or another run has finished the dataset.

    Raises UserError on a full disk, Stopped where keep_going or may_start says no, KeyboardInterrupt on SIGINT and
    SIGTERM.
    """
    with sigterm_as_interrupt():
        todo = _unsettled(worker, stripe_order(worker.run.shards, worker.index, worker.count))
        tools = _open_tools(worker) if todo else None
        while todo and not worker.run.is_over:
            took = _take_some(worker, tools, todo)
            todo = _unsettled(worker, todo)
            if todo and not took:
                if not worker.waits:
                    return
                _check(worker)
                time.sleep(POLL_S)


def stripe_order(shards: Sequence[Shard], index: int, count: int) -> list[Shard]:
    """Own stripe first; then the others' from their far end, where their owners come last."""
    own = [shard for shard in shards if shard.index % count == index]
    return own + [shard for shard in reversed(shards) if shard.index % count != index]


def _is_own(worker: Worker, shard: Shard) -> bool:
    return shard.index % worker.count == worker.index


def _unsettled(worker: Worker, shards: Sequence[Shard]) -> list[Shard]:
    """Those of the worker's that have neither receipt nor failure; none where the run is over.

    Of others' stripes receipts are listed and not read: a thousand workers that read 25,000 each would keep a file system busy
    for hours. One that is not valid is seen by its own worker, or by the driver.
    """
    try:
        receipts, failures = set(os.listdir(worker.run.receipts)), set(os.listdir(worker.run.failures))
    except FileNotFoundError:
        return []
    wanted = [shard for shard in shards if worker.only is None or shard.index in worker.only]
    left = [shard for shard in wanted if f"{shard.index}.txt" not in failures]
    return [shard for shard in left if f"{shard.index}.json" not in receipts
            or (_is_own(worker, shard) and read_receipt(worker.run, shard.index) is None)]  # fmt: skip


def _take_some(worker: Worker, tools: Tools, todo: Sequence[Shard]) -> bool:
    """Make what can be had of the own stripe, or one shard of another's: then it is time to look again what others have made.
    Whether there was any.
    """
    took = False
    for shard in todo:
        took = _take(worker, tools, shard) or took
        if took and not _is_own(worker, shard):
            break
    return took


def _is_settled(worker: Worker, shard: Shard) -> bool:
    done = read_receipt(worker.run, shard.index) is not None
    return done or worker.run.failure(shard.index).exists()


def _check(worker: Worker) -> None:
    if not worker.keep_going():
        raise Stopped


def _take(worker: Worker, tools: Tools, shard: Shard) -> bool:
    """Make one shard if nobody else is at it. True where something was done about it."""
    if _is_settled(worker, shard):
        return False
    _check(worker)
    if not worker.may_start():
        raise Stopped
    claim, committed = None, False
    try:
        claim = claim_shard(worker.run, shard, batch_of(worker.run, shard.index))
        if claim and not _is_settled(worker, shard):  # looked at again: its maker may have ended just before the claim
            committed = _make(worker, tools, claim)
    except Exception as error:
        _handle(worker, shard, claim, error)
    finally:
        if claim:
            claim.release()
    if committed:
        worker.on_commit()
    return claim is not None


def _make(worker: Worker, tools: Tools, claim: Claim) -> bool:
    """Whether the shard was committed."""
    def on_batch(done_records: float) -> None:
        claim.beat(done_records)
        _check(worker)

    start = tools.meter.read()
    with timed(f"shard {claim.shard.index}, made"):
        made = tools.make_shard(claim.shard, claim.batch, tools.queries_of, on_batch)
    with timed(f"shard {claim.shard.index}, written"):
        built = _build(worker.run.plan, claim, made)
    _check(worker)
    if claim.batch != batch_of(worker.run, claim.shard.index):  # thought dead for want of memory, and decided anew
        return False
    commit_shard(worker.run, claim, built, tools.meter.since(start))
    return True


def _build(plan: Plan, claim: Claim, made):
    if plan.request.is_streamed:
        from ecg_batch.dataset.write_streamed import build_streamed

        return build_streamed(plan, claim.shard, made, claim.staging)
    from ecg_batch.dataset.write import build_shard

    ecg, rows, *beats = made
    return build_shard(plan, claim.shard, ecg, rows, claim.staging, *beats)


def _handle(worker: Worker, shard: Shard, claim: Claim | None, error: Exception) -> None:
    """Stop, go on quietly, have it made with a smaller batch, or put it aside. What is not understood is its own failure."""
    if isinstance(error, Stopped):
        raise error
    if getattr(error, "errno", None) in DISK_FULL:
        raise UserError(disk_full_text(worker.run)) from error
    if claim is None:
        if not isinstance(error, FileNotFoundError):
            raise error
        return  # the run is over
    if _is_lost(worker, claim):
        return
    if is_out_of_memory(error) and halve(worker.run, shard.index, claim.batch):
        return
    head = f"shard {shard.index}, records {shard.start} to {shard.stop - 1}, on {node_name()}, attempt {claim.attempt}"
    trace = "".join(traceback.format_exception(error))
    try:
        worker.run.failure(shard.index).write_text(f"{head}\n\n{trace}", encoding="utf-8")
    except OSError as full:
        if full.errno in DISK_FULL:
            raise UserError(disk_full_text(worker.run)) from error
        raise


def _is_lost(worker: Worker, claim: Claim) -> bool:
    """Whether another worker took the shard over, or the run is over. Whatever went wrong here then comes of that: the staging
    folder vanishes file by file under its maker. A newer claim is there before the older one is removed.
    """
    newer = any(progress.attempt > claim.attempt for progress in read_progress(worker.run, claim.shard.index))
    return newer or not claim.staging.exists() or read_receipt(worker.run, claim.shard.index) is not None


def disk_full_text(run: Run) -> str:
    left = sum(shard.records for shard in missing(run))
    raw_mb = left * 12 * run.request.samples * 2 / 1e6
    return (
        f"{run.folder}: the disk (or quota) is full. {number_of(left, 'record', 'are')} still to be made, at most {raw_mb:,.0f} "
        "MB. Free space and run the same command again; finished shards are kept"
    )


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the worker as Ctrl-C does."""
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
