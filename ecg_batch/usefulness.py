"""Usefulness: what a classifier for real patients gains from synthetic records, beside what costs nothing.

Every row trains the same network for the same number of steps on another mixture, chooses its step and thresholds on real fold
9 and is tested on real fold 10. Trainings are pure functions of (row, seed), spread over processes of one
thread each; each is written to trainings.jsonl when it is done, so a killed evaluation goes on where it stopped.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.stats import t as student
from tqdm import tqdm

from ecg_batch.judge import SMALL, filtered, predict
from ecg_batch.labelled import Labelled
from ecg_batch.scores import fast_macro_auroc, macro_auroc, macro_f1, thresholds_of
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.train_judge import Examples, JudgeTraining, fit

DRAWS = 400  # bootstrap over test records


@dataclass(frozen=True)
class Row:
    """One way to train. parts: (name of a set, its share of each batch); balance: every class equally often; share: of patients.

    in_turn: the parts one after the other, each for the same number of steps, instead of mixed.
    """

    name: str
    parts: tuple[tuple[str, float], ...]
    augment: int = 0
    balance: int = 0
    share: float = 1.0
    in_turn: int = 0


def mixed(name: str, synthetic: str, augment: int = 0, real_share: float = 0.5) -> Row:
    return Row(name, (("real", real_share), (synthetic, 1 - real_share)), augment)


def save_set(folder: Path, name: str, records: Labelled) -> None:
    """Filters once for all trainings: float16 keeps 2 uV of a 4 mV QRS. Processes map the file instead of copying it."""
    np.save(folder / f"{name}.x.npy", filtered(records.ecg, records.fs_hz).numpy().astype(np.float16))
    np.save(folder / f"{name}.labels.npy", records.labels.astype(np.float32))
    np.save(folder / f"{name}.patients.npy", records.patients)


def load_set(folder: Path, name: str) -> tuple[Examples, np.ndarray]:
    x = torch.from_numpy(np.load(folder / f"{name}.x.npy", mmap_mode="c"))
    labels = torch.from_numpy(np.load(folder / f"{name}.labels.npy"))
    return Examples(x, labels), np.load(folder / f"{name}.patients.npy")


def some_patients(patients: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the training patients, each seed another one, the smaller within the larger."""
    unique = np.unique(patients[patients >= 0])
    return np.sort(np.random.default_rng(seed).permutation(unique)[: max(round(share * len(unique)), 1)])


def examples_of_row(folder: Path, row: Row, seed: int) -> Examples:
    """The row's records with how often each is to be drawn; records of patients outside the row's share are left out."""
    allowed = some_patients(load_set(folder, "real")[1], row.share, seed) if row.share < 1 else None
    xs, labels, weights = [], [], []
    for name, share in row.parts:
        examples, patients = load_set(folder, name)
        keep = np.ones(len(patients), bool)
        if allowed is not None:
            keep = (np.isin(patients, allowed) | (patients < 0)).all(1)
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
    """One over the size of a record's rarest class: (record,)."""
    return (labels / (labels * weight[:, None]).sum(0).clamp(min=1)).amax(1)


def train_row(folder: Path, row: Row, seed: int, training: JudgeTraining) -> dict:
    """One training: probabilities on fold 10, and the scores that need fold 9."""
    torch.set_num_threads(1)
    choice, test = load_set(folder, "fold 9")[0], load_set(folder, "fold 10")[0]
    choice, test = (replace(part, x=part.x.float()) for part in (choice, test))
    settings, device = replace(training, seed=seed, augment=row.augment), "cuda" if torch.cuda.is_available() else "cpu"
    judge = fit(examples_of_row(folder, row, seed), choice, SMALL, settings, device=device)
    p_choice, p_test = predict(judge, choice.x), predict(judge, test.x)
    thresholds = thresholds_of(choice.labels.numpy(), p_choice)
    return {
        "row": asdict(row), "seed": seed, "training": asdict(training),
        "fold 9 AUROC": macro_auroc(choice.labels.numpy(), p_choice), "AUROC": macro_auroc(test.labels.numpy(), p_test),
        "F1": macro_f1(test.labels.numpy(), p_test, thresholds),
        "thresholds": thresholds.round(5).tolist(), "probabilities": p_test.round(5).tolist(),
    }  # fmt: skip


def train_rows(
    folder: Path, out: Path, jobs: Iterable[tuple[Row, int]], training: JudgeTraining, workers: int, data: str
) -> list[dict]:
    """All trainings, in the order of `jobs`; those in OUT/trainings.jsonl with the same settings and data are not repeated."""
    jobs, log = list(jobs), out / "trainings.jsonl"
    done = {key_of(run): run for run in read_lines(log)}
    wanted = [(row, seed) for row, seed in jobs if key_of(stated(row, seed, training, data)) not in done]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool, open(log, "a", encoding="utf-8") as file:
        runs = [pool.submit(train_row, folder, row, seed, training) for row, seed in wanted]
        for run in tqdm(runs, desc="classifiers", unit="training", disable=None):
            result = json.loads(json.dumps(run.result() | {"data": data}))
            done[key_of(result)] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
    return [done[key_of(stated(row, seed, training, data))] for row, seed in jobs]


def stated(row: Row, seed: int, training: JudgeTraining, data: str) -> dict:
    return {"row": asdict(row), "seed": seed, "training": asdict(training), "data": data}


def key_of(run: dict) -> str:
    return json.dumps([run[name] for name in ("row", "seed", "training", "data")], sort_keys=True)


def read_lines(path: Path) -> list[dict]:
    """Whole lines only: the last one may have been cut by a kill."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines if line.endswith("}")]


def summarise(runs: list[dict], truth: np.ndarray, against: list[dict] | None = None) -> dict:
    """Mean over seeds with 95 % intervals. Against another row's runs with the same seeds: paired differences.

    "seeds": Student's t over seeds, what another training would give; "records": bootstrap over test records, what other
    patients would give. A gain is one only where both exclude 0.
    """
    runs = sorted(runs, key=lambda run: run["seed"])
    p = np.array([run["probabilities"] for run in runs])  # (seed, record, class)
    out = {"seeds": len(runs)}
    for score in ("AUROC", "F1"):
        values = np.array([run[score] for run in runs])
        out[score], out[f"{score} of seeds"] = interval(values), values.tolist()
    out["by class"] = {
        name: {"AUROC": float(np.mean([macro_auroc(truth[:, [k]], one[:, [k]]) for one in p]))}
        for k, name in enumerate(SUPERCLASSES) if 0 < truth[:, k].sum() < len(truth)
    }  # fmt: skip
    if against:
        base = {run["seed"]: run for run in against}
        pairs = [(run, base[run["seed"]]) for run in runs if run["seed"] in base]
        for score in ("AUROC", "F1"):
            gain = np.array([a[score] - b[score] for a, b in pairs])
            out[f"{score} gain"] = {"seeds": interval(gain), "records": paired_bootstrap(pairs, truth, score)}
    return out


def interval(values: np.ndarray) -> list[float]:
    """[mean, low, high]: Student's t over seeds; low and high are NaN with a single seed."""
    mean, count = float(values.mean()), len(values)
    half = float(student.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return [mean, mean - half, mean + half]


def paired_bootstrap(pairs: list[tuple[dict, dict]], truth: np.ndarray, score: str) -> list[float]:
    """95 % interval of the mean gain over seeds when the test records are drawn again."""
    rng, gains = np.random.default_rng(0), []
    held = [[(np.array(run["probabilities"]), np.array(run["thresholds"])) for run in pair] for pair in pairs]
    for _ in range(DRAWS):
        rows = rng.integers(0, len(truth), len(truth))
        of = [[_score(truth[rows], p[rows], thresholds, score) for p, thresholds in pair] for pair in held]
        gains.append(np.mean([a - b for a, b in of]))
    return [float(x) for x in np.percentile(gains, [2.5, 97.5])]


def _score(truth, p, thresholds, score: str) -> float:
    if score == "AUROC":
        return fast_macro_auroc(truth, p)
    return macro_f1(truth, p, thresholds)
