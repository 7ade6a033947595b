"""Driver: keeps tasks for what is missing in Slurm's queue until every shard has its receipt or has failed.

Receipts are the truth. The queue is asked, by one squeue call in poll_s seconds, only for what to do about shards that
are missing: whether tasks for them are on their way, and whether the maker of a claim still exists. So the driver may
be killed at any moment, and the next one finds the former's tasks in the queue by their name.
"""

import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ecg_batch.dataset.layout import PLAN, Shard, final_name, partial_of
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import read_receipts
from ecg_batch.dataset.run import Run
from ecg_batch.errors import UserError, number_of
from ecg_batch.files import remove_tree
from ecg_batch.run.claim import Progress, make_stale, read_progress
from ecg_batch.run.flagged import FlagWatch
from ecg_batch.run.oom import batch_of, halve
from ecg_batch.run.slurm.cluster import SUBMITTED, Cluster, cut_arrays, has_gpus, refuse_log_names, sbatch_parameters
from ecg_batch.run.slurm.queue import (
    Job,
    ask_out_of_memory,
    ask_queue,
    cancel_pending,
    cancel_these_pending,
    forget_own_job,
    last_words,
    max_array_size,
    require_slurm,
)
from ecg_batch.run.slurm.task import ClusterTask, run_cluster_task
from ecg_batch.run.status import read_failures
from ecg_batch.run.worker import OpenGenerator

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between looks at the receipts
REPORT_S = 300.0  # between lines that say how far the run is
PATIENCE_S = 3600.0  # with no answer from Slurm and no new shard
REFUSALS = 3  # of sbatch in a row, with none of our tasks in the queue: a controller that restarts refuses once or twice
DEATHS = 3  # of the makers of one shard, without a word, before it is put aside as failed
UNSEEN_S = 120.0  # a site's squeue may answer out of a cache; after that a task is taken to have come and gone
LIMITED_S = 24 * 3600.0  # with not one task let in
LIMIT_PAUSE_S = 60.0
UNNAMED_S = 600.0  # a file of submitit's that was not given its job's id by then never will be
LEAVE_S = 30.0  # for tasks to end by themselves when all is made


def job_name(plan: Plan, out: Path, only: frozenset[int] | None) -> str:
    """By this the tasks of a run are found in the queue, whoever submitted them. The same request may be made in two folders."""
    folder = sha256(os.fsencode(final_name(out).resolve())).hexdigest()[:6]
    return f"ecg-{plan.run_id[:12]}-{folder}" + ("-only" if only else "")


def logs_of(folder: Path) -> Path:
    """Beside the dataset, not in it: logs are no part of what is verified and published."""
    out = final_name(folder.absolute())  # a setup line may change the folder
    return out.with_name(f"{out.name}.logs")


@dataclass
class Driver:
    """One driver of one run, and what it remembers between two looks."""

    run: Run
    cluster: Cluster
    open_generator: OpenGenerator
    only: frozenset[int] | None
    receipts: dict[int, dict] = field(default_factory=dict)
    fruitless_rounds: int = 0  # submissions in a row that brought no shard
    refused: int = 0
    done_at_submission: int = 0
    last_answer: float = field(default_factory=time.monotonic)  # last answer of Slurm, or last new shard
    last_report: float = 0.0
    unseen: dict[str, tuple[float, int]] = field(default_factory=dict)  # array that no answer has shown yet -> when, of how many
    limited_since: float | None = None  # a limit of submitted jobs keeps tasks back since
    limited_until: float = 0.0  # before, no more are tried
    flags: FlagWatch = field(default_factory=FlagWatch)
    in_vain: set[str] = field(default_factory=set)  # reasons for which tasks waited that do not end

    @property
    def name(self) -> str:
        return job_name(self.run.plan, self.run.out, self.only)

    @property
    def logs(self) -> Path:
        return logs_of(self.run.folder)

    # Looking

    def unsettled(self) -> list[Shard]:
        """Shards to make that have neither receipt nor failure; none where another run has finished the dataset."""
        if not (self.run.folder / PLAN).exists():
            return []
        before = len(self.receipts)
        read_receipts(self.run, self.receipts)
        if len(self.receipts) > before:
            self.last_answer = time.monotonic()
            self.flags.look(self.receipts)
        settled = self.receipts.keys() | read_failures(self.run, self.receipts).keys()
        chosen = self.only if self.only is not None else range(len(self.run.shards))
        return [shard for shard in self.run.shards if shard.index in chosen and shard.index not in settled]

    def step(self) -> None:
        """Ask Slurm once, and see to it that enough tasks are on their way."""
        claims, files = read_progress(self.run), list(self._task_files())  # before the queue: see _free_claims
        jobs = ask_queue(self.name)
        if jobs is None:
            self._without_answer(claims)
            return
        self.last_answer = time.monotonic()
        waiting = self._see(jobs)
        queue = [job for job in jobs if not job.is_over]
        for claim in claims:
            if not claim.is_fresh and claim.looks_fresh:  # watched, and silent; a task that comes anew would wait for it
                make_stale(self.run, claim, freed=False)
        if not self.unseen:  # else the answer is older than the last submission, and its silence means nothing
            self._free_claims(claims, queue)
            _remove_files(files, queue)
        self._cancel_in_vain(queue)
        todo = self.unsettled()  # without what was just put aside
        elsewhere = {claim.shard for claim in claims if claim.is_fresh and not claim.job}  # made by workers outside of Slurm
        beating, silent = (
            {claim.job for claim in claims if claim.is_fresh == fresh and not claim.is_freed} for fresh in (True, False)
        )
        hung = {job.id for job in queue if job.is_at_work and job.job_attempt in silent - beating}
        live = len([job for job in queue if job.is_live and job.id not in hung]) + waiting
        self._report(todo, queue)
        wanted = self.cluster.tasks_for(len([shard for shard in todo if shard.index not in elsewhere]))
        if wanted > live:
            self._submit(wanted - live, bool(live))

    def _see(self, jobs: list[Job]) -> int:
        """How many tasks were submitted that this answer, perhaps an old one out of a cache, does not know yet."""
        shown, now = {job.array for job in jobs} | {job.id for job in jobs}, time.monotonic()
        self.unseen = {array: (when, size) for array, (when, size) in self.unseen.items()
                       if array not in shown and now - when < UNSEEN_S}  # fmt: skip
        return sum(size for _, size in self.unseen.values())

    def _cancel_in_vain(self, queue: list[Job]) -> None:
        """Tasks that wait for what never comes make room; if the next ones do the same, the run ends with their reason."""
        vain = [job for job in queue if job.waits_in_vain]
        for reason in sorted({job.reason for job in vain} - self.in_vain):
            log.warning("tasks wait for a reason that does not end (%s); they are cancelled", reason)
        self.in_vain |= {job.reason for job in vain}
        if vain:
            cancel_these_pending([job.id for job in vain])

    def _free_claims(self, claims: list[Progress], queue: list[Job]) -> None:
        """Make claims stale whose makers Slurm does not have any more. The claims were read before the queue, so a maker
        that is not in it was gone by then.
        """
        at_work = {job.job_attempt for job in queue if job.is_at_work}
        gone = [claim for claim in claims if claim.job and claim.job not in at_work]
        out_of_memory = ask_out_of_memory(self.name) if gone else set()
        for claim in gone:
            make_stale(self.run, claim)
            if claim.job in out_of_memory and claim.batch and self._halve(claim):
                continue
            if claim.attempt >= DEATHS:
                self._put_aside(claim, claim.job in out_of_memory)

    def _halve(self, claim: Progress) -> bool:
        """Have a shard that ran out of memory made with half the batch, where the request allows it."""
        former = batch_of(self.run, claim.shard)
        if not halve(self.run, claim.shard, claim.batch):
            return False
        if (batch := batch_of(self.run, claim.shard)) < former:
            self.fruitless_rounds = 0
            text = "shard %s ran out of memory with batch %s; it is made with batch %s, as the request allows"
            log.info(text, claim.shard, former, batch)
        return True

    def _put_aside(self, claim: Progress, out_of_memory: bool) -> None:
        """What no traceback can tell: a shard that takes its process with it, again and again."""
        why = "out of memory, or a walltime_min shorter than one shard?"
        if out_of_memory:
            why = "out of memory, as Slurm says. Raise memory_gb, or allow a smaller batch in the request (batch_on_oom: halve)."
        self.run.failure(claim.shard).write_text(
            f"shard {claim.shard}, attempt {claim.attempt}, job {claim.job} on {claim.host}\n\nUserError: its task was ended "
            f"{claim.attempt} times before it was done: {why} See {self.logs}\n",
            encoding="utf-8",
        )

    def _without_answer(self, claims: list[Progress]) -> None:
        """Slurm may be away for a while; tasks go on without it. Give up only where nothing at all is seen for long."""
        silent_s = time.monotonic() - self.last_answer
        if any(claim.is_fresh for claim in claims):
            self.last_answer = time.monotonic()
        elif silent_s > PATIENCE_S:
            raise UserError(
                f"{self.run.folder}: squeue has not answered for {silent_s / 60:.0f} min ({last_words('squeue') or 'silent'}) and "
                "no shard was made meanwhile. When Slurm is back, run the same command again; finished shards are kept"
            )

    def _report(self, todo: Sequence[Shard], queue: list[Job]) -> None:
        if time.monotonic() - self.last_report < REPORT_S:
            return
        self.last_report = time.monotonic()
        pending = [job for job in queue if job.state == "PD"]
        reasons = ", ".join(sorted({job.reason for job in pending})[:3])
        log.info(
            f"{len(self.receipts):,} of {number_of(len(self.run.shards), 'shard')} done, {len(todo):,} to do; tasks: "
            f"{sum(job.is_at_work for job in queue)} running, {len(pending)} pending{f' ({reasons})' if reasons else ''}"
        )

    # Submitting

    def _submit(self, count: int, others_live: bool) -> None:
        """Submit so many tasks more, unless the last ones brought nothing too many times."""
        if len(self.receipts) > self.done_at_submission:
            self.fruitless_rounds = 0
        if self.fruitless_rounds >= self.cluster.rounds:
            if not others_live:
                raise UserError(self._fruitless_text())
            return
        if time.monotonic() < self.limited_until:
            return
        while error := self._try_to_submit(count):
            words = _error_lines(error)
            if count > 1 and (_is_limit(words) or _may_be_limit(words)):
                count //= 2  # a smaller array may be let in
                continue
            self._limited(words, others_live) if _is_limit(words) else self._refused(words, others_live)
            return
        self.refused, self.limited_since = 0, None
        self.done_at_submission, self.fruitless_rounds = len(self.receipts), self.fruitless_rounds + 1

    def _try_to_submit(self, count: int) -> Exception | None:
        """Submit so many tasks. What sbatch said, where it refused them."""
        files = set(self._task_files())
        try:
            self._submit_arrays(count)
        except _submission_errors() as error:
            for path in set(self._task_files()) - files:  # submitit leaves the pickles of what was refused
                if not _owner(path):
                    path.unlink()
            return error
        return None

    def _refused(self, words: str, others_live: bool) -> None:
        self.refused += 1
        log.info("sbatch: %s", words)
        if self.refused >= REFUSALS and not others_live:
            hint = " (most_tasks, where it is a limit of jobs in the queue)" if _may_be_limit(words) else ""
            raise UserError(f"sbatch refuses the tasks: {words}. Change the cluster file{hint} and run the same command again; "
                            "finished shards are kept")  # fmt: skip

    def _limited(self, words: str, others_live: bool) -> None:
        """Not even one task more is let in: others of the user's jobs, or of these, have to end first."""
        now, limit = time.monotonic(), f"a limit of jobs in the queue; most_tasks is {self.cluster.most_tasks} in the cluster file"
        if self.limited_since is None:
            self.limited_since = now
            log.warning("sbatch: %s: %s. Waiting until one more is let in", words, limit)
        if now - self.limited_since > LIMITED_S and not others_live:
            raise UserError(
                f"sbatch has let in no task for {LIMITED_S / 3600:.0f} h: {words}: {limit}. Set it lower, or ask the site, and run "
                "the same command again; finished shards are kept"
            )
        self.limited_until = now + LIMIT_PAUSE_S

    def _submit_arrays(self, count: int) -> None:
        import submitit

        executor = submitit.SlurmExecutor(folder=self.logs / SUBMITTED)
        executor.update_parameters(**sbatch_parameters(self.cluster, self.name, self.logs))
        index = 0
        for size in cut_arrays(count, max_array_size()):
            with executor.batch():  # a batch of one is submitted as a job of its own
                jobs = [executor.submit(run_cluster_task, self._task(index + task, count)) for task in range(size)]
            index += size
            self.unseen[jobs[0].job_id.split("_")[0]] = (time.monotonic(), size)
            log.info("submitted %s task%s", size, "s"[: size != 1])

    def _task(self, index: int, count: int) -> ClusterTask:
        folder, cluster = str(self.run.folder.absolute()), self.cluster
        return ClusterTask(folder, self.open_generator, index, count, cluster.walltime_min, self.only, cluster.workers)

    def _fruitless_text(self) -> str:
        left = len(self.run.shards) - len(self.receipts)
        told = [path.read_text(encoding="utf-8", errors="replace").strip() for path in self.run.failures.glob("task-*.txt")]
        words = [text.splitlines()[-1] for text in told if text]
        out_of_memory = ask_out_of_memory(self.name)
        for claim in read_progress(self.run)[:5]:
            why = ", out of memory, as Slurm says" * (claim.job in out_of_memory)
            words.append(f"shard {claim.shard} was begun {claim.attempt} times and its task ended{why}")
        if self.in_vain:
            words.insert(0, f"tasks waited for a reason that does not end: {', '.join(sorted(self.in_vain))}")
        return (
            f"{self.fruitless_rounds} rounds of tasks in a row made no shard; {left:,} of {len(self.run.shards):,} are missing: "
            f"{'; '.join(words[:6]) or 'the tasks ended without a word'}. Their logs are in {self.logs}. After mending the cause, "
            "run the same command again; finished shards are kept"
        )

    # submitit's files

    def _task_files(self):
        return (self.logs / SUBMITTED).glob("*")

    def close(self) -> None:
        """All is made or has failed: cancel what waits, give running tasks time to end, remove submitit's files."""
        deadline = time.monotonic() + LEAVE_S
        if self._left():
            cancel_pending(self.name)
        while self._left() and time.monotonic() < deadline:
            time.sleep(1)
        if (self.logs / SUBMITTED).exists():
            remove_tree(self.logs / SUBMITTED)

    def _left(self) -> list[Job]:
        return [job for job in ask_queue(self.name) or [] if not job.is_over]


def refuse_cluster(plan: Plan, cluster: Cluster, out: Path) -> None:
    """UserError where tasks could not be submitted from here, or could not run. To be asked before anything is written."""
    require_slurm()
    refuse_log_names(logs_of(partial_of(out)))
    if plan.request.device == "cuda" and not has_gpus(cluster):
        raise UserError("the request says device: cuda but the cluster file gpus: 0. Set gpus: 1 in the cluster file")


def run_on_cluster(run: Run, cluster: Cluster, open_generator: OpenGenerator, only: frozenset[int] | None) -> None:
    """Have the missing shards made by Slurm tasks. Returns when each has its receipt or has failed by itself.

    Raises UserError where tasks bring nothing, or sbatch refuses them. Tasks outlive a driver that is ended.
    """
    refuse_cluster(run.plan, cluster, run.out)
    forget_own_job()
    driver = Driver(run, cluster, open_generator, only)
    if todo := driver.unsettled():
        (driver.logs / SUBMITTED).mkdir(parents=True, exist_ok=True)
        driver.done_at_submission = len(driver.receipts)
        log.info(f"run {driver.name}: {len(todo):,} of {number_of(len(run.shards), 'shard')} to make; logs in {driver.logs}")
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
    return job if job.isascii() and job.isdecimal() else ""


def _submission_errors() -> tuple[type[Exception], ...]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    return FailedJobError, FailedSubmissionError, OSError


def _error_lines(error: Exception) -> str:
    """What sbatch said: all its lines of errors, for the limit that was met is named in the first and the outcome in the last."""
    lines = [line.split("error: ", 1)[1].strip() for line in str(error).splitlines() if "error: " in line]
    lines = lines or str(error).strip().splitlines()[-1:] or ["without a word"]
    return "; ".join(dict.fromkeys(lines))[:500]


def _is_limit(words: str) -> bool:
    """Whether jobs are kept out by how many there are, so that fewer, or later, will do."""
    return bool(re.search(r"MaxSubmit|MaxJobCount", words, re.IGNORECASE))


def _may_be_limit(words: str) -> bool:
    """Slurm's one sentence for all limits, without the line that names another one."""
    return "job submit limit" in words and not re.search(r"\b(QOS|Assoc)\w+Limit\b", words)
