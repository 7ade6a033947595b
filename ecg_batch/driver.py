"""Driver: keeps tasks for what is missing in Slurm's queue until every shard has its receipt or has failed.

Receipts are the truth. The queue is asked, by one squeue call in poll_s seconds, only for what to do about shards that
are missing: whether tasks for them are on their way, and whether the maker of a claim still exists. So the driver may
be killed at any moment, and the next one finds the former's tasks in the queue by their name.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecg_batch.batch import batch_of, halve
from ecg_batch.claim import Progress, age, read_progress
from ecg_batch.cluster import TASKS, Cluster, cut_arrays, sbatch_parameters
from ecg_batch.commit import read_receipts
from ecg_batch.errors import UserError
from ecg_batch.files import remove_tree
from ecg_batch.plan import FAILURES, PLAN, Plan, Shard, final_name
from ecg_batch.slurm import Job, ask_out_of_memory, ask_queue, cancel_pending, forget_own_job, max_array_size, require_slurm
from ecg_batch.status import read_failures
from ecg_batch.task import ClusterTask, run_cluster_task
from ecg_batch.worker import Generator, failure_path

LOOK_S = 2.0  # between looks at the receipts
SPEAK_S = 300.0  # between lines that say how far the run is
PATIENCE_S = 3600.0  # with no answer from Slurm and no new shard
REFUSALS = 3  # of sbatch in a row, with none of our tasks in the queue: a controller that restarts refuses once or twice
DEATHS = 3  # of the makers of one shard, without a word, before it is put aside as failed
UNNAMED_S = 600.0  # a file of submitit's that was not given its job's id by then never will be
LEAVE_S = 30.0  # for tasks to end by themselves when all is made


def job_name(plan: Plan, only: frozenset[int] | None) -> str:
    """By this the tasks of a run are found in the queue, whoever submitted them."""
    return f"ecg-{plan.run_id[:12]}" + ("-only" if only else "")


def logs_of(folder: Path) -> Path:
    """Beside the dataset, not in it: logs are no part of what is verified and published."""
    out = final_name(folder.absolute())  # a setup line may change the folder
    return out.with_name(f"{out.name}.logs")


@dataclass
class Driver:
    """One driver of one run, and what it remembers between two looks."""

    plan: Plan
    folder: Path
    cluster: Cluster
    generator: Generator
    only: frozenset[int] | None
    receipts: dict[int, dict] = field(default_factory=dict)
    barren: int = 0  # submissions in a row that brought no shard
    refused: int = 0
    done_at_submission: int = 0
    heard: float = field(default_factory=time.monotonic)  # last answer of Slurm, or last new shard
    spoke: float = 0.0

    @property
    def name(self) -> str:
        return job_name(self.plan, self.only)

    @property
    def logs(self) -> Path:
        return logs_of(self.folder)

    # Looking

    def unsettled(self) -> list[Shard]:
        """Shards to make that have neither receipt nor failure; none where another run has finished the dataset."""
        if not (self.folder / PLAN).exists():
            return []
        before = len(self.receipts)
        read_receipts(self.plan, self.folder, self.receipts)
        if len(self.receipts) > before:
            self.heard = time.monotonic()
        settled = self.receipts.keys() | read_failures(self.folder, self.receipts).keys()
        chosen = self.only if self.only is not None else range(len(self.plan.shards))
        return [shard for shard in self.plan.shards if shard.index in chosen and shard.index not in settled]

    def step(self) -> None:
        """Ask Slurm once, and see to it that enough tasks are on their way."""
        claims, files = read_progress(self.folder), list(self._task_files())  # before the queue: see _free_claims
        queue = ask_queue(self.name)
        if queue is None:
            self._without_answer(claims)
            return
        self.heard = time.monotonic()
        self._free_claims(claims, queue)
        _remove_files(files, queue)
        todo = self.unsettled()  # without what was just put aside
        elsewhere = {claim.shard for claim in claims if claim.is_fresh and not claim.job}  # made by workers outside of Slurm
        beating, silent = (
            {claim.job for claim in claims if claim.is_fresh == fresh and not claim.is_freed} for fresh in (True, False)
        )
        hung = {job.id for job in queue if job.is_at_work and job.incarnation in silent - beating}
        live = [job for job in queue if job.is_live and job.id not in hung]
        self._speak(todo, queue)
        wanted = self.cluster.tasks_for(len([shard for shard in todo if shard.index not in elsewhere]))
        if wanted > len(live):
            self._submit(wanted - len(live), bool(live))

    def _free_claims(self, claims: list[Progress], queue: list[Job]) -> None:
        """Make claims stale whose makers Slurm does not have any more. The claims were read before the queue, so a maker
        that is not in it was gone by then.
        """
        at_work = {job.incarnation for job in queue if job.is_at_work}
        gone = [claim for claim in claims if claim.job and claim.job not in at_work]
        starved = ask_out_of_memory(self.name) if gone else set()
        for claim in gone:
            age(self.folder, claim)
            if claim.job in starved and claim.batch and self._halve(claim):
                continue
            if claim.attempt >= DEATHS:
                self._put_aside(claim, claim.job in starved)

    def _halve(self, claim: Progress) -> bool:
        """Have a shard that ran out of memory made with half the batch, where the request allows it."""
        former = batch_of(self.plan, self.folder, claim.shard)
        if not halve(self.plan, self.folder, claim.shard, claim.batch):
            return False
        if (batch := batch_of(self.plan, self.folder, claim.shard)) < former:
            self.barren = 0
            say(f"shard {claim.shard} ran out of memory with batch {former}; it is made with batch {batch}, as the request allows")
        return True

    def _put_aside(self, claim: Progress, starved: bool) -> None:
        """What no traceback can tell: a shard that takes its process with it, again and again."""
        why = "out of memory, or a walltime_min shorter than one shard?"
        if starved:
            why = "out of memory, as Slurm says. Raise memory_gb, or allow a smaller batch in the request (batch_on_oom: halve)."
        failure_path(self.folder, claim.shard).write_text(
            f"shard {claim.shard}, attempt {claim.attempt}, job {claim.job} on {claim.host}\n\nUserError: its task was ended "
            f"{claim.attempt} times before it was done: {why} See {self.logs}\n",
            encoding="utf-8",
        )

    def _without_answer(self, claims: list[Progress]) -> None:
        """Slurm may be away for a while; tasks go on without it. Give up only where nothing at all is seen for long."""
        silent_s = time.monotonic() - self.heard
        if any(claim.is_fresh for claim in claims):
            self.heard = time.monotonic()
        elif silent_s > PATIENCE_S:
            raise UserError(
                f"{self.folder}: squeue has not answered for {silent_s / 60:.0f} min and no shard was made meanwhile. When "
                "Slurm is back, run the same command again; finished shards are kept"
            )

    def _speak(self, todo: Sequence[Shard], queue: list[Job]) -> None:
        if time.monotonic() - self.spoke < SPEAK_S:
            return
        self.spoke = time.monotonic()
        pending = [job for job in queue if job.state == "PD"]
        reasons = ", ".join(sorted({job.reason for job in pending})[:3])
        say(
            f"{len(self.receipts):,} of {len(self.plan.shards):,} shards done, {len(todo):,} to do; tasks: "
            f"{sum(job.is_at_work for job in queue)} running, {len(pending)} pending{f' ({reasons})' if reasons else ''}"
        )

    # Submitting

    def _submit(self, count: int, others_live: bool) -> None:
        """Submit so many tasks more, unless the last ones brought nothing too many times."""
        if len(self.receipts) > self.done_at_submission:
            self.barren = 0
        if self.barren >= self.cluster.rounds:
            if not others_live:
                raise UserError(self._barren_text())
            return
        files = set(self._task_files())
        try:
            self._submit_arrays(count)
        except _submission_errors() as error:
            for path in set(self._task_files()) - files:  # submitit leaves the pickles of what was refused
                if not _owner(path):
                    path.unlink()
            self.refused += 1
            say(f"sbatch: {_last_line(error)}")
            if self.refused >= REFUSALS and not others_live:
                raise UserError(
                    f"sbatch refuses the tasks: {_last_line(error)}. Change the cluster file and run the same command again; "
                    "finished shards are kept"
                ) from None
            return
        self.refused, self.done_at_submission, self.barren = 0, len(self.receipts), self.barren + 1

    def _submit_arrays(self, count: int) -> None:
        import submitit

        executor = submitit.SlurmExecutor(folder=self.logs / TASKS)
        executor.update_parameters(**sbatch_parameters(self.cluster, self.name, self.logs))
        index = 0
        for size in cut_arrays(count, max_array_size()):
            with executor.batch():  # a batch of one is submitted as a job of its own
                for _ in range(size):
                    executor.submit(run_cluster_task, self._task(index, count))
                    index += 1
            say(f"submitted {size} task{'s'[: size != 1]}")

    def _task(self, index: int, count: int) -> ClusterTask:
        cluster = self.cluster
        return ClusterTask(str(self.folder.absolute()), self.generator, index, count, cluster.walltime_min, self.only, cluster.cpus)

    def _barren_text(self) -> str:
        left = len(self.plan.shards) - len(self.receipts)
        words = [path.read_text(encoding="utf-8").strip().splitlines()[-1] for path in (self.folder / FAILURES).glob("task-*.txt")]
        starved = ask_out_of_memory(self.name)
        for claim in read_progress(self.folder)[:5]:
            why = ", out of memory, as Slurm says" * (claim.job in starved)
            words.append(f"shard {claim.shard} was begun {claim.attempt} times and its task ended{why}")
        return (
            f"{self.barren} rounds of tasks in a row made no shard; {left:,} of {len(self.plan.shards):,} are missing: "
            f"{'; '.join(words[:6]) or 'the tasks ended without a word'}. Their logs are in {self.logs}. After mending the cause, "
            "run the same command again; finished shards are kept"
        )

    # submitit's files

    def _task_files(self):
        return (self.logs / TASKS).glob("*")

    def close(self) -> None:
        """All is made or has failed: cancel what waits, give running tasks time to end, remove submitit's files."""
        deadline = time.monotonic() + LEAVE_S
        if ask_queue(self.name):
            cancel_pending(self.name)
        while ask_queue(self.name) and time.monotonic() < deadline:
            time.sleep(1)
        if (self.logs / TASKS).exists():
            remove_tree(self.logs / TASKS)


def run_on_cluster(plan: Plan, folder: Path, cluster: Cluster, generator: Generator, only: frozenset[int] | None) -> None:
    """Have the missing shards made by Slurm tasks. Returns when each has its receipt or has failed by itself.

    Raises UserError where tasks bring nothing, or sbatch refuses them. Tasks outlive a driver that is ended.
    """
    require_slurm()
    if plan.request.device == "cuda" and not cluster.gpus:
        raise UserError("the request says device: cuda but the cluster file gpus: 0. Set gpus: 1 in the cluster file")
    forget_own_job()
    driver = Driver(plan, folder, cluster, generator, only)
    if todo := driver.unsettled():
        (driver.logs / TASKS).mkdir(parents=True, exist_ok=True)
        driver.done_at_submission = len(driver.receipts)
        say(f"run {driver.name}: {len(todo):,} of {len(plan.shards):,} shards to make; logs in {driver.logs}")
    while todo:
        driver.step()
        todo = _wait(driver, cluster.poll_s)
    driver.close()


def _wait(driver: Driver, seconds: float) -> list[Shard]:
    """Look at the receipts for so long, or until nothing is to be made."""
    deadline = time.monotonic() + seconds
    while (todo := driver.unsettled()) and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_S))
    return todo


def _remove_files(files: list[Path], queue: list[Job]) -> None:
    """Remove submitit's files of tasks that are gone, and what a killed driver left. The files were listed before the
    queue was asked, so their jobs were submitted by then. A requeued task still needs its own.
    """
    arrays = {job.array for job in queue}
    for path in files:
        try:
            if owner := _owner(path):
                left = owner not in arrays
            else:
                left = time.time() - path.stat().st_mtime > UNNAMED_S
            if left:
                path.unlink()
        except FileNotFoundError:
            pass  # another driver was quicker


def _owner(path: Path) -> str:
    """The job that one of submitit's files is for, '' while it is being submitted."""
    job = path.name.split("_")[0]
    return job if job.isdecimal() else ""


def _submission_errors() -> tuple[type[Exception], ...]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    return FailedJobError, FailedSubmissionError, OSError


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "error:" in line] or str(error).strip().splitlines() or ["?"]
    return lines[-1].split("error: ")[-1]


def say(text: str) -> None:
    """A line for the user, with the time: a driver's log is read the morning after."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
