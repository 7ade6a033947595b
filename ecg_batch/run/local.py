"""Execute: run the missing shards of a plan, in this process or in several through submitit, then finalise.

Whatever happens to the workers, receipts decide: the driver starts workers until no shard is missing but failed ones.
"""

import errno
import fcntl
import logging
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

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
from ecg_batch.run.identity import is_gone, own_process
from ecg_batch.run.planning import make_plan
from ecg_batch.run.slurm.cluster import Cluster
from ecg_batch.run.status import look, read_failures
from ecg_batch.run.worker import DISK_FULL, OpenGenerator, Stopped, Worker, disk_full_text, run_worker

log = logging.getLogger(__name__)

LOOK_S = 1.0  # between looks at the receipts
GRACE_S = 20.0  # for workers to end by themselves after a signal; then they are left to notice the dropped parent_lock
SCRATCH_BYTES = 2**14  # for a worker: its task, its result and its logs
FOREVER_MIN = 60 * 24 * 3650  # submitit ends a local job after 2 min unless told otherwise


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
    this process is the one to use it. elsewhere: other machines are; whether they have a GPU shows there.
    """
    if elsewhere and plan.request.device != "cpu":
        return open_generator
    if workers > 1 and plan.request.device != "cpu":  # a context on the GPU would stay beside the workers'
        import torch

        if torch.cuda.is_available():
            return open_generator
    with timed("bank and models tried"):
        generator = open_generator(plan)
    return open_generator if elsewhere or workers > 1 else lambda plan: generator


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
    with run_progress(run):
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
    known: dict[int, dict] = {}
    run_worker(Worker(run, open_generator, only=only, on_commit=lambda: flags.look(read_receipts(run, known))))
    return []


def _unsettled(run: Run, only: frozenset[int] | None) -> list[Shard]:
    """Missing shards that have not failed; none where another run has finished the dataset."""
    if not (run.folder / PLAN).exists():
        return []
    failed = read_failures(run, {})
    return [shard for shard in missing(run, only) if shard.index not in failed]


# Workers as processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParentLock:
    """A file the driver holds locked. The kernel drops the lock with the driver, however that dies, so a worker that
    can lock the file is alone. (A process id would not do: it can be given away again.) Where the file system knows no locks, the
    driver is named by its process's start as well.
    """

    path: str
    driver: dict | None = None  # where there are no locks: identity.own_process() of the driver

    def held(self) -> bool:
        try:
            if self.driver is not None:
                return os.path.exists(self.path) and not is_gone(self.driver)
            with open(self.path) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False


def run_as_process(worker: Worker) -> str:
    """What a worker process runs. Returns what the driver is to tell the user, "" where all went well."""
    try:
        run_worker(worker)
    except UserError as error:
        return str(error)
    except (Stopped, KeyboardInterrupt):
        pass
    except Exception:
        return f"worker {worker.index} failed outside of any shard:\n{traceback.format_exc()}"
    return ""


def run_workers(run: Run, workers: int, open_generator: OpenGenerator, only: frozenset[int] | None, flags: FlagWatch) -> list[str]:
    """One round of worker processes, each with its stripe of the missing shards. What went wrong, in words."""
    count = min(workers, len(missing(run, only)))
    # kept out of the dataset's folder: submitit leaves pickles and logs, and they are of no use after the round
    with TemporaryDirectory(prefix="ecg-batch-", ignore_cleanup_errors=True) as scratch, _parent_lock(scratch) as parent_lock:
        _try_scratch(scratch, count)
        sharers = _gpu_sharers(run.plan, count)
        one_of = partial(Worker, run, open_generator, count=count, keep_going=parent_lock.held, only=only, sharers=sharers)
        jobs = _submit([one_of(index=index) for index in range(count)], scratch)
        try:
            known, looked = {}, time.monotonic()
            while not all(job.done() for job in jobs):
                time.sleep(0.05)
                if time.monotonic() - looked > LOOK_S:
                    flags.look(read_receipts(run, known))
                    looked = time.monotonic()
            return [problem for job in jobs if (problem := _problem(job))]
        finally:
            os.unlink(parent_lock.path)  # whoever still runs ends after its batch
            _end(jobs)


def _try_scratch(scratch: str, workers: int) -> None:
    """OSError where the disk of temporary files is full. A worker that was started and cannot be given its task waits a minute for
    it, also when all else has ended.
    """
    path = os.path.join(scratch, "trial")
    with open(path, "wb") as file:
        file.write(bytes(SCRATCH_BYTES * workers))
    os.unlink(path)


@contextmanager
def _parent_lock(scratch: str) -> Iterator[ParentLock]:
    path = os.path.join(scratch, "parent_lock")
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            driver = None
        except OSError as error:
            log.debug("%s: no locks here: %s", path, error)
            driver = own_process()
        yield ParentLock(path, driver)


def _submit(workers: list[Worker], scratch: str) -> list:
    import submitit

    executor = submitit.LocalExecutor(folder=scratch)
    # Processes started while SIGINT is ignored go on ignoring it: Ctrl-C is for the driver, which then ends them.
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        jobs = []
        for worker in workers:
            executor.update_parameters(timeout_min=FOREVER_MIN, **_gpu(worker))
            jobs.append(executor.submit(run_as_process, worker))
        return jobs
    finally:
        signal.signal(signal.SIGINT, former)


def _gpu(worker: Worker) -> dict:
    """The GPU of a worker: they take turns. submitit hides all GPUs from a job that asks for none."""
    if worker.run.request.device != "cuda":
        return {}
    import torch

    return {"gpus_per_node": 1, "visible_gpus": (worker.index % max(torch.cuda.device_count(), 1),)}


def _gpu_sharers(plan: Plan, workers: int) -> int:
    if plan.request.device != "cuda":
        return 1
    import torch

    return -(-workers // max(torch.cuda.device_count(), 1))


def _problem(job) -> str:
    if job.paths.result_pickle.exists():  # where it is absent, result() would wait 15 s for it
        return job.result()
    last = ((job.stderr() or "").strip().splitlines() or ["without a word"])[-1]
    return f"worker {job.job_id} died ({last}); killed, or out of memory? Run the same command with fewer workers"


def _end(jobs: list) -> None:
    """Ask workers that still run to end, and wait for them a while."""
    for job in jobs:
        if not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)  # the id of a local job is its controller's process id
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and not all(job.done() for job in jobs):
        time.sleep(0.05)


# Progress -------------------------------------------------------------------------------------------------------------


def run_progress(run: Run) -> AbstractContextManager:
    """Progress over records, fed by receipts and heartbeats, whoever makes them."""
    known: dict[int, dict] = {}

    def see(shown: Progress) -> None:
        with suppress(FileNotFoundError):  # another run has just finished the dataset and renamed its folder
            status = look(run, known)
            shown.done, shown.note = status.records_done, f"{len(status.receipts):,} of {number_of(len(run.shards), 'shard')}"

    return progress(run.request.records, "", "records", look=see)
