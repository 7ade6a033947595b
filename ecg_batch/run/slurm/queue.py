"""Slurm's answers. They are hints: an answer may be absent, late or wrong, and nothing but speed depends on it."""

import logging
import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ecg_batch.errors import UserError

log = logging.getLogger(__name__)

ANSWER_S = 60.0  # a busy controller may take this long
COLUMNS = "JobID:.24,ArrayJobID:.24,RestartCnt:.12,StateCompact:.6,Reason:.100"
AT_WORK = ("R", "CF", "S", "SO", "SI", "ST")
ENDED = ("BF", "CA", "CD", "DL", "F", "NF", "OOM", "PR", "RV", "TO")
# reasons to wait that do not end by themselves
ENDLESS = ("JobHoldMaxRequeue", "DependencyNeverSatisfied", "BadConstraints", "InvalidAccount", "InvalidQOS", "ReservationDeleted")
ENDS = "JobID:.24,RestartCnt:.12,StateCompact:.6,DerivedEC:.12"
STARVED = ("253", "0:125")  # the exit code of a step out of memory, as a number and in sacct's way; its job may just be FAILED
DEFAULT_MAX_ARRAY = 1001  # Slurm's own default
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")  # where Slurm is found, and how the user is known to it
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")


@dataclass(frozen=True)
class Job:
    """A task in the queue. array: the id that its whole array was submitted under."""

    id: str
    array: str
    restarts: int
    state: str
    reason: str

    @property
    def job_attempt(self) -> str:
        """What its process calls itself (see `job_attempt`): a requeued job keeps its id."""
        return f"{self.id}.{self.restarts}"

    @property
    def is_at_work(self) -> bool:
        return self.state in AT_WORK

    @property
    def is_over(self) -> bool:
        """Whether it has ended; Slurm remembers it for a while (MinJobAge, 300 s)."""
        return self.state in ENDED

    @property
    def waits_in_vain(self) -> bool:
        return self.state in ("PD", "RQ") and self.reason.strip("()") in ENDLESS

    @property
    def is_live(self) -> bool:
        """Whether it runs or will. A held task may wait for ever, a completing one is over."""
        waits = self.state in ("PD", "RQ") and "held" not in self.reason.lower() and not self.waits_in_vain
        return self.is_at_work or waits


def job_attempt() -> str:
    """'<job id>.<restarts>' of this process, "" outside of Slurm. SLURM_JOB_ID is a number of its own in arrays too."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return job and f"{job}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"


def require_slurm() -> None:
    """UserError where the commands are not there."""
    absent = [name for name in ("sbatch", "srun", "squeue", "scontrol") if not shutil.which(name)]
    if absent:
        raise UserError(
            f"--cluster: {', '.join(absent)} not found on the PATH; tasks are submitted with Slurm. Run this on a login "
            "node (perhaps after `module load slurm`), or use --workers N on this machine"
        )


def ask(*command: str, answer_s: float = ANSWER_S) -> str | None:
    """Output of a Slurm command, or None where there is no answer in this time."""
    # settings of the user's own that change what is printed
    own = ("SQUEUE_", "SINFO_")
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_TIME_FORMAT" and not key.startswith(own)}
    start = time.monotonic()
    try:
        done = _run(command, environment, answer_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        _tell_silence(command[0], str(error))
        return None
    log.debug("%s: status %s after %.2f s", " ".join(command), done.returncode, time.monotonic() - start)
    if done.returncode == 0:
        _silent.pop(command[0], None)
        return done.stdout
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["without a word"]
    _tell_silence(command[0], f"status {done.returncode}: {lines[-1][:300]}")
    return None


def _run(command: tuple[str, ...], environment: dict[str, str], answer_s: float) -> subprocess.CompletedProcess:
    """subprocess.run, whose time limit also holds where the command is a script: what that has started would keep the pipe open."""
    with subprocess.Popen(  # noqa: S603
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, complained = process.communicate(timeout=answer_s)
        except BaseException:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


_silent: dict[str, str] = {}  # tools that gave no answer when they were last asked -> their words then


def last_words(tool: str) -> str:
    """Why a tool gave no answer when it was last asked, in its own words; "" where it did."""
    return _silent.get(tool, "")


def _tell_silence(tool: str, words: str) -> None:
    """The first failure of squeue is a line: the user sees why nothing goes on. The others happen in its shadow."""
    first = tool not in _silent
    _silent[tool] = words
    log.log(
        logging.WARNING if first and tool == "squeue" else logging.DEBUG, "%s gives no answer (%s); it is asked again", tool, words
    )


def ask_queue(name: str) -> list[Job] | None:
    """Our tasks of this job name that Slurm still knows, also those that ended a moment ago, or None where it does not answer. One
    call, whatever their number. The user by number: names may be somebody else's (LOGNAME), or absent.
    """
    options = ("--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--name={name}", f"--Format={COLUMNS}")
    answer = ask("squeue", *options)
    return None if answer is None else [job for line in answer.splitlines() if (job := _read_job(line))]


def ask_out_of_memory(name: str) -> set[str]:
    """Job attempts of tasks of this job name that ran out of memory, as far as Slurm says: it forgets after MinJobAge (300 s)."""
    options = ("--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--name={name}", f"--Format={ENDS}")
    lines = [line.split() for line in (ask("squeue", *options) or "").splitlines()]
    return {f"{words[0]}.{words[1]}" for words in lines if len(words) == 4 and (words[2] == "OOM" or words[3] in STARVED)}


def _read_job(line: str) -> Job | None:
    words = line.split(maxsplit=4)
    if len(words) < 4 or not words[2].isdecimal():
        return None
    return Job(words[0], words[1], int(words[2]), words[3], words[4] if len(words) > 4 else "")


def max_array_size() -> int:
    """MaxArraySize of this cluster; Slurm's default where it does not say."""
    return DEFAULT_MAX_ARRAY if (told := told_array_size()) is None else told


def told_array_size() -> int | None:
    found = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", ask("scontrol", "show", "config") or "", re.MULTILINE)
    return int(found[1]) if found else None


def cancel_pending(name: str) -> None:
    ask("scancel", f"--user={os.getuid()}", f"--name={name}", "--state=PENDING")


def cancel_these_pending(ids: list[str]) -> None:
    for start in range(0, len(ids), 500):  # as many words as a command line holds anywhere
        ask("scancel", "--state=PENDING", *ids[start : start + 500])  # the id of a waiting task may be that of its whole array


def end_time(walltime_min: int | None) -> float:
    """Unix time, s, at which this job's time limit ends it: as Slurm says, else as long from now as was asked for. Infinity where
    nobody says.
    """
    with suppress(ValueError):
        return float(os.environ.get("SLURM_JOB_END_TIME", ""))  # Slurm 23.02 and later
    answer = ask("scontrol", "show", "job", "--oneliner", os.environ.get("SLURM_JOB_ID", "")) or ""
    found = re.search(r" EndTime=([0-9]{4}-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9])", answer)
    if not found:
        return time.time() + 60 * walltime_min if walltime_min else math.inf
    return time.mktime(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S"))  # local time, as Slurm prints it


def forget_own_job() -> None:
    """Drop the variables of the job this process itself runs in, or sbatch would hand them on to the tasks: SBATCH_ ones
    overrule the cluster file, SLURM_ ones the steps' memory and CPUs.
    """
    in_job = "SLURM_JOB_ID" in os.environ
    for name in list(os.environ):
        ours = name.startswith(("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SUBMITIT_")) and name not in KEPT
        if ours or (in_job and name in GPU_VARIABLES):
            del os.environ[name]


class TimeLeft:
    """Whether a task has time for another shard: 1.5 times its slowest one so far. Asked once before each shard."""

    def __init__(self, end: float, clock: Callable[[], float] = time.time):
        self.end, self.clock = end, clock
        self.slowest_s, self.asked = 0.0, None

    def __call__(self) -> bool:
        """The first shard is always begun: without that, a limit that is too short would never show as a failure."""
        now = self.clock()
        if self.asked is not None:
            self.slowest_s = max(self.slowest_s, now - self.asked)
        self.asked = now
        return self.end - now >= 1.5 * self.slowest_s
