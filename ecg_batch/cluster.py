"""Cluster: where and how tasks run, from a cluster file (configs/slurm.yaml). Nothing in it changes a byte of output.

What changes bytes is in the request and its digest; so any cluster file may resume any run.
"""

import math
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from ecg_batch.errors import UserError
from ecg_batch.files import read_yaml

# key -> (type, lowest, highest, default)
NUMBERS = {
    "walltime_min": (int, 1, 60 * 24 * 30, 60),
    "gpus": (int, 0, 64, 0),
    "cpus": (int, 1, 1024, 1),
    "memory_gb": (float, 0.1, 10_000, 4.0),
    "most_tasks": (int, 1, 100_000, 32),
    "shards_per_task": (int, 1, 100_000, 4),
    "rounds": (int, 1, 1000, 3),
    "poll_s": (float, 0.2, 30, 15.0),  # a task that vanished is to be noticed within a minute
}
WORDS = ("partition", "account", "qos")
KNOWN = tuple(sorted((*NUMBERS, *WORDS, "setup", "extra")))
# what the driver sets itself: another value would break how it finds its tasks again, or their one process
OURS = ("array", "job-name", "output", "error", "open-mode", "nodes", "ntasks", "ntasks-per-node", "signal")


@dataclass(frozen=True)
class Cluster:
    """A checked cluster file. Resources are per task."""

    walltime_min: int = 60
    gpus: int = 0
    cpus: int = 1  # a worker process each; they share the task's GPU
    memory_gb: float = 4.0
    most_tasks: int = 32  # in the queue at once, running or pending
    shards_per_task: int = 4  # tasks submitted = missing shards / this; a task goes on while it has time left
    rounds: int = 3  # submissions in a row that bring no shard before the driver gives up
    poll_s: float = 15.0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    setup: tuple[str, ...] = ()  # shell lines before the task: modules, conda
    extra: tuple[tuple[str, object], ...] = ()  # further sbatch options by their long names

    def tasks_for(self, shards: int) -> int:
        """How many tasks should be in the queue while so many shards are missing."""
        return min(self.most_tasks, math.ceil(shards / self.shards_per_task))

    @property
    def warning_s(self) -> int:
        """How long before the time limit Slurm sends USR2. Slurm may send it up to 60 s earlier than asked."""
        return min(60, 6 * self.walltime_min)


def load_cluster(path: Path) -> Cluster:
    """Read and check a cluster file. UserError naming file and key."""
    raw = read_yaml(path, "the cluster file", KNOWN)
    return parse_cluster({key: value for key, value in raw.items() if value is not None}, str(path))


def parse_cluster(raw: dict, source: str) -> Cluster:
    for key in raw:
        if key not in KNOWN:
            close = get_close_matches(str(key), KNOWN, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"{source}: unknown key '{key}'{hint}; known keys: {', '.join(KNOWN)}")
    values = {key: _number(raw[key], key, source) for key in NUMBERS if key in raw}
    values |= {key: _word(raw[key], key, source) for key in WORDS if key in raw}
    return Cluster(**values, setup=_setup(raw.get("setup", []), source), extra=_extra(raw.get("extra", {}), source))


def _number(value, key: str, source: str):
    kind, low, high, _ = NUMBERS[key]
    kinds = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        word = "a whole number" if kind is int else "a number"
        raise UserError(f"{source}: {key} is {value!r}; needed {word} from {low:,} to {high:,}. Change it")
    return kind(value)


def _word(value, key: str, source: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{source}: {key} is {value!r}; needed a name as `sacctmgr` or `sinfo` knows it, or leave the key out")
    return value


def _setup(value, source: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise UserError(f"{source}: setup is {value!r}; needed a list of shell lines, for example ['module load cuda']")
    return tuple(value)


def _extra(value, source: str) -> tuple[tuple[str, object], ...]:
    if not isinstance(value, dict):
        raise UserError(f"{source}: extra is {value!r}; needed sbatch options by long name, for example {{constraint: a100}}")
    options = {str(key).lstrip("-").replace("_", "-"): setting for key, setting in value.items()}
    for key in OURS:
        if key in options:
            raise UserError(f"{source}: extra.{key} cannot be set: the driver sets it to find its tasks again. Leave it out")
    return tuple(sorted(options.items()))


# What sbatch is given ------------------------------------------------------------------------------------------------


def sbatch_parameters(cluster: Cluster, name: str, logs: Path) -> dict:
    """The parameters of submitit's Slurm executor for tasks of this name.

    One log file per node, appended to, so that their number does not grow with the tasks. The step is told its CPUs
    itself: since Slurm 22.05 srun does not take them from sbatch.
    """
    log = f"{logs}/%N.log"
    return {
        "job_name": name,
        "time": cluster.walltime_min,
        "cpus_per_task": cluster.cpus,
        "mem": f"{math.ceil(cluster.memory_gb * 1024)}M",
        "gpus_per_node": cluster.gpus or None,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "setup": [*cluster.setup, *THREADS],
        "signal_delay_s": cluster.warning_s,
        "array_parallelism": cluster.most_tasks,
        "wckey": None,  # submitit's own would be refused where wckeys are checked
        "stderr_to_stdout": True,
        "additional_parameters": {"output": log, **dict(cluster.extra)},
        "srun_args": [f"--output={log}", "--open-mode=append", f"--cpus-per-task={cluster.cpus}"],
    }


# After the user's lines: a module that sets another number of threads would change the bytes.
THREADS = ("export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1",)


def cut_arrays(tasks: int, max_array_size: int) -> list[int]:
    """Sizes of the arrays for so many tasks. MaxArraySize bounds the index, which begins at 0; 0 forbids arrays."""
    size = max(max_array_size, 1)
    return [min(size, tasks - start) for start in range(0, tasks, size)]


def sbatch_text(cluster: Cluster, name: str, logs: Path, tasks: int) -> str:
    """The batch script that submitit would submit for an array of so many tasks, for --dry-run and the tests."""
    import sys

    from submitit.slurm.slurm import _make_sbatch_string  # not through the executor: that one needs srun on this machine

    command = f"{sys.executable} -u -m submitit.core._submit {logs / TASKS}"
    array = {"map_count": tasks} if tasks > 1 else {}
    return _make_sbatch_string(command=command, folder=logs / TASKS, **array, **sbatch_parameters(cluster, name, logs))


TASKS = "tasks"  # submitit's folder inside the logs: its pickles, removed as soon as their tasks are gone

assert {field.name for field in fields(Cluster)} == set(KNOWN)
