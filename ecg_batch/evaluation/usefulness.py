"""Usefulness: what a classifier for real patients gains from synthetic records, beside what costs nothing.

Every row trains the same network for the same number of steps on another mixture. It is trained for each test fold (10, and
others in turn where that is small): without any record, real or synthetic, of that fold's patients; step and thresholds are
chosen on fold 9. The predictions of all trainings are scored together. Trainings are pure functions of (row, fold, seed), spread
over processes of one thread each; each is written to trainings.jsonl when it is done, so a killed evaluation goes on where it
stopped.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ecg_batch.evaluation.labelled import CHOICE_FOLD, TEST_FOLD, TRAIN_FOLDS, Labelled
from ecg_batch.evaluation.scores import fast_macro_auroc, macro_auroc, thresholds_of
from ecg_batch.evaluation.train_judge import Examples, JudgeTraining, fit
from ecg_batch.models.judge import BATCH, SMALL, filtered, predict
from ecg_batch.pool import pool_of
from ecg_batch.progress import track

DRAWS = 200  # bootstrap
REAL = "real"  # the name under which all real records are saved
FEW = "few synthetic"  # records of the donors among the few patients of a row, for each training its own
LABEL_SETS = ("superclasses", "rare statements", "all statements")


@dataclass(frozen=True)
class Row:
    """One way to train. parts: (name of a set, its share of each batch); balance: every class equally often; share: of patients.

    in_turn: the parts one after the other, for equally many steps, instead of mixed. task: which labels, one of LABEL_SETS.
    """

    name: str
    parts: tuple[tuple[str, float], ...]
    augment: int = 0
    balance: int = 0
    share: float = 1.0
    in_turn: int = 0
    task: str = LABEL_SETS[0]


def mixed(name: str, synthetic: str, augment: int = 0, real_share: float = 0.5) -> Row:
    return Row(name, ((REAL, real_share), (synthetic, 1 - real_share)), augment)


def first(name: str, synthetic: str, **fields) -> Row:
    """Half of the steps on `synthetic`, then half on real records."""
    return Row(name, ((synthetic, 1.0), (REAL, 1.0)), in_turn=1, **fields)


def save_set(folder: Path, name: str, records: Labelled, classes: Mapping[str, Sequence[str]]) -> None:
    """Filters once for all trainings: float16 keeps 2 uV of a 4 mV QRS. Processes map the file instead of copying it.

    classes: of each of LABEL_SETS.
    """
    parts = [filtered(records.ecg[at : at + BATCH], records.fs_hz).numpy().astype(np.float16)
             for at in range(0, len(records), BATCH)]  # fmt: skip
    np.save(folder / f"{name}.x.npy", np.concatenate(parts))
    for task, held in classes.items():
        np.save(folder / f"{name}.{task}.npy", records.hold(held).astype(np.float32))
    np.save(folder / f"{name}.patients.npy", records.patients)
    np.save(folder / f"{name}.fold.npy", records.fold)


def load_set(folder: Path, name: str, task: str = LABEL_SETS[0]) -> tuple[Examples, np.ndarray, np.ndarray]:
    """(records, their patients (record, patient), their folds)."""
    x = torch.from_numpy(np.load(folder / f"{name}.x.npy", mmap_mode="c"))
    labels = torch.from_numpy(np.load(folder / f"{name}.{task}.npy"))
    return Examples(x, labels), np.load(folder / f"{name}.patients.npy"), np.load(folder / f"{name}.fold.npy")


def some_patients(patients: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the patients, each seed another one, the smaller within the larger."""
    unique = np.unique(patients[patients >= 0])
    return np.sort(np.random.default_rng(seed).permutation(unique)[: max(round(share * len(unique)), 1)])


def few_patients(patients: np.ndarray, fold_of: np.ndarray, share: float, fold: int, seed: int) -> np.ndarray:
    """Of whom a training may see anything: patients (record, patient) of real records and their folds (record,)."""
    return some_patients(patients[may_train(patients, patients, fold_of, fold)], share, seed)


def few_name(share: float, fold: int, seed: int) -> str:
    """The set that FEW is in one training."""
    return f"{FEW}, {100 * share:g} %, fold {fold}, seed {seed}"


def seeds_of(fold: int, count: int) -> list[int]:
    """The same for every row, others for every fold."""
    return [fold + 100 * repeat for repeat in range(count)]


def may_train(patients: np.ndarray, real_patients: np.ndarray, real_fold: np.ndarray, fold: int) -> np.ndarray:
    """Which records hold nobody of the test fold, nor of folds 9 and 10: bool (record,)."""
    kept_out = real_patients[np.isin(real_fold, (fold, CHOICE_FOLD, TEST_FOLD))]
    return ~(np.isin(patients, kept_out) & (patients >= 0)).any(1)


def examples_of_row(folder: Path, row: Row, fold: int, seed: int) -> Examples:
    """The row's records with how often each is to be drawn; records of patients outside the row's share are left out, and those
    without any label of a superclass, as in the published benchmark.
    """
    _, real_patients, real_fold = load_set(folder, REAL, row.task)
    allowed = few_patients(real_patients, real_fold, row.share, fold, seed) if row.share < 1 else None
    xs, labels, weights = [], [], []
    for name, share in row.parts:
        if name == FEW:
            name = few_name(row.share, fold, seed)
            if not (folder / f"{name}.x.npy").exists():  # no two donors among so few patients
                continue
        examples, patients, _ = load_set(folder, name, row.task)
        keep = may_train(patients, real_patients, real_fold, fold) & load_set(folder, name)[0].labels.any(1).numpy()
        if allowed is not None:
            keep &= (np.isin(patients, allowed) | (patients < 0)).all(1)
        if not keep.any():  # no donor among so few patients
            continue
        weight = torch.from_numpy(keep).float()
        if row.balance:
            weight = weight * class_weight(examples.labels, weight)
        xs.append(examples.x[torch.from_numpy(keep)])
        labels.append(examples.labels[torch.from_numpy(keep)])
        weights.append(share * (weight / weight.sum())[torch.from_numpy(keep)])
    phases = torch.block_diag(*weights) if row.in_turn else torch.cat(weights)[None]
    return Examples(torch.cat(xs), torch.cat(labels), phases)


def class_weight(labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One over the size of a record's rarest class, of records with none over the number of records: (record,)."""
    rarest = (labels / (labels * weight[:, None]).sum(0).clamp(min=1)).amax(1)
    return torch.where(rarest > 0, rarest, 1 / weight.sum())


def train_row(folder: Path, row: Row, fold: int, seed: int, training: JudgeTraining) -> dict:
    """One training: probabilities on the records of the test fold, in their order, and the thresholds of fold 9."""
    torch.set_num_threads(1)
    real, _, real_fold = load_set(folder, REAL, row.task)
    choice, test = (Examples(real.x[at].float(), real.labels[at]) for at in (real_fold == CHOICE_FOLD, real_fold == fold))
    settings, device = replace(training, seed=seed, augment=row.augment), "cuda" if torch.cuda.is_available() else "cpu"
    network = replace(SMALL, outputs=real.labels.shape[1])
    judge = fit(examples_of_row(folder, row, fold, seed), choice, network, settings, device=device)
    p_choice = predict(judge, choice.x)
    return {
        **stated(row, fold, seed, training), "fold 9 AUROC": macro_auroc(choice.labels.numpy(), p_choice),
        "thresholds": thresholds_of(choice.labels.numpy(), p_choice).round(5).tolist(),
        "probabilities": predict(judge, test.x).round(5).tolist(),
    }  # fmt: skip


def folds_to_test(fold: np.ndarray, count: int) -> tuple[int, ...]:
    """Fold 10, which no part of the system has seen, then those of 1 to 8 that have records (fold: of each record), evenly."""
    there = np.array([each for each in TRAIN_FOLDS if (fold == each).any()])
    chosen = np.linspace(0, len(there) - 1, min(count - 1, len(there))).round().astype(int)
    return (TEST_FOLD, *there[chosen].tolist())


def train_rows(
    folder: Path, out: Path, jobs: Iterable[tuple[Row, int, int]], training: JudgeTraining, workers: int, data: str
) -> list[dict]:
    """All trainings (row, fold, seed), in the order of `jobs`; those in OUT/trainings.jsonl with the same settings and data are
    not repeated.
    """
    jobs, log = list(jobs), out / "trainings.jsonl"
    done = {key_of(run): run for run in read_lines(log)}
    key = lambda job: key_of(stated(*job, training) | {"data": data})  # noqa: E731
    wanted = [job for job in jobs if key(job) not in done]
    with pool_of(workers) as pool, open(log, "a", encoding="utf-8") as file:
        runs = [pool.submit(train_row, folder, *job, training) for job in wanted]
        for run in track(runs, "classifiers", "trainings"):
            result = json.loads(json.dumps(run.result() | {"data": data}))
            done[key_of(result)] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
    return [done[key(job)] for job in jobs]


def stated(row: Row, fold: int, seed: int, training: JudgeTraining) -> dict:
    return {"row": asdict(row), "fold": fold, "seed": seed, "training": asdict(training)}


def key_of(run: dict) -> str:
    return json.dumps([run[name] for name in ("row", "fold", "seed", "training", "data")], sort_keys=True)


def read_lines(path: Path) -> list[dict]:
    """Whole lines only: the last one may have been cut by a kill."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.endswith("}")]


# Scores ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """What one training said of its test fold: truth, probability, predicted, each (record, class); patient: (record,)."""

    fold: int
    truth: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray
    patient: np.ndarray


def tested(runs: Sequence[dict], truth_of: dict[int, np.ndarray], patient_of: dict[int, np.ndarray]) -> list[Tested]:
    """Runs in the order of fold and seed."""
    out = []
    for run in sorted(runs, key=lambda run: (run["fold"], run["seed"])):
        p, fold = np.array(run["probabilities"]), run["fold"]
        out.append(Tested(fold, truth_of[fold].astype(bool), p, p >= np.array(run["thresholds"]), patient_of[fold]))
    return out


def pooled(runs: Sequence[Tested], rows: Sequence[np.ndarray] | None = None) -> dict[str, float]:
    """Macro AUROC and macro F1 of all predictions together. rows: the records of each run that count, None for all."""
    rows = [slice(None)] * len(runs) if rows is None else rows
    truth, p, predicted = (
        np.concatenate([getattr(run, name)[at] for run, at in zip(runs, rows, strict=True)])
        for name in ("truth", "probability", "predicted")
    )
    return {"AUROC": fast_macro_auroc(truth, p), "F1": float(f1_by_class(truth, predicted).mean())}


def f1_by_class(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return 2 * (predicted & truth).sum(0) / np.maximum(predicted.sum(0) + truth.sum(0), 1)


def summarise(runs: Sequence[Tested], against: Sequence[Tested] | None = None, classes: Sequence[str] = ()) -> dict:
    """Scores of a row and, against another row's runs of the same folds and seeds, its gain: each [value, low, high].

    The 95 % interval holds what other patients and what other trainings would give. Of several test folds it is a bootstrap in two
    stages: trainings, each with its test fold, are drawn again, then the patients of each fold. Of one fold its patients are drawn,
    and to each draw comes what the mean of so few trainings may be off, by Student's t. Of a single training that is not known.
    """
    out = {"trainings": len(runs), "records": sum(len(run.truth) for run in runs), **_intervals(runs, against)}
    out["of folds"] = {name: [pooled([run])[name] for run in runs] for name in ("AUROC", "F1")}
    out["fold 10"] = pooled([run for run in runs if run.fold == TEST_FOLD])
    truth, p, predicted = (np.concatenate([getattr(run, name) for run in runs]) for name in ("truth", "probability", "predicted"))
    f1 = f1_by_class(truth, predicted)
    out["by class"] = {
        name: {"AUROC": macro_auroc(truth[:, [k]], p[:, [k]]), "F1": float(f1[k]), "records": int(truth[:, k].sum())}
        for k, name in enumerate(classes) if 0 < truth[:, k].sum() < len(truth)
    }  # fmt: skip
    return out


def _intervals(runs: Sequence[Tested], against: Sequence[Tested] | None) -> dict:
    if against is not None and [run.fold for run in runs] != [run.fold for run in against]:
        raise ValueError("a gain compares trainings on the same folds")
    rng, sides, drawn = np.random.default_rng(0), [side for side in (runs, against) if side is not None], []
    whole = np.array([list(pooled(side).values()) for side in sides])  # (side, score)
    records_of = {run.fold: _records_of_patients(run.patient) for run in runs}
    one_fold = len(records_of) == 1
    for _ in range(DRAWS):
        chosen = np.arange(len(runs)) if one_fold else rng.integers(0, len(runs), len(runs))
        drawn_of = {fold: np.concatenate([held[at] for at in rng.integers(0, len(held), len(held))])
                    for fold, held in records_of.items()}  # fmt: skip
        rows = [drawn_of[runs[at].fold] for at in chosen]  # the same patients in all trainings of a fold
        drawn.append([list(pooled([side[at] for at in chosen], rows).values()) for side in sides])
    drawn = np.array(drawn)  # (draw, side, score)
    each = np.array([[list(pooled([run]).values()) for run in side] for side in sides])  # (side, training, score)
    off = lambda score: _off(score, rng) if one_fold and len(runs) > 1 else 0.0  # noqa: E731
    out = _spans(whole[0], drawn[:, 0] + off(each[0]))
    if against is None:
        return out
    return {**out, "gain": _spans(whole[0] - whole[1], drawn[:, 0] - drawn[:, 1] + off(each[0] - each[1]))}


def _off(score: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How far the mean of trainings may be from that of many: (training, score) -> (draw, score)."""
    of_mean = score.std(axis=0, ddof=1) / np.sqrt(len(score))
    return rng.standard_t(len(score) - 1, DRAWS)[:, None] * of_mean


def _records_of_patients(patient: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(patient, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(patient[order])) + 1)


def _spans(value: np.ndarray, drawn: np.ndarray) -> dict[str, list[float]]:
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {name: [float(value[at]), float(low[at]), float(high[at])] for at, name in enumerate(("AUROC", "F1"))}
