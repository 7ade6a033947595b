"""What the types of beats that long records carry are worth: a network taught by them alone, held against people's annotations.

Classes N, S and V of ANSI/AAMI EC57 at the places where people put beats, one lead, beside the same network taught by copies of
the donors (the cheap rival) and by other recordings of the same folder (the ceiling), and beside a rule. Trainings are pure
functions of what they state, and their weights are kept in REPORT/classifiers: an evaluation that was killed goes on after the
last one.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ecg_batch.dataset.layout import BEATS
from ecg_batch.dataset.plan import read_plan
from ecg_batch.evaluation import weights
from ecg_batch.evaluation.beats import classifier
from ecg_batch.evaluation.beats.classifier import BeatClassifier, Taught, Training, fit, kinds_of, said_of
from ecg_batch.evaluation.beats.features import Seen, seen
from ecg_batch.evaluation.beats.recordings import Recording, read_recording
from ecg_batch.evaluation.beats.rules import types_by_rule
from ecg_batch.evaluation.beats.scores import confusion, less, of_class, scored
from ecg_batch.evaluation.beats.teaching import copies, marked_by_people, synthetic
from ecg_batch.evaluation.waves.marked import names_in
from ecg_batch.evaluation.waves.scores import f1
from ecg_batch.files import sha256_file
from ecg_batch.keys import Range
from ecg_batch.progress import track
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.rhythm_words import BEAT_CLASSES

FOLDER = "classifiers"
SYNTHETIC, COPIES, CEILING, RULE = "synthetic", "copies of the donors", "people's marks, other recordings", "rule"
ECTOPIC = ("V", "S")
WORST = 6  # recordings that are named


@dataclass(frozen=True)
class BeatSettings:
    """What the evaluation of beat types and fibrillation spends."""

    records: Annotated[int, Range(1, 10**6, "records that teach, at most")] = 400
    seconds: Annotated[int, Range(60, 86_400, "of each of them, from its beginning, at most")] = 1800
    seeds: Annotated[int, Range(1, 100, "trainings of each row, whose beats count together")] = 3
    steps: Annotated[int, Range(1, 10**6, "of each training, half of them for the ceiling")] = 1500
    beats: Annotated[int, Range(8, 10**5, "of each step")] = 128
    folds: Annotated[int, Range(0, 1000, "of the recordings, for the ceiling: each scored by a network of the others")] = 11
    workers: Annotated[int, Range(1, 1024, "trainings at once")] = 2


@dataclass(frozen=True)
class Job:
    """A training. name: of its file; source: one of SYNTHETIC, COPIES, CEILING; names: of the recordings that teach."""

    name: str
    source: str
    folder: Path
    settings: BeatSettings
    seed: int = 0
    names: tuple[str, ...] = ()

    def training(self) -> Training:
        """A few recordings are learned by heart in half of the time."""
        whole = Training(self.settings.steps, self.settings.beats, seed=self.seed)
        return replace(whole, steps=max(whole.steps // 2, 1)) if self.source == CEILING else whole

    def key(self) -> str:
        """What its weights depend on."""
        return json.dumps(self.facts() | asdict(self.training()))

    def facts(self) -> dict:
        """What it is taught from."""
        read = [self.settings.records, self.settings.seconds] if self.source == SYNTHETIC else []
        return {"source": self.source, "of": content_of(self.source, self.folder), "names": self.names, "read": read}

    def taught(self) -> Taught:
        return taught_by(self.source, self.folder, self.names, self.settings.records, self.settings.seconds)


def content_of(source: str, folder: Path) -> str:
    """What a source is: samples and annotations of a dataset, the bank of its donors, or where people's recordings are."""
    if source == SYNTHETIC:
        return f"{open_dataset(folder).content()} {sha256_file(folder / BEATS)}"
    return read_plan(folder).inputs["bank"] if source == COPIES else str(folder)


@cache
def taught_by(source: str, folder: Path, names: tuple[str, ...], records: int, seconds: int) -> Taught:
    """Kept for the next seed in the same process."""
    if source == CEILING:
        return marked_by_people([read_recording(folder, name) for name in names])
    return copies(folder) if source == COPIES else synthetic(folder, records, seconds)


def train(job: Job, path: Path) -> None:
    torch.set_num_threads(1)
    classifier.save(path, fit(job.taught(), job.training()), {weights.MADE_WITH: job.key()})


def trained(jobs: Sequence[Job], out: Path) -> dict[str, BeatClassifier]:
    """The network of each job, by its name; those of OUT/classifiers that state the same are not trained again."""
    return weights.trained(jobs, out / FOLDER, jobs[0].settings.workers, classifier.load, train, "classifiers")


# MIT-BIH --------------------------------------------------------------------------------------------------------------


def types_section(dataset: Path, mitdb: Path, names: Sequence[str] | None, out: Path, settings: BeatSettings) -> dict:
    """The networks of each source on one lead of these recordings, and the rule."""
    names = names_in(mitdb, "atr", names)
    recordings = [read_recording(mitdb, name) for name in track(names, "reading", "recordings")]
    sights, truths = [seen(each.lead, each.r) for each in recordings], [kinds_of(each.symbol) for each in recordings]
    folds = in_folds(names, settings.folds)
    jobs = [Job(f"{source.split()[0]}-{seed}", source, dataset, settings, seed)
            for source in (SYNTHETIC, COPIES) for seed in range(settings.seeds)]  # fmt: skip
    ceiling = [Job(f"people-{at}", CEILING, mitdb, settings, at, tuple(sorted(set(names) - set(fold))))
               for at, fold in enumerate(folds)]  # fmt: skip
    models = trained([*jobs, *ceiling], out)
    said = {source: [[by_network(models[job.name], sight) for sight in sights] for job in jobs if job.source == source]
            for source in (SYNTHETIC, COPIES)}  # fmt: skip
    if folds:
        of = {name: models[job.name] for job, fold in zip(ceiling, folds, strict=True) for name in fold}
        said[CEILING] = [[by_network(of[name], sight) for name, sight in zip(names, sights, strict=True)]]
    said[RULE] = [[types_by_rule(sight) for sight in sights]]
    confusions = {source: np.array([[confusion(*each) for each in zip(truths, of_seed, strict=True)] for of_seed in of_seeds])
                  for source, of_seeds in said.items()}  # (seed, recording, 5, 3) each  # fmt: skip
    return {"recordings": len(names), "folds": len(folds), "leads": leads_of(recordings), **summary(names, confusions)}


def in_folds(names: Sequence[str], folds: int) -> list[list[str]]:
    """Neighbours together, since recordings of one person have numbers that follow each other (201 and 202 in MIT-BIH)."""
    if len(names) < 2 or not folds:
        return []
    return [list(part) for part in np.array_split(np.array(names), min(folds, len(names)))]


def by_network(model: BeatClassifier, sight: Seen) -> np.ndarray:
    return said_of(model, sight).argmax(axis=1)


def leads_of(recordings: Sequence[Recording]) -> dict[str, int]:
    names = [each.lead_name for each in recordings]
    return {name: names.count(name) for name in sorted(set(names))}


def summary(names: Sequence[str], confusions: dict[str, np.ndarray]) -> dict:
    """confusions: of each row (seed, recording, 5, 3)."""
    whole = {source: each.sum(axis=0) for source, each in confusions.items()}  # (recording, 5, 3)
    truth = next(iter(confusions.values()))[0].sum(axis=2)  # (recording, 5)
    most = int(truth[:, BEAT_CLASSES.index("S")].argmax())
    rows = {source: row_of(each, most) for source, each in confusions.items()}
    for other in (COPIES, RULE):
        rows[SYNTHETIC][f"less {other}"] = {name: less(whole[SYNTHETIC], whole[other], name) for name in ECTOPIC}
    return {
        "beats": dict(zip(BEAT_CLASSES, truth.sum(axis=0).tolist(), strict=True)),
        "most S": {"recording": names[most], "S": int(truth[most, BEAT_CLASSES.index("S")])},
        "rows": rows,
        "worst recordings": {source: worst(names, each / len(confusions[source])) for source, each in whole.items()},
        "confusion by recording": {source: dict(zip(names, each.tolist(), strict=True)) for source, each in whole.items()},
    }  # fmt: skip


def row_of(confusions: np.ndarray, most: int) -> dict:
    """Of confusions (seed, recording, 5, 3); most: the recording that has most S, which may stand for them all."""
    whole = confusions.sum(axis=0)
    others = np.delete(whole, most, axis=0)
    of_seeds = {name: f1(of_class(confusions.sum(axis=1), name)).round(4).tolist() for name in ECTOPIC}
    return {name: scored(whole, name) for name in ECTOPIC} | {
        "S without the recording of most": scored(others, "S") if len(others) else {},
        "F1 of seeds": of_seeds, "confusion": (whole.sum(axis=0) / len(confusions)).round(1).tolist(),
    }  # fmt: skip


def worst(names: Sequence[str], whole: np.ndarray) -> dict[str, dict[str, float]]:
    """Recordings with most beats of a class extra or missed, mean over seeds."""
    out = {}
    for name in ECTOPIC:
        for column, what in ((1, "extra"), (2, "missed")):
            counts = of_class(whole, name)[:, column]
            order = [at for at in np.argsort(-counts, kind="stable")[:WORST] if counts[at] > 0]
            out[f"{name} {what}"] = {names[at]: round(float(counts[at]), 1) for at in order}
    return out
