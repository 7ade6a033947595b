"""Execute: run the missing shards of a plan, in this process or in several, then finalise.

Whatever happens to the workers, receipts decide: the driver starts workers until no shard is missing but failed ones.
"""

import errno
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from ecg_batch.arrow import leave_pandas_out
from ecg_batch.dataset.finalise import finalise
from ecg_batch.dataset.layout import PLAN, Shard, partial_of
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import missing, read_receipts
from ecg_batch.dataset.run import Run
from ecg_batch.errors import ShardsFailed, UserError, number_of, shown_path
from ecg_batch.kernels.build import why_plain
from ecg_batch.progress import Progress, progress, timed
from ecg_batch.request.model import Request
from ecg_batch.run.flagged import FlagWatch
from ecg_batch.run.folder import give_back, open_run, place_of
from ecg_batch.run.planning import make_plan
from ecg_batch.run.slurm.cluster import Cluster
from ecg_batch.run.status import look, read_failures
from ecg_batch.run.worker import DISK_FULL, MakeShard, OpenGenerator, Stopped, Worker, disk_full_text, run_worker

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between looks at the receipts
GRACE_S = 20.0  # for workers to end by themselves after a signal; then they are killed
ENDING = (signal.SIGINT, signal.SIGTERM)
MOST_SAID = 15_000  # characters that a worker says at its end: a pipe takes 64 kB before anybody reads


def synthesize(
    request: Request,
    out: Path,
    workers: int,
    open_generator: OpenGenerator,
    cluster: Cluster | None = None,
    only: frozenset[int] | None = None,
) -> None:
    """Make the dataset `out`, or what is missing of it, in so many local processes or in tasks on a cluster. Returns when
    it is finished, by this run or by another; with `only`, when these shards are made.

    Raises UserError for what the user can mend, ShardsFailed where shards failed by themselves.
    """
    out = place_of(out)
    with timed("plan"):
        plan, table = make_plan(request)
    _refuse_unplanned(plan, only)
    if reason := why_plain():
        log.warning("no compiled kernels (%s): plain torch is used, at about a fifth of the speed", reason)
    if cluster:
        from ecg_batch.run.slurm.driver import refuse_cluster

        refuse_cluster(plan, cluster, out)
    is_new = not (out.exists() or partial_of(out).exists())
    if is_new:
        open_generator = _tried(plan, workers, open_generator, bool(cluster))
    try:
        run = open_run(plan, table, out)
        if run.is_finished:
            return
        try:
            _make(run, workers, open_generator, cluster, only)
        except (UserError, OSError):
            if is_new:
                give_back(run)
            raise
        if only is None or not missing(run):
            with timed("finalise"):
                finalise(run)
    except FileNotFoundError:
        if not (out / PLAN).exists():  # else another run has just finished and renamed it
            raise
    except OSError as error:
        _explain(error, Run(plan, partial_of(out)))
        raise


def _tried(plan: Plan, workers: int, open_generator: OpenGenerator, elsewhere: bool) -> OpenGenerator:
    """The generator opened before anything is written: weights that do not fit and a GPU that is not there show here. Kept where
    this process or a fork of it is to use it. elsewhere: other machines are; whether they have a GPU shows there.
    """
    if elsewhere and plan.request.device != "cpu":
        return open_generator
    if workers > 1 and plan.request.device != "cpu":  # a context on the GPU would stay beside the workers'
        import torch

        if torch.cuda.is_available():
            return open_generator
    kept = opened_once(open_generator)
    with timed("bank and models tried"):
        kept(plan)
    return open_generator if elsewhere or not _inherited(plan, workers) else kept


def _make(run: Run, workers: int, open_generator: OpenGenerator, cluster: Cluster | None, only: frozenset[int] | None) -> None:
    if not cluster:
        run_missing(run, workers, open_generator, only)
        return
    from ecg_batch.run.slurm.driver import run_on_cluster

    forget_failures(run)
    with run_progress(run):
        run_on_cluster(run, cluster, open_generator, only)
    refuse_failures(run)


def _explain(error: OSError, run: Run) -> None:
    if error.errno in DISK_FULL:
        raise UserError(disk_full_text(run)) from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else run.folder
        if named.parent != run.folder.parent and run.folder not in (named, *named.parents):
            raise UserError(f"{shown_path(named)}: {error.strerror}, and the run needs it. See to its permissions") from error
        raise UserError(f"{run.folder}: cannot be written: {error}. Give an --out that you may write to") from error
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR):
        raise UserError(f"{shown_path(run.folder)}: no folder can be made there: {error.strerror}. Give another --out") from error


def _refuse_unplanned(plan: Plan, only: frozenset[int] | None) -> None:
    if unknown := sorted((only or set()) - set(range(len(plan.shards)))):
        raise UserError(
            f"--only {', '.join(map(str, unknown))}: the plan has shards 0 to {len(plan.shards) - 1}. Give some of these"
        )


def run_missing(run: Run, workers: int, open_generator: OpenGenerator, only: frozenset[int] | None = None) -> None:
    """Run workers until no shard is missing; only: of these. Shards that failed in a former run get another try."""
    forget_failures(run)
    flags = FlagWatch(seen=set(read_receipts(run)))
    if _inherited(run.plan, workers):
        open_generator = opened_once(open_generator)
    todo = _unsettled(run, only)
    while todo:
        problems = _round(run, workers, open_generator, only, flags)
        before, todo = todo, _unsettled(run, only)
        if len(todo) >= len(before):
            problems.append(f"{run.folder}: changed under the run. Run the same command again")
            raise UserError(problems[0])
    refuse_failures(run)


def forget_failures(run: Run) -> None:
    for path in run.failures.glob("*.txt"):
        path.unlink(missing_ok=True)


def refuse_failures(run: Run) -> None:
    """ShardsFailed naming the shards that failed and were not made since."""
    failed = read_failures(run, {})
    if failed and missing(run):
        named = "; ".join(f"shard {shard}: {line}" for shard, line in list(failed.items())[:5])
        raise ShardsFailed(
            f"{len(failed)} of {number_of(len(run.shards), 'shard')} failed: {named}{' ...' if len(failed) > 5 else ''}. Their "
            f"tracebacks are in {run.failures}; the others are done. After mending the cause, run the same "
            "command again"
        )


def _round(run: Run, workers: int, open_generator: OpenGenerator, only: frozenset[int] | None, flags: FlagWatch) -> list[str]:
    """Have missing shards made. What went wrong, in words; whether that matters, the receipts say."""
    if workers > 1:
        return run_workers(run, workers, open_generator, only, flags)
    with run_progress(run):
        run_worker(Worker(run, open_generator, only=only, on_commit=partial(_look, run, flags, {})))
    return []


def _look(run: Run, flags: FlagWatch, known: dict[int, dict]) -> None:
    flags.look(read_receipts(run, known))


def _unsettled(run: Run, only: frozenset[int] | None) -> list[Shard]:
    """Missing shards that have not failed; none where another run has finished the dataset."""
    if not (run.folder / PLAN).exists():
        return []
    failed = read_failures(run, {})
    return [shard for shard in missing(run, only) if shard.index not in failed]


# Workers as processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A worker as a process. said: where it says at its end what the driver is to tell the user, "" where all went well."""

    index: int
    process: BaseProcess
    said: Connection


def way_to_start(plan: Plan) -> str:
    """How workers are started. A forked one has all that its driver has imported and read, at once and in the same memory; but a
    driver that has looked for GPUs must not be forked, and other systems have libraries that do not bear it.
    """
    return "fork" if sys.platform == "linux" and plan.request.device == "cpu" else "spawn"


def _inherited(plan: Plan, workers: int) -> bool:
    """Whether this process opens bank and models for whoever makes shards."""
    return workers == 1 or way_to_start(plan) == "fork"


def opened_once(open_generator: OpenGenerator) -> OpenGenerator:
    """The same, that opens bank and models the first time only: for this process, and for those that are forked from it later."""
    opened = []

    def give(plan: Plan) -> MakeShard:
        if not opened:
            opened.append(open_generator(plan))
        return opened[0]

    return give


def run_workers(run: Run, workers: int, open_generator: OpenGenerator, only: frozenset[int] | None, flags: FlagWatch) -> list[str]:
    """One round of worker processes, each with its stripe of the missing shards. What went wrong, in words."""
    count, context, gpus = min(workers, len(missing(run, only))), get_context(way_to_start(run.plan)), _gpus(run.plan)
    if _inherited(run.plan, workers):
        open_generator(run.plan)
    sharers = -(-count // max(len(gpus), 1))
    worker = Worker(run, open_generator, count=count, keep_going=partial(_is_parent, os.getpid()), only=only, sharers=sharers)
    jobs: list[Job] = []
    try:
        for index in range(count):
            jobs.append(_start(context, replace(worker, index=index), gpus[index % len(gpus)] if gpus else None))
        with run_progress(run):  # after all are started: its thread could hold a lock at a fork
            return _said_at_the_end(jobs, partial(_look, run, flags, {}))
    finally:
        _end(jobs)


def _is_parent(pid: int) -> bool:
    """Whether the process that started this one still lives; when it has died, another is the parent."""
    return os.getppid() == pid


def _start(context: BaseContext, worker: Worker, gpu: str | None) -> Job:
    said, says = context.Pipe(duplex=False)
    process = context.Process(target=run_as_process, args=(worker, gpu, says), daemon=True)
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the worker has handlers of its own, and not ours
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        says.close()  # here, so that it is at its end when the worker is
    return Job(worker.index, process, said)


def run_as_process(worker: Worker, gpu: str | None, says: Connection) -> None:
    """What a worker process runs. gpu: the only one that it is to see. Ctrl-C is for the driver, which then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    leave_pandas_out()
    with suppress(BrokenPipeError):  # the driver has died
        says.send(_run_to_the_end(worker)[-MOST_SAID:])


def _run_to_the_end(worker: Worker) -> str:
    try:
        run_worker(worker)
    except UserError as error:
        return str(error)
    except (Stopped, KeyboardInterrupt):
        pass
    except Exception:
        return f"worker {worker.index} failed outside of any shard:\n{traceback.format_exc()}"
    return ""


def _said_at_the_end(jobs: list[Job], look: Callable[[], None]) -> list[str]:
    """Waits for all; what went wrong, in words. look is called now and then."""
    problems, running = [], {job.said: job for job in jobs}
    while running:
        for said in wait(list(running), timeout=LOOK_S):
            problems.append(_problem(running.pop(said)))
            if problems[-1] and running:
                log.warning("%s. The others go on", problems[-1])
        look()
    return [problem for problem in problems if problem]


def _problem(job: Job) -> str:
    with suppress(EOFError, OSError):  # nothing was said, or a part of it
        return job.said.recv()
    job.process.join()
    how = job.process.exitcode
    how = _signal_name(-how) if how < 0 else f"exit status {how}"
    return f"worker {job.index} died ({how}); killed, or out of memory? Run the same command with fewer workers"


def _signal_name(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")  # those for real time have no names


def _end(jobs: list[Job]) -> None:
    """Ask workers that still run to end, and wait for them a while; what they make is lost then, and nothing else."""
    for job in jobs:
        job.process.terminate()
    deadline = time.monotonic() + GRACE_S
    for job in jobs:
        job.process.join(max(deadline - time.monotonic(), 0))
        if job.process.is_alive():
            job.process.kill()
            job.process.join(1.0)
        job.said.close()


def _gpus(plan: Plan) -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them; workers take turns. None for a run on the CPU."""
    if plan.request.device != "cuda":
        return []
    import torch

    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",") if shown else [str(gpu) for gpu in range(torch.cuda.device_count())]


# Progress -------------------------------------------------------------------------------------------------------------


def run_progress(run: Run) -> AbstractContextManager:
    """Progress over records, fed by receipts and heartbeats, whoever makes them."""
    known: dict[int, dict] = {}

    def see(shown: Progress) -> None:
        with suppress(FileNotFoundError):  # another run has just finished the dataset and renamed its folder
            status = look(run, known)
            shown.done, shown.note = status.records_done, f"{len(status.receipts):,} of {number_of(len(run.shards), 'shard')}"

    return progress(run.request.records, "", "records", look=see)
