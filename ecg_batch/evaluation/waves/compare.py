"""What the marks that records carry are worth: a network that has learned from them alone, held against people's marks.

Waves in LUDB, R peaks in MIT-BIH, beside public detectors, and beside the same network that has learned from copies of the donors
(the cheap rival) and from the marks of LUDB's other records (the ceiling). Trainings are pure functions of what they state, and
their weights are kept in REPORT/delineators: an evaluation that was killed goes on after the last one.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ecg_batch.dataset.plan import read_plan
from ecg_batch.evaluation import weights
from ecg_batch.evaluation.waves import delineator
from ecg_batch.evaluation.waves.copies import copies
from ecg_batch.evaluation.waves.delineator import UNKNOWN, Delineator, Taught, Training, fit, probabilities
from ecg_batch.evaluation.waves.marked import Delineated, names_in, read_delineated, spans_to_masks
from ecg_batch.evaluation.waves.public import neurokit_waves
from ecg_batch.evaluation.waves.scores import (
    BOUNDARIES,
    Scored,
    f1,
    interval,
    macro,
    score_lead,
    together,
    waves_of,
)
from ecg_batch.keys import Range
from ecg_batch.progress import track

FOLDER = "delineators"
SYNTHETIC, COPIES, CEILING, PUBLIC = "synthetic", "copies of the donors", "LUDB's marks, other records", "NeuroKit2"
ENDS_MS, BINS = 150, 60  # of the histogram of errors
LOSES = 0.003  # F1: synthetic records may lie so far under copies


@dataclass(frozen=True)
class WaveSettings:
    """What the evaluation of waves spends."""

    teaching: Annotated[int, Range(1, 10**7, "records that teach, at most")] = 8192
    steps: Annotated[int, Range(1, 10**6, "of each training, half of them for the ceiling")] = 6000
    rows: Annotated[int, Range(1, 4096, "leads of each step")] = 32
    seed: Annotated[int, Range(0, 2**31, "of each training")] = 0
    folds: Annotated[int, Range(0, 100, "of LUDB's records, for the ceiling: each scored by a network of the others")] = 2
    noisy_s: Annotated[int, Range(10, 10**6, "seconds of each recording of MIT-BIH that noise is mixed into")] = 600
    residuals: Annotated[int, Range(1, 10**5, "records of PTB-XL that noise is taken from")] = 300
    workers: Annotated[int, Range(1, 1024, "trainings at once")] = 2

    def training(self) -> Training:
        return Training(self.steps, self.rows, seed=self.seed)


@dataclass(frozen=True)
class Job:
    """A training. name: of its file; source: one of SYNTHETIC, COPIES, CEILING; names: of the records of LUDB that teach."""

    name: str
    source: str
    folder: Path
    settings: WaveSettings
    names: tuple[str, ...] = ()

    def training(self) -> Training:
        """Fifty records are learned by heart in half of the time."""
        whole = self.settings.training()
        return replace(whole, steps=max(whole.steps // 2, 1)) if self.source == CEILING else whole

    def key(self) -> str:
        """What its weights depend on."""
        run_id = read_plan(self.folder).run_id if self.source != CEILING else ""
        spent = asdict(self.training()) | {"teaching": self.settings.teaching}
        return json.dumps({"source": self.source, "run id": run_id, "names": self.names, **spent})

    def taught(self) -> Taught:
        if self.source == CEILING:
            return marked_by_people([read_delineated(self.folder, name) for name in self.names])
        if self.source == COPIES:
            return copies(self.folder, self.settings.teaching)
        return synthetic(self.folder, self.settings.teaching)


def synthetic(folder: Path, most: int) -> Taught:
    """The records of a dataset with their waves."""
    from ecg_batch.reading.loader import ECGIterable, ECGLoader
    from ecg_batch.reading.synthetic import open_dataset

    dataset = open_dataset(folder)
    stream = ECGIterable(dataset, shuffle=False, raw=True, targets="waves")
    batches = list(islice(ECGLoader(stream), -(-most // stream.batch)))
    ecg, waves = (np.concatenate([batch[name].numpy() for batch in batches])[:most] for name in ("signal", "waves"))
    return Taught(ecg, waves[:, None], dataset.fs_hz)


def marked_by_people(records: Sequence[Delineated]) -> Taught:
    """Records of LUDB's layout; what lies before a lead's first and after its last mark is unknown."""
    waves = np.full((len(records), len(records[0].waves), 3, records[0].ecg.shape[1]), UNKNOWN, np.uint8)
    for record, each in zip(records, waves, strict=True):
        for lead, out in zip(record.waves, each, strict=True):
            low, high = (round(at_s * record.fs_hz) for at_s in lead.within_s())
            on_s, end_s = ([at[lead.kind == kind] for kind in range(3)] for at in (lead.on_s, lead.end_s))
            out[:, low:high] = spans_to_masks(on_s, end_s, out.shape[1], record.fs_hz)[:, low:high]
    return Taught(np.stack([record.ecg for record in records]).astype(np.float32), waves, records[0].fs_hz)


def trained(jobs: Sequence[Job], out: Path) -> dict[str, Delineator]:
    """The network of each job, by its name; those of OUT/delineators that state the same are not trained again."""
    return weights.trained(jobs, out / FOLDER, jobs[0].settings.workers, delineator.load, train, "delineators")


def train(job: Job, path: Path) -> None:
    torch.set_num_threads(1)
    delineator.save(path, fit(job.taught(), job.training()), {weights.MADE_WITH: job.key()})


# LUDB -----------------------------------------------------------------------------------------------------------------


def waves_section(dataset: Path, ludb: Path, names: Sequence[str] | None, out: Path, settings: WaveSettings) -> dict:
    """The network of each source on every lead of these records, and NeuroKit2."""
    names = names_in(ludb, "i", names)
    records = [read_delineated(ludb, name) for name in track(names, "reading", "records")]
    folds = [names[fold :: settings.folds] for fold in range(min(settings.folds, len(names)))] if len(names) > 1 else []
    jobs = [Job(source.split()[0], source, dataset, settings) for source in (SYNTHETIC, COPIES)]
    ceiling = [Job(f"ludb-{at}", CEILING, ludb, settings, tuple(sorted(set(names) - set(fold)))) for at, fold in enumerate(folds)]
    models = trained([*jobs, *ceiling], out)
    scored = {job.source: [delineated(models[job.name], record) for record in track(records, job.source, "records")]
              for job in jobs}  # fmt: skip
    if folds:
        of = {name: models[job.name] for job, fold in zip(ceiling, folds, strict=True) for name in fold}
        scored[CEILING] = [delineated(of[record.name], record) for record in track(records, CEILING, "records")]
    scored[PUBLIC] = [by_neurokit(record) for record in track(records, PUBLIC, "records")]
    rows = {name: summary(each, scored[COPIES] if name == SYNTHETIC else None) for name, each in scored.items()}
    return {"records": len(records), "leads": sum(len(record.waves) for record in records), "folds": len(folds), "rows": rows,
            "by record": {name: dict(zip(names, macro(counts_of(each)).round(4).tolist(), strict=True))
                          for name, each in scored.items()}}  # fmt: skip


def delineated(model: Delineator, record: Delineated) -> Scored:
    said = probabilities(model, record.ecg, record.fs_hz)
    return together([score_lead(theirs, waves_of(each)) for theirs, each in zip(record.waves, said, strict=True)])


def by_neurokit(record: Delineated) -> Scored:
    """NeuroKit2's method of wavelets, lead by lead, at the record's own rate. Where it fails, it has found nothing."""
    return together([score_lead(theirs, neurokit_waves(lead, record.fs_hz)) for theirs, lead in zip(record.waves, record.ecg,
                                                                                                  strict=True)])  # fmt: skip


def counts_of(scored: Sequence[Scored]) -> np.ndarray:
    """(record, boundary, 3)."""
    return np.array([each.counts for each in scored])


def summary(scored: Sequence[Scored], against: Sequence[Scored] | None) -> dict:
    counts, off_ms = counts_of(scored), together(scored).off_ms
    each = f1(counts.sum(axis=0))
    row = {"macro F1": interval(counts), "P": interval(counts[:, :2]), "by boundary": {}}
    for name, value, of, off in zip(BOUNDARIES, each, counts.sum(axis=0), off_ms, strict=True):
        found, extra, missed = of.tolist()
        edges = np.linspace(-ENDS_MS, ENDS_MS, BINS + 1)
        row["by boundary"][name] = {
            "F1": float(value), "found": found, "extra": extra, "missed": missed,
            "mean ms": _mean(off), "SD ms": _mean(off, np.std), "histogram": np.histogram(off, edges)[0].tolist(),
        }  # fmt: skip
    if against is not None:
        row["less copies"] = interval(counts, against=counts_of(against))
    return row


def _mean(off_ms: np.ndarray, of: Callable = np.mean) -> float:
    return float(of(off_ms)) if len(off_ms) else float("nan")
