"""Capacity: what the nodes of a site have, and what a cluster file asks for that none of them can hold.

Slurm itself may take such a job and let it wait for ever. Only what surely cannot run is refused: where Slurm does not say what a
node has, or where the site or `extra` may change what is asked for, nothing is.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.errors import number_of
from ecg_batch.run.slurm.cluster import Cluster, is_replaced, parse_cluster
from ecg_batch.run.slurm.queue import ask
from ecg_batch.settings import read_settings

ADVICE = "Ask for less, or name another partition"
ASKED_S = 10.0  # for each answer; then the run goes on without
COLUMNS = "%P|%a|%l|%B|%D|%c|%m|%G"
MB_PER_GB = 1024  # as Slurm counts
STATES = ("up", "down", "drain", "inact")
TIME = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,6}):([0-9]{2})(?::([0-9]{2}))?")
GPU = re.compile(r"gpu(?::[^:,()]+)??(?::([0-9]+))?(?:\([^)]*\))?")


@dataclass(frozen=True)
class Kind:
    """Nodes that are alike. None: Slurm does not say."""

    nodes: int
    cpus: int | None
    memory_mb: int | None
    gpus: int | None

    def __str__(self) -> str:
        cpus = "CPUs unknown" if self.cpus is None else number_of(self.cpus, "CPU")
        memory = "memory unknown" if self.memory_mb is None else f"{_gb(self.memory_mb)} GB"
        gpus = "GPUs unknown" if self.gpus is None else number_of(self.gpus, "GPU") if self.gpus else "no GPU"
        return f"{number_of(self.nodes, 'node')} of {cpus}, {memory}, {gpus}"


@dataclass(frozen=True)
class Partition:
    """time_min: the longest a job may ask for, infinity where there is no limit, None where Slurm does not say."""

    name: str
    is_default: bool
    is_up: bool
    time_min: float | None
    kinds: tuple[Kind, ...]


@dataclass(frozen=True)
class Site:
    """What sinfo tells. reroutes: the site has a plugin that may send a job without a partition anywhere; has_qos: a QOS counts,
    be it one that nobody names.
    """

    partitions: tuple[Partition, ...]
    reroutes: bool = False
    has_qos: bool = False


# Asking ---------------------------------------------------------------------------------------------------------------


def ask_site() -> Site | None:
    """The partitions of this site, or None where Slurm does not answer, or has none to show."""
    answer = ask("sinfo", "--noheader", "--all", "--exact", f"--format={COLUMNS}", answer_s=ASKED_S)
    partitions = read_partitions(answer or "")
    return site_of(partitions, ask("scontrol", "show", "config", answer_s=ASKED_S)) if partitions else None


def site_of(partitions: tuple[Partition, ...], configuration: str | None) -> Site | None:
    """configuration: what `scontrol show config` says. None where sinfo shows nothing."""
    return Site(partitions, reroutes(configuration), has_qos(configuration)) if partitions else None


def read_partitions(answer: str) -> tuple[Partition, ...]:
    """Partitions from sinfo's lines of COLUMNS. Lines of another form are passed over, numbers of another form are unknown."""
    found: dict[str, Partition] = {}
    for line in answer.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) != COLUMNS.count("|") + 1 or words[1] not in STATES or not words[0].isprintable() or words[0] in ("", "*"):
            continue
        name = words[0].removesuffix("*")
        nodes, cpus, memory_mb, most_cpus = (_number(words[at]) for at in (4, 5, 6, 3))
        cpus = min(cpus, most_cpus) if cpus is not None and most_cpus else cpus
        kinds = found[name].kinds if name in found else ()
        kinds += (Kind(nodes or 0, cpus, memory_mb, read_gpus(words[7])),) if nodes != 0 else ()
        found[name] = Partition(name, words[0].endswith("*"), words[1] == "up", read_minutes(words[2]), kinds)
    return tuple(found.values())


def reroutes(configuration: str | None) -> bool:
    """Whether `scontrol show config` names a plugin that may change jobs as they are submitted; also where it does not answer."""
    plugins = re.findall(r"^(?:JobSubmit|CliFilter)Plugins\s*=\s*(.*)", configuration or "", re.MULTILINE)
    return not plugins or any(named.strip() not in ("", "(null)") for named in plugins)


def has_qos(configuration: str | None) -> bool:
    """Whether limits of a QOS are enforced, or may be: an account's usual one may lift a partition's limit of time."""
    enforced = re.search(r"^AccountingStorageEnforce\s*=\s*(.*)", configuration or "", re.MULTILINE)
    return not enforced or bool({"qos", "all", "limits", "safe"} & set(re.split(r"[,\s]+", enforced[1].lower())))


def read_minutes(text: str) -> float | None:
    """Minutes of a limit as sinfo writes it: '2-00:00:00', '30:00' (minutes and seconds), 'infinite'."""
    if text.lower() in ("infinite", "unlimited"):
        return math.inf
    if not (found := TIME.fullmatch(text)):
        return None
    days, first, second, third = (int(part or 0) for part in found.groups())
    if found[4] is None and found[1] is None:
        return first + second / 60
    return 24 * 60 * days + 60 * first + second + third / 60


def read_gpus(text: str) -> int | None:
    """GPUs of a node from its gres: 'gpu:a100:4(S:0-1),nvme:10', '(null)'. None where what is said of them is of another form."""
    parts = re.findall(r"[^,()]+(?:\([^)]*\))?", text.removeprefix("(null)"))
    gpus = [GPU.fullmatch(part) for part in parts if re.match(r"gpu\b", part)]
    return None if None in gpus else sum(int(found[1] or 1) for found in gpus)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None


def _gb(memory_mb: float) -> str:
    return f"{memory_mb / MB_PER_GB:,.4g}"


# Holding what is asked against it --------------------------------------------------------------------------------------


def load_fitting_cluster(path: Path) -> Cluster:
    """Read and check a cluster file, as cluster.load_cluster. UserError also where no node of the site could hold a task."""
    cluster = parse_cluster(written := read_settings(path, "the cluster file"))
    if wrong := list(misfits(cluster, ask_site())):
        raise written.error((wrong[0][0],), f"{'; '.join(words for _, words in wrong)}. {ADVICE}")
    return cluster


def misfits(cluster: Cluster, site: Site | None) -> Iterator[tuple[str, str]]:
    """(key of the cluster file, why no node can hold it), one for each key, or one for what is only too much together. None of
    what `extra` says in another way, and none where the site does not say what it has.
    """
    partitions = chosen(cluster, site)
    if not partitions:
        return
    where = f"partition {' or '.join(one.name for one in partitions)}" if len(partitions) < 4 else "all partitions"
    asked = _asked(cluster)
    kinds = [kind for one in partitions for kind in one.kinds]
    wrong = False
    for key, (needed, words, has) in asked.items():
        most = max((math.inf if has(kind) is None else has(kind) for kind in kinds), default=math.inf)
        if needed > most:
            wrong = True
            yield key, f"{words}, and no node of {where} has more than {_shown(key, most)}"
    if not wrong and kinds and not any(_holds(kind, asked) for kind in kinds):
        together = ", ".join(words for _, words, _ in asked.values())
        yield next(iter(asked)), (
            f"{together}, and no node of {where} has all of that at once: it has {', '.join(map(str, kinds[:4]))}"
        )
    times = [one.time_min for one in partitions]
    if _limits_time(cluster) and not site.has_qos and None not in times and cluster.walltime_min > max(times):
        yield "walltime_min", f"walltime_min is {cluster.walltime_min:,}, and {where} allows {max(times):,.6g} min"


def chosen(cluster: Cluster, site: Site | None) -> tuple[Partition, ...]:
    """The partitions a task may go to; empty where that is not known."""
    extra = dict(cluster.extra)
    if not site or {"clusters", "M"} & extra.keys():
        return ()
    named = extra.get("partition") if is_replaced("partition", extra) else cluster.partition
    if named:
        names = str(named).split(",")
        found = tuple(one for one in site.partitions if one.name in names)
        return found if len(found) == len(set(names)) else ()  # a plugin may know names that sinfo does not
    default = tuple(one for one in site.partitions if one.is_default)
    return site.partitions if site.reroutes or not default else default


def _asked(cluster: Cluster) -> dict[str, tuple[float, str, object]]:
    """Key -> what a task needs, in words, and what of a node it is held against."""
    extra = dict(cluster.extra)
    asked = {}
    if cluster.memory_gb and not is_replaced("mem", extra):
        needed_mb = math.ceil(cluster.memory_gb * MB_PER_GB)
        asked["memory_gb"] = needed_mb, f"memory_gb is {cluster.memory_gb:g}", lambda kind: kind.memory_mb
    if cluster.cpus and not is_replaced("cpus_per_task", extra):
        asked["cpus"] = cluster.cpus, f"cpus is {cluster.cpus}", lambda kind: kind.cpus
    if cluster.gpus and not is_replaced("gpus_per_node", extra):
        asked["gpus"] = cluster.gpus, f"gpus is {cluster.gpus}", lambda kind: kind.gpus
    return asked


def _holds(kind: Kind, asked: dict) -> bool:
    return all(has(kind) is None or needed <= has(kind) for needed, _, has in asked.values())


def _limits_time(cluster: Cluster) -> bool:
    """A QOS may lift a partition's limit of time (its flag PartitionTimeLimit), and so may a reservation."""
    extra = dict(cluster.extra)
    lifted = cluster.qos or {"qos", "reservation"} & extra.keys()
    return bool(cluster.walltime_min and not lifted and not is_replaced("time", extra))


def _shown(key: str, most: float) -> str:
    return f"{_gb(most)} GB" if key == "memory_gb" else "none" if not most else f"{most:,}"
