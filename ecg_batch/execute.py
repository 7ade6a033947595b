"""Execute: run the missing shards of a plan, in this process or in several through submitit, then finalise.

Whatever happens to the workers, receipts decide: the driver starts workers until no shard is missing but failed ones.
"""

import errno
import fcntl
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ecg_batch.cluster import Cluster, load_cluster
from ecg_batch.commit import missing
from ecg_batch.errors import UserError
from ecg_batch.finalise import finalise
from ecg_batch.plan import FAILURES, PLAN, Plan, Shard, final_name, make_plan, open_run, partial_of
from ecg_batch.request import Request
from ecg_batch.request_file import load_request
from ecg_batch.status import describe_finished, describe_kept, look, read_failures, read_manifest
from ecg_batch.worker import DISK_FULL, Generator, Stopped, Task, disk_full_text, run_worker, sigterm_as_interrupt

GRACE_S = 20.0  # for workers to end by themselves after a signal; then they are left to notice the dropped leash
FOREVER_MIN = 60 * 24 * 3650  # submitit ends a local job after 2 min unless told otherwise


class ShardsFailed(Exception):
    """Some shards failed by themselves; the others are done and kept."""


def synthesize_job(
    path: Path,
    overrides: Sequence[str],
    out: Path,
    workers: int,
    generator: Generator,
    cluster: Path | None = None,
    only: frozenset[int] | None = None,
) -> int:
    """jobs/synthesize.py: what `synthesize` does, told to the user. Returns the exit status."""
    out = final_name(out)
    try:
        with sigterm_as_interrupt():
            already = (out / PLAN).exists()
            where = load_cluster(cluster) if cluster else None
            synthesize(load_request(path, overrides), out, workers, generator, where, only)
        if (out / PLAN).exists():
            print(describe_finished(out, read_manifest(out)) + (" (nothing was left to do)" if already else ""))
        else:
            print(f"the chosen shards are made; {describe_kept(out)}, without --only")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ShardsFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted: {describe_kept(out)}", file=sys.stderr)
        return 130
    return 0


def synthesize(
    request: Request,
    out: Path,
    workers: int,
    generator: Generator,
    cluster: Cluster | None = None,
    only: frozenset[int] | None = None,
) -> None:
    """Make the dataset `out`, or what is missing of it, in so many local processes or in tasks on a cluster. Returns when
    it is finished, by this run or by another; with `only`, when these shards are made.

    Raises UserError for what the user can mend, ShardsFailed where shards failed by themselves.
    """
    plan, table = make_plan(request)
    _refuse_unplanned(plan, only)
    try:
        folder = open_run(plan, table, out)
        if folder == out:
            return
        if cluster:
            from ecg_batch.driver import run_on_cluster

            forget_failures(folder)
            with progress_bar(plan, folder):
                run_on_cluster(plan, folder, cluster, generator, only)
            refuse_failures(plan, folder)
        else:
            run_missing(plan, folder, workers, generator, only)
        if only is None or not missing(plan, folder):
            finalise(plan, out)
    except FileNotFoundError:
        if not (out / PLAN).exists():  # else another run has just finished and renamed it
            raise
    except OSError as error:
        _explain(error, plan, partial_of(out))
        raise


def _explain(error: OSError, plan: Plan, folder: Path) -> None:
    if error.errno in DISK_FULL:
        raise UserError(disk_full_text(plan, folder)) from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise UserError(f"{folder}: cannot be written: {error}. Give an --out that you may write to") from error


def _refuse_unplanned(plan: Plan, only: frozenset[int] | None) -> None:
    if unknown := sorted((only or set()) - set(range(len(plan.shards)))):
        raise UserError(
            f"--only {', '.join(map(str, unknown))}: the plan has shards 0 to {len(plan.shards) - 1}. Give some of these"
        )


def run_missing(plan: Plan, folder: Path, workers: int, generator: Generator, only: frozenset[int] | None = None) -> None:
    """Run workers until no shard is missing; only: of these. Shards that failed in a former run get another try."""
    forget_failures(folder)
    with progress_bar(plan, folder):
        todo = _unsettled(plan, folder, only)
        while todo:
            problems = _round(plan, folder, workers, generator, only)
            before, todo = todo, _unsettled(plan, folder, only)
            if len(todo) >= len(before):
                problems.append(f"{folder}: changed under the run. Run the same command again")
                raise UserError(problems[0])
    refuse_failures(plan, folder)


def forget_failures(folder: Path) -> None:
    for path in (folder / FAILURES).glob("*.txt"):
        path.unlink(missing_ok=True)


def refuse_failures(plan: Plan, folder: Path) -> None:
    """ShardsFailed naming the shards that failed and were not made since."""
    failed = read_failures(folder, {})
    if failed and missing(plan, folder):
        named = "; ".join(f"shard {shard}: {line}" for shard, line in list(failed.items())[:5])
        raise ShardsFailed(
            f"{len(failed)} of {len(plan.shards)} shards failed: {named}{' ...' if len(failed) > 5 else ''}. Their "
            f"tracebacks are in {folder / FAILURES}; the others are done. After mending the cause, run the same "
            "command again"
        )


def _round(plan: Plan, folder: Path, workers: int, generator: Generator, only: frozenset[int] | None) -> list[str]:
    """Have missing shards made. What went wrong, in words; whether that matters, the receipts say."""
    if workers > 1:
        return run_workers(plan, folder, workers, generator, only)
    run_worker(Task(plan, folder, generator, only=only))
    return []


def _unsettled(plan: Plan, folder: Path, only: frozenset[int] | None) -> list[Shard]:
    """Missing shards that have not failed; none where another run has finished the dataset."""
    if not (folder / PLAN).exists():
        return []
    failed = read_failures(folder, {})
    return [shard for shard in missing(plan, folder, only) if shard.index not in failed]


# Workers as processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leash:
    """A file the driver holds locked. The kernel drops the lock with the driver, however that dies, so a worker that
    can lock the file is alone. (A process id would not do: it can be given away again.)
    """

    path: str

    def held(self) -> bool:
        try:
            with open(self.path) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False


def local_task(task: Task) -> str:
    """What a worker process runs. Returns what the driver is to tell the user, "" where all went well."""
    try:
        run_worker(task)
    except UserError as error:
        return str(error)
    except (Stopped, KeyboardInterrupt):
        pass
    except Exception:
        return f"worker {task.index} failed outside of any shard:\n{traceback.format_exc()}"
    return ""


def run_workers(plan: Plan, folder: Path, workers: int, generator: Generator, only: frozenset[int] | None = None) -> list[str]:
    """One round of worker processes, each with its stripe of the missing shards. What went wrong, in words."""
    count = min(workers, len(missing(plan, folder, only)))
    # kept out of the dataset's folder: submitit leaves pickles and logs, and they are of no use after the round
    with TemporaryDirectory(prefix="ecg-batch-", ignore_cleanup_errors=True) as scratch, _leash(scratch) as leash:
        sharers = _gpu_sharers(plan, count)
        tasks = [Task(plan, folder, generator, index, count, leash.held, only=only, sharers=sharers) for index in range(count)]
        jobs = _submit(tasks, scratch)
        try:
            while not all(job.done() for job in jobs):
                time.sleep(0.05)
            return [problem for job in jobs if (problem := _problem(job))]
        finally:
            os.unlink(leash.path)  # whoever still runs ends after its batch
            _end(jobs)


@contextmanager
def _leash(scratch: str) -> Iterator[Leash]:
    path = os.path.join(scratch, "leash")
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Leash(path)


def _submit(tasks: list[Task], scratch: str) -> list:
    import submitit

    executor = submitit.LocalExecutor(folder=scratch)
    # Processes started while SIGINT is ignored go on ignoring it: Ctrl-C is for the driver, which then ends them.
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        jobs = []
        for task in tasks:
            executor.update_parameters(timeout_min=FOREVER_MIN, **_gpu(task))
            jobs.append(executor.submit(local_task, task))
        return jobs
    finally:
        signal.signal(signal.SIGINT, former)


def _gpu(task: Task) -> dict:
    """The GPU of a worker: they take turns. submitit hides all GPUs from a job that asks for none."""
    if task.plan.request.device != "cuda":
        return {}
    import torch

    return {"gpus_per_node": 1, "visible_gpus": (task.index % max(torch.cuda.device_count(), 1),)}


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


@contextmanager
def progress_bar(plan: Plan, folder: Path) -> Iterator[None]:
    """A bar over records, fed by receipts and heartbeats, whoever makes them. Nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    over, known = threading.Event(), {}
    with tqdm(total=plan.request.records, unit=" records", smoothing=0.1) as bar:

        def show() -> None:
            status = look(plan, folder, known)
            bar.set_postfix_str(f"{len(status.receipts)}/{len(plan.shards)} shards", refresh=False)
            bar.update(status.records_done - bar.n)

        show()
        bar.initial = bar.n  # what a former run made does not count for the speed
        thread = threading.Thread(target=lambda: [show() for _ in iter(lambda: over.wait(0.5), True)], daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            show()
