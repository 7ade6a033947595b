"""Examine: all questions at once, each with its time."""

from functools import partial
from pathlib import Path

from ecg_batch.run.doctor import folders, machine, software
from ecg_batch.run.doctor.facts import Fact, Worth, found
from ecg_batch.run.doctor.slurm import slurm

LIMIT_S = 30.0  # torch from a slow disk takes longest; where nothing hangs, all answer in some seconds


def examine(out: Path | None = None, cluster: Path | None = None) -> list[Fact]:
    """What there is to say of this machine and its software. Nothing is left behind in the folder of `out`."""
    questions = {
        "python": software.python,
        "ecg-batch": software.package,
        "kernels": software.compiled,
        "GPU": software.gpu,
        "system": machine.system,
        "memory": machine.memory,
        "user": machine.user,
        "limits": machine.limits,
        "--out": partial(folders.dataset, out, bool(cluster)),
        "Slurm": partial(slurm, cluster),
    }
    return list(found(questions, LIMIT_S))


def keeps_from_working(facts: list[Fact]) -> bool:
    return any(fact.worth == Worth.WRONG for fact in facts)
