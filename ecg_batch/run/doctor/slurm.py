"""Slurm: whether it is here and answers, its limits, its partitions, and whether a cluster file fits them."""

import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from ecg_batch.errors import UserError, number_of
from ecg_batch.run.doctor.facts import Fact, odd, wrong
from ecg_batch.run.slurm.capacity import ADVICE, Partition, Site, chosen, misfits, read_partitions, site_of
from ecg_batch.run.slurm.capacity import COLUMNS as OF_NODES
from ecg_batch.run.slurm.cluster import Cluster, load_cluster
from ecg_batch.run.slurm.queue import ask, last_words

ANSWER_S = 4.0  # for each question; after the first silence no more are asked
TOOLS = ("sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel")
SETTINGS = ("MaxArraySize", "MaxJobCount", "EnforcePartLimits", "JobSubmitPlugins", "SelectTypeParameters", "DefMemPerCPU",
            "DefMemPerNode", "MaxMemPerNode", "AccountingStorageType", "AccountingStorageEnforce", "PrivateData")  # fmt: skip
MOST_PARTITIONS = 20  # that are shown one by one


def slurm(path: Path | None) -> Iterator[Fact]:
    """path: of a cluster file, which is held against what the nodes have."""
    absent = [name for name in TOOLS if not shutil.which(name)]
    cluster, unreadable = _load(path)
    yield from unreadable
    if len(absent) == len(TOOLS):
        if path:
            yield wrong("Slurm", "none on this machine: none of its commands is on the PATH",
                        "Go to a login node (perhaps `module load slurm`), or leave --cluster out and say --workers N")  # fmt: skip
        else:
            yield Fact("Slurm", "none on this machine: none of its commands is on the PATH; --workers N runs without it")
        return
    if absent:
        report = wrong if path else odd
        yield report("Slurm", f"{', '.join(absent)} not on the PATH, though others of its commands are",
                     "Ask the site, or module load slurm")  # fmt: skip
    configuration = ask("scontrol", "show", "config", answer_s=ANSWER_S)
    if configuration is None:
        yield from _silent(path)
        return
    yield from _settings(configuration)
    yield from _own_job()
    partitions = read_partitions(ask("sinfo", "--noheader", "--all", "--exact", f"--format={OF_NODES}", answer_s=ANSWER_S) or "")
    yield from _partitions(partitions)
    yield from _associations(configuration)
    if cluster:
        yield from _fits(cluster, site_of(partitions, configuration), configuration)


def _load(path: Path | None) -> tuple[Cluster | None, list[Fact]]:
    if not path:
        return None, []
    try:
        return load_cluster(path), []
    except UserError as error:
        return None, [wrong("cluster file", str(error), "Mend the file; configs/slurm.yaml has every key")]


def _silent(path: Path | None) -> Iterator[Fact]:
    """Its commands are here, but nobody answers. scontrol knows its version without the controller, if it has its settings."""
    words = last_words("scontrol") or "silent"
    said = ask("scontrol", "--version", answer_s=ANSWER_S) if "timed out" not in words else None
    version = f"{said.strip()}; " if said else ""
    report = wrong if path else odd
    yield report("Slurm", f"{version}its commands are here, but the controller gives no answer: {words}",
                 "A login node reaches it; or the controller is down: ask the site. Here --workers N runs without it")  # fmt: skip


def _settings(configuration: str) -> Iterator[Fact]:
    told = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", configuration, re.MULTILINE))
    version, name = told.get("SLURM_VERSION", "version unknown"), told.get("ClusterName", "without a name")
    yield Fact("Slurm", f"{version}, cluster {name}, answers")
    yield Fact("Slurm", ", ".join(f"{name} {told[name]}" for name in SETTINGS if told.get(name)) or "no settings told")


def _own_job() -> Iterator[Fact]:
    names = ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURMD_NODENAME", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE")
    if job := [f"{name}={os.environ[name]}" for name in names if name in os.environ]:
        yield Fact("Slurm job", " ".join(job))


def _partitions(partitions: tuple[Partition, ...]) -> Iterator[Fact]:
    if not partitions:
        yield Fact("partitions", f"sinfo shows none ({last_words('sinfo') or 'the site may keep them private'})")
    for one in partitions[:MOST_PARTITIONS]:
        times = {None: "time unknown", math.inf: "no limit of time"}
        time = times.get(one.time_min) or f"{one.time_min:,.6g} min"
        kinds = "; ".join(map(str, one.kinds[:6])) + (f"; {len(one.kinds) - 6} kinds more" if len(one.kinds) > 6 else "")
        notes = " (default)" * one.is_default + " (down)" * (not one.is_up)
        yield Fact("partition", f"{one.name}{notes}: {time}; {kinds or 'no nodes'}")
    if len(partitions) > MOST_PARTITIONS:
        yield Fact("partitions", f"{len(partitions) - MOST_PARTITIONS} more")


def _associations(configuration: str) -> Iterator[Fact]:
    """What accounting allows this user. Asked by name: sacctmgr does not take numbers."""
    if "accounting_storage/slurmdbd" not in configuration or not (name := _user_name()):
        return
    columns = "Account,Partition,QOS,MaxJobs,MaxSubmit,GrpSubmit"
    question = ("show", "associations", f"user={name}", f"format={columns}")
    said = ask("sacctmgr", "--noheader", "--parsable2", *question, answer_s=ANSWER_S)
    if said is None:
        yield Fact("accounting", f"sacctmgr gives no answer ({last_words('sacctmgr')})")
        return
    for line in said.splitlines()[:10]:
        words = [f"{column} {word}" for column, word in zip(columns.split(","), line.split("|"), strict=False) if word]
        yield Fact("accounting", ", ".join(words))
    if not said.strip():
        yield Fact("accounting", f"no association of the user {name}")


def _fits(cluster: Cluster, site: Site | None, configuration: str) -> Iterator[Fact]:
    unfit = [wrong("cluster file", words, ADVICE) for _, words in misfits(cluster, site)]
    yield from unfit
    if site and cluster.partition and not chosen(cluster, site):
        known = ", ".join(one.name for one in site.partitions)
        yield odd("cluster file", f"partition is {cluster.partition}, and sinfo shows {known}",
                  "Unless the site gives it another name, take one of these")  # fmt: skip
    elif down := [one.name for one in chosen(cluster, site) if not one.is_up]:
        yield odd("cluster file", f"partition {', '.join(down)} is down", "Tasks wait until it is up; ask the site")
    elif not unfit:
        where = ", ".join(one.name for one in chosen(cluster, site))
        known = any(one.kinds for one in chosen(cluster, site))
        held = f"a node of {where} holds a task" if known else "not compared: Slurm does not say what its nodes have"
        yield Fact("cluster file", held)
    most = re.search(r"^MaxJobCount\s*=\s*([0-9]+)", configuration, re.MULTILINE)
    if most and cluster.most_tasks > int(most[1]):
        held = f"the site holds {number_of(int(most[1]), 'job')} of all users (MaxJobCount)"
        yield odd("cluster file", f"most_tasks is {cluster.most_tasks:,}, and {held}",
                  "Set it lower; else fewer are submitted at once")  # fmt: skip


def _user_name() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (KeyError, ImportError):
        return ""
