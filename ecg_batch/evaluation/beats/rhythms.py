"""What the rhythms that long records carry are worth: a network taught fibrillation by them alone, held against people.

Windows and onsets in recordings whose rhythms people marked (MIT-BIH), and records that they labelled as a whole (CinC 2017),
beside the same network taught by copies of the donors, by the labels of other records, and beside a rule on RR.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ecg_batch.dataset.beats import RHYTHM
from ecg_batch.dataset.plan import read_plan
from ecg_batch.donors.bank import read_bank
from ecg_batch.evaluation import weights
from ecg_batch.evaluation.beats import fibrillation
from ecg_batch.evaluation.beats.compare import CEILING, COPIES, FOLDER, RULE, SYNTHETIC, BeatSettings, Job
from ecg_batch.evaluation.beats.features import HZ
from ecg_batch.evaluation.beats.fibrillation import (
    HOP_S,
    WINDOW_S,
    FibrillationNet,
    Windows,
    WindowTraining,
    delineator_sum,
    fit,
    irregular,
    log_odds,
    windows_of,
)
from ecg_batch.evaluation.beats.recordings import labels_in, read_labelled, read_recording, rhythm_at
from ecg_batch.evaluation.beats.scores import over_recordings
from ecg_batch.evaluation.scores import bootstrap, fast_macro_auroc
from ecg_batch.evaluation.waves.marked import names_in
from ecg_batch.evaluation.waves.scores import f1, pairs
from ecg_batch.leads import LEADS, MV_PER_UV, twelve_leads
from ecg_batch.progress import track
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.rhythm_words import FIBRILLATION, FLUTTER
from ecg_batch.synthesis.donor_marks import bank_marks

TAUGHT_LEADS = ("I", "II")  # of each record one by lot
MOST = 16  # windows of a record that teach, by lot
SMOOTHED = 7  # windows over which log odds are averaged: 40 s
LASTS = 6  # windows: an onset has so many without it before and with it after, 30 s
ONSET_S = 30.0  # ours and theirs are the same within it
IRREGULAR = 0.5  # share of steps of RR over 10 % from which on the rule says fibrillation
FOLDS = 5  # of CinC 2017's records, for the ceiling


@dataclass(frozen=True)
class RhythmJob(Job):
    """A training on windows."""

    def training(self) -> WindowTraining:
        return WindowTraining(steps=self.settings.steps, seed=self.seed)

    def facts(self) -> dict:
        return super().facts() | {"delineator": delineator_sum()}

    def taught(self) -> Windows:
        if self.source == CEILING:
            return of_people(self.folder, self.names)
        if self.source == COPIES:
            return copies(self.folder)
        return synthetic(self.folder, self.settings.records, self.settings.seconds)


def train(job: RhythmJob, path: Path) -> None:
    torch.set_num_threads(1)
    fibrillation.save(path, fit(job.taught(), job.training()), {weights.MADE_WITH: job.key()})


def trained(jobs: Sequence[RhythmJob], out: Path) -> dict[str, FibrillationNet]:
    """The network of each job, by its name; those of OUT/classifiers that state the same are not trained again."""
    workers = jobs[0].settings.workers
    return weights.trained(jobs, out / FOLDER, workers, fibrillation.load, train, "classifiers of rhythm")


def jobs_of(dataset: Path, settings: BeatSettings) -> list[RhythmJob]:
    return [RhythmJob(f"fibrillation-{source.split()[0]}-{seed}", source, dataset, settings, seed)
            for source in (SYNTHETIC, COPIES) for seed in range(settings.seeds)]  # fmt: skip


def has_fibrillation(folder: Path, records: int) -> bool:
    """Whether one of a dataset's first records says so."""
    dataset = open_dataset(folder)
    return any(FIBRILLATION in dataset.beats(record)["aux"].to_pylist() for record in range(min(records, len(dataset))))


# What teaches ---------------------------------------------------------------------------------------------------------


@cache
def synthetic(folder: Path, records: int, seconds: int) -> Windows:
    """Windows of a dataset's long records, one lead each, MOST of a record, by lot. Where a rhythm begins, nothing is taught."""
    dataset, parts = open_dataset(folder), []
    for record in track(range(min(records, len(dataset))), "rhythms", "records"):
        rng = np.random.default_rng([3, record])
        lead, stop = LEADS.index(str(rng.choice(TAUGHT_LEADS))), min(seconds, dataset.duration_s) * dataset.fs_hz
        rows = (dataset.beats(record)[name].to_pylist() for name in ("sample", "symbol", "aux"))
        begins = [(sample, aux) for sample, symbol, aux in zip(*rows, strict=True) if symbol == RHYTHM]
        start_s, numbers = windows_of(dataset.piece(record, 0, stop)[lead] * MV_PER_UV, dataset.fs_hz)
        ends_s = start_s + WINDOW_S - 1 / dataset.fs_hz
        first, last = (rhythm_at(begins, np.rint(at_s * dataset.fs_hz)) for at_s in (start_s, ends_s))
        chosen = np.sort(rng.permutation(np.flatnonzero(first == last))[:MOST])
        parts.append((numbers[chosen], first[chosen] == FIBRILLATION))
    return Windows(*(np.concatenate(each) for each in zip(*parts, strict=True)))


@cache
def copies(folder: Path) -> Windows:
    """The recordings of all donors of the dataset's bank with the rhythms that their statements name, one lead each."""
    bank = read_bank(Path(read_plan(folder).request.bank))
    rhythm, parts = bank_marks(bank).rhythm, []
    for donor in track(range(len(bank.table)), "copies", "donors"):
        lead = LEADS.index(str(np.random.default_rng([4, donor]).choice(TAUGHT_LEADS)))
        ecg = twelve_leads(bank.skeleton[donor].astype(np.float64) + bank.texture[donor])[lead]
        _, numbers = windows_of(ecg * MV_PER_UV, bank.table.fs_hz)
        parts.append((numbers, np.full(len(numbers), rhythm[donor] == FIBRILLATION)))
    return Windows(*(np.concatenate(each) for each in zip(*parts, strict=True)))


@cache
def numbers_of_labelled(folder: Path, name: str) -> np.ndarray:
    return windows_of(read_labelled(folder, name, "").lead, HZ)[1]


def of_people(folder: Path, names: Sequence[str]) -> Windows:
    """The windows of records that people labelled."""
    labels = labels_in(folder)
    numbers = [numbers_of_labelled(folder, name) for name in names]
    fibrillates = np.repeat([labels[name] == "A" for name in names], [len(each) for each in numbers])
    return Windows(np.concatenate(numbers), fibrillates)


# CinC 2017 ------------------------------------------------------------------------------------------------------------


def labelled_section(dataset: Path, folder: Path, records: Sequence[str] | None, out: Path, settings: BeatSettings) -> dict:
    """AUROC of fibrillation against normal and other rhythms, over whole records; those that are too noisy are left out."""
    labels = labels_in(folder, records)
    names = [name for name, label in labels.items() if label != "~"]
    jobs = jobs_of(dataset, settings)
    folds = [names[fold::FOLDS] for fold in range(FOLDS)] if len(names) > FOLDS else []
    ceiling = [RhythmJob(f"fibrillation-people-{at}", CEILING, folder, settings, at, tuple(sorted(set(names) - set(fold))))
               for at, fold in enumerate(folds) if _both(labels, set(names) - set(fold))]  # fmt: skip
    models = trained([*jobs, *ceiling], out)
    numbers = [numbers_of_labelled(folder, name) for name in track(names, "reading", "records")]
    of_source = {source: [models[job.name] for job in jobs if job.source == source] for source in (SYNTHETIC, COPIES)}
    said = {source: np.array([[log_odds(model, each).mean() for model in some] for each in numbers])
            for source, some in of_source.items()}  # (record, seed) each  # fmt: skip
    if folds and len(ceiling) == len(folds):
        of = {name: models[job.name] for job, fold in zip(ceiling, folds, strict=True) for name in fold}
        said[CEILING] = np.array([[log_odds(of[name], each).mean()] for name, each in zip(names, numbers, strict=True)])
    said[RULE] = np.array([[irregular(each).mean()] for each in numbers])
    label = np.array([labels[name] for name in names])
    return {
        "records": {kind: int((np.array(list(labels.values())) == kind).sum()) for kind in ("N", "A", "O", "~")},
        "folds": len(ceiling), "rows": {source: auroc_row(label, each, said) for source, each in said.items()},
        "scores": {source: dict(zip(names, each.mean(axis=1).round(4).tolist(), strict=True)) for source, each in said.items()},
    }  # fmt: skip


def _both(labels: dict[str, str], names: set[str]) -> bool:
    return len({labels[name] == "A" for name in names}) == 2


def auroc_row(label: np.ndarray, said: np.ndarray, rows: dict[str, np.ndarray]) -> dict:
    """label (record,), said (record, seed). Mean over seeds, with its interval over records."""
    truth, normal = label == "A", label != "O"
    row = {"A against N and O": auroc(truth, said), "A against N": auroc(truth[normal], said[normal]),
           "of seeds": [auroc_of(truth, each[:, None]) for each in said.T]}  # fmt: skip
    return row | {f"less {other}": auroc(truth, said, rows[other]) for other in (COPIES, RULE) if said is rows[SYNTHETIC]}


def auroc_of(truth: np.ndarray, said: np.ndarray) -> float:
    """Truth (record,), said (record, seed): mean over seeds; NaN where one class is absent."""
    return fast_macro_auroc(np.repeat(truth[:, None], said.shape[1], axis=1), said)


def auroc(truth: np.ndarray, said: np.ndarray, against: np.ndarray | None = None, of: np.ndarray | None = None) -> list[float]:
    """[value, low, high], less that of `against`. of: the recording of each row, which are drawn whole."""
    other = said if against is None else against
    score = lambda y, a, b: auroc_of(y, a) - (0 if against is None else auroc_of(y, b))  # noqa: E731
    return [score(truth, said, other), *bootstrap(score, truth, said, other, of=of)]


# MIT-BIH --------------------------------------------------------------------------------------------------------------


def rhythm_section(dataset: Path, mitdb: Path, names: Sequence[str] | None, out: Path, settings: BeatSettings) -> dict:
    """Windows, burden and onsets of fibrillation in recordings whose rhythms people marked. Flutter is neither right nor wrong."""
    names, jobs = names_in(mitdb, "atr", names), jobs_of(dataset, settings)
    models = trained(jobs, out)
    recordings = [read_recording(mitdb, name) for name in track(names, "reading", "recordings")]
    numbers, truths = [], []
    for each in track(recordings, "rhythms", "recordings"):
        start_s, of = windows_of(each.lead, HZ)
        rhythm = each.rhythm_at(np.rint((start_s + WINDOW_S / 2) * HZ))
        numbers.append(of)
        truths.append(np.select([rhythm == FLUTTER, rhythm == FIBRILLATION], [-1, 1], 0))
    said = {source: [np.stack([smoothed(log_odds(models[job.name], of)) for job in jobs if job.source == source]) for of in numbers]
            for source in (SYNTHETIC, COPIES)}  # of each recording (seed, window)  # fmt: skip
    said[RULE] = [smoothed(irregular(of) - IRREGULAR)[None] for of in numbers]
    rows = {source: window_row(truths, each) for source, each in said.items()}
    holds = {name: round(burden(truth), 4) for name, truth in zip(names, truths, strict=True)}
    return {"recordings": len(names), "burden": holds, "windows": sum(map(len, truths)),
            "flutter windows": int(sum((truth < 0).sum() for truth in truths)),
            "onsets": int(sum(len(onsets_of(truth)) for truth in truths)), "rows": rows,
            "burden said": {source: {name: round(float(np.mean([burden_said(truth, one) for one in each])), 4)
                                     for name, truth, each in zip(names, truths, of, strict=True)}
                            for source, of in said.items()}}  # fmt: skip


def smoothed(values: np.ndarray) -> np.ndarray:
    """Each window's mean with its neighbours, (window,)."""
    half = min(SMOOTHED // 2, len(values) - 1)
    padded = np.pad(values, half, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1).mean(axis=1)


def burden(state: np.ndarray) -> float:
    """The share of windows (window,) that are 1, of those that are not -1."""
    return float((state == 1).sum() / max((state >= 0).sum(), 1))


def burden_said(truth: np.ndarray, said: np.ndarray) -> float:
    """Of log odds (window,), where the truth is known."""
    return burden(np.where(truth < 0, -1, said > 0))


def onsets_of(state: np.ndarray) -> np.ndarray:
    """Seconds at which windows (window,) go over from LASTS that are 0 to LASTS that are 1: (onset,)."""
    at = np.arange(LASTS, len(state) - LASTS + 1)
    kept = [(state[i - LASTS : i] == 0).all() and (state[i : i + LASTS] == 1).all() for i in at]
    return (at[np.array(kept, bool)] - 0.5) * HOP_S + WINDOW_S / 2


def window_row(truths: list[np.ndarray], said: list[np.ndarray]) -> dict:
    """truths: of each recording 1, 0 or -1 (window,); said: (seed, window). Counts are means over seeds."""
    both = list(zip(truths, said, strict=True))
    counts, found = (np.array([[of(truth, one > 0) for one in each] for truth, each in both]) for of in (counted, onset_counts))
    errors = np.array([np.mean([abs(burden_said(truth, one) - burden(truth)) for one in each]) for truth, each in both])
    known = [truth >= 0 for truth in truths]
    of = np.repeat(np.arange(len(truths)), [of.sum() for of in known])
    truth = np.concatenate([truth[where] == 1 for truth, where in zip(truths, known, strict=True)])
    values = np.concatenate([each[:, where].T for each, where in zip(said, known, strict=True)])
    return {
        "AUROC": auroc(truth, values, of=of), "F1": over_recordings(f1, counts.sum(axis=1)),
        "found, extra, missed": (counts.sum(axis=(0, 1)) / counts.shape[1]).round(1).tolist(),
        "burden error": [float(errors.mean()), *bootstrap(np.mean, errors)],
        "onsets: found, extra, missed": (found.sum(axis=(0, 1)) / found.shape[1]).round(1).tolist(),
    }  # fmt: skip


def counted(truth: np.ndarray, said: np.ndarray) -> list[int]:
    return [int((said & (truth == 1)).sum()), int((said & (truth == 0)).sum()), int((~said & (truth == 1)).sum())]


def onset_counts(truth: np.ndarray, said: np.ndarray) -> list[int]:
    """Found, extra, missed; of ours those that lie in flutter are left out."""
    theirs, ours = onsets_of(truth), onsets_of(np.where(truth < 0, -1, said))
    same = len(pairs(theirs, ours, ONSET_S))
    return [same, len(ours) - same, len(theirs) - same]
