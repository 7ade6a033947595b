"""Cluster: where and how tasks run, from a cluster file (configs/slurm.yaml). Nothing in it changes a byte of output.

What changes bytes is in the request and its digest; so any cluster file may resume any run.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ecg_batch.errors import UserError, shown
from ecg_batch.keys import Line, Meaning, Range
from ecg_batch.settings import Written, read_settings

# what the driver sets itself: another value would break how it finds its tasks again, or their one process
OURS = ("array", "job-name", "output", "error", "open-mode", "nodes", "ntasks", "ntasks-per-node", "signal")
# these change what sbatch prints or when it returns, and submitit reads the job's id there
ANSWERS = ("help", "usage", "version", "parsable", "quiet", "wait", "wrap", "test-only", "hold")
SHORT = {"A": "account", "C": "constraint", "G": "gpus", "L": "licenses", "c": "cpus-per-task", "d": "dependency", "p": "partition",
         "q": "qos", "t": "time", "w": "nodelist", "x": "exclude"}  # fmt: skip
# an option of ours -> options in `extra` that say the same, and so take its place
REPLACED_BY = {
    "time": ("time",),
    "cpus_per_task": ("cpus-per-task",),
    "mem": ("mem", "mem-per-cpu", "mem-per-gpu"),
    "gpus_per_node": ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres"),
    "partition": ("partition",),
    "account": ("account",),
    "qos": ("qos",),
}
Name = Annotated[str, Line("as sinfo or sacctmgr list it; left out: the site's default")]


@dataclass(frozen=True)
class Cluster:
    """A checked cluster file. Resources are per task."""

    # null leaves one of the first four out of the batch script
    walltime_min: Annotated[int, Range(1, 60 * 24 * 30, "minutes; a task ends by itself when its time runs short")] | None = 60
    gpus: Annotated[int, Range(0, 64, "1 for requests with device: cuda")] | None = 0
    cpus: Annotated[int, Range(1, 1024, "a worker process each; they share the task's GPU")] | None = 1
    memory_gb: Annotated[float, Range(0.1, 10_000, "for all workers of a task together: about 1 for each")] | None = 4.0
    most_tasks: Annotated[int, Range(1, 100_000, "in the queue at once, running or pending")] = 32
    shards_per_task: Annotated[int, Range(1, 100_000, "tasks submitted = missing shards / this")] = 4
    rounds: Annotated[int, Range(1, 1000, "submissions in a row that bring no shard before the driver gives up")] = 3
    # a task that vanished is to be noticed within a minute
    poll_s: Annotated[float, Range(0.2, 30, "seconds between two looks at the queue")] = 15.0
    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    setup: Annotated[tuple[str, ...], Meaning("shell lines before the task, as [module load cuda/12]")] = ()
    extra: tuple[tuple[str, object], ...] = ()  # further sbatch options by their long names

    def tasks_for(self, shards: int) -> int:
        """How many tasks should be in the queue while so many shards are missing."""
        return min(self.most_tasks, math.ceil(shards / self.shards_per_task))

    @property
    def warning_s(self) -> int:
        """How long before the time limit Slurm sends USR2. Slurm may send it up to 60 s earlier than asked."""
        return min(60, 6 * (self.walltime_min or 60))

    @property
    def workers(self) -> int:
        return self.cpus or 1


@dataclass(frozen=True)
class AskedCluster(Cluster):
    """Where and how tasks run, as a cluster file has it. Numbers are for each task; every key may be left out."""

    extra: Annotated[dict[str, object], Meaning("further sbatch options by long name, as {constraint: a100}")] = field(
        default_factory=dict
    )


def load_cluster(path: Path) -> Cluster:
    """Read and check a cluster file. UserError naming file, line and key."""
    return parse_cluster(read_settings(path, "the cluster file"))


def parse_cluster(written: Written) -> Cluster:
    asked = written.checked(AskedCluster)
    return Cluster(**vars(asked) | {"extra": _extra(asked.extra, written)})


def _extra(asked: dict, written: Written) -> tuple[tuple[str, object], ...]:
    options = {}
    for key, setting in asked.items():
        name = _option(key, written)
        if name in options:
            raise written.error(("extra", key), f"extra.{key}: {name} is given twice. Leave one of them out")
        options[name] = _setting(setting, key, name, written)
    return tuple(sorted(options.items()))


def _option(key: str, written: Written) -> str:
    """The long name of an sbatch option, without dashes before it."""
    name = key.lstrip("-").replace("_", "-")
    name = SHORT.get(name, name)
    if len(name) < 2 or not name.replace("-", "").isalnum() or not name.isascii():
        known = ", ".join(f"{short} ({long})" for short, long in SHORT.items())
        raise written.error(("extra", key), f"extra: unknown option {shown(key)}; needed the long name of an option of sbatch, for "
                            f"example constraint; of one letter these are known: {known}")  # fmt: skip
    if name in OURS:
        raise written.error(("extra", key), f"extra.{name} cannot be set: the driver sets it to find its tasks again. Leave it out")
    if name in ANSWERS:
        raise written.error(
            ("extra", key), f"extra.{name} cannot be set: sbatch would not answer with a job that runs. Leave it out"
        )
    return name


def _setting(value: object, key: str, name: str, written: Written) -> object:
    """What stands behind an option: text, a number, True for a flag; None and False for an option that is left out."""
    if value is None or value == [] or isinstance(value, bool):
        return value or None
    parts = value if isinstance(value, (list, tuple)) else [value]
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, (str, int, float)) or not str(part).isprintable() or part != part:
            raise written.error(("extra", key), f"extra.{name} is {shown(value)}; needed text, a number, true for a flag, null to "
                                "leave it out, or a list of texts and numbers, which are joined by commas")  # fmt: skip
    return ",".join(map(str, parts)) if isinstance(value, (list, tuple)) else value


# What sbatch is given ------------------------------------------------------------------------------------------------


def sbatch_parameters(cluster: Cluster, name: str, logs: Path) -> dict:
    """The parameters of submitit's Slurm executor for tasks of this name.

    One log file per node, appended to, so that their number does not grow with the tasks. The step is told its CPUs
    itself: since Slurm 22.05 srun does not take them from sbatch. It gets the script's variables also where the site's
    `export: NONE` keeps the submitting shell's from the job: by itself it would be given none, and not know what to run.
    """
    log, extra = f"{logs}/%N.log", dict(cluster.extra)
    ours = {
        "time": cluster.walltime_min,
        "cpus_per_task": cluster.cpus,
        "mem": f"{math.ceil(cluster.memory_gb * 1024)}M" if cluster.memory_gb else None,
        "gpus_per_node": cluster.gpus or None,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
    }
    ours = {option: None if is_replaced(option, extra) else value for option, value in ours.items()}
    given = {option: value for option, value in extra.items() if value is not None}
    cpus = given.get("cpus-per-task", ours["cpus_per_task"])
    step = [f"--cpus-per-task={cpus}"] if cpus else []
    return {
        "job_name": name,
        **ours,
        "setup": [*cluster.setup, *THREADS],
        "signal_delay_s": cluster.warning_s,
        "array_parallelism": cluster.most_tasks,
        "wckey": None,  # submitit's own would be refused where wckeys are checked
        "stderr_to_stdout": True,
        "additional_parameters": {"output": log, **given},
        "srun_args": [f"--output={log}", "--open-mode=append", *step, *(["--export=ALL"] if "export" in given else [])],
    }


def is_replaced(option: str, extra: dict) -> bool:
    """Whether an option in `extra` stands in the place of one of ours, also where it says null: then neither is given."""
    found = [name for name in REPLACED_BY[option] if name in extra]
    return any(name != "gres" or "gpu" in str(extra[name]) for name in found)


def has_gpus(cluster: Cluster) -> bool:
    extra = dict(cluster.extra)
    return any("gpu" in str(extra.get(name) or "") or (name != "gres" and extra.get(name)) for name in REPLACED_BY["gpus_per_node"]
               if name in extra) or (bool(cluster.gpus) and not is_replaced("gpus_per_node", extra))  # fmt: skip


def refuse_log_names(logs: Path) -> None:
    """UserError where Slurm would read a path as a pattern: it fills in %j, %N and others, and drops what follows a backslash."""
    if odd := sorted({"%", "\\"} & set(str(logs))):
        raise UserError(
            f"--out: {logs} contains {' and '.join(odd)}, which Slurm replaces in the names of logs, so that tasks would die "
            "without one. Give an --out without it"
        )


# After the user's lines: a module that sets another number of threads would change the bytes.
# Workers that are bound by OpenMP's rules all sit on the first core.
THREADS = (
    "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1",
    "unset OMP_PROC_BIND OMP_PLACES GOMP_CPU_AFFINITY KMP_AFFINITY",
)


def cut_arrays(tasks: int, max_array_size: int) -> list[int]:
    """Sizes of the arrays for so many tasks. MaxArraySize bounds the index, which begins at 0; 0 forbids arrays."""
    size = max(max_array_size, 1)
    return [min(size, tasks - start) for start in range(0, tasks, size)]


def sbatch_text(cluster: Cluster, name: str, logs: Path, tasks: int) -> str:
    """The batch script that submitit would submit for an array of so many tasks, for --dry-run and the tests."""
    import shlex
    import sys

    from submitit.slurm.slurm import _make_sbatch_string  # not through the executor: that one needs srun on this machine

    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(logs / SUBMITTED))}"
    array = {"map_count": tasks} if tasks > 1 else {}
    return _make_sbatch_string(command=command, folder=logs / SUBMITTED, **array, **sbatch_parameters(cluster, name, logs))


SUBMITTED = "tasks"  # submitit's folder inside the logs: its pickles, removed as soon as their tasks are gone
