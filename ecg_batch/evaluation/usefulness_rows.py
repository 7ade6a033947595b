"""Is it useful? Classifiers of real held-out patients, taught with and without synthetic records, beside cheap baselines."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from ecg_batch.evaluation import usefulness
from ecg_batch.evaluation.labelled import TEST_FOLD, TRAIN_FOLDS, Labelled
from ecg_batch.evaluation.sets import SMALLER_BANKS, VARIED_ALONE, Sets, Settings, shares_of
from ecg_batch.evaluation.train_judge import JudgeTraining
from ecg_batch.evaluation.usefulness import FEW, LABEL_SETS, Row, first, mixed
from ecg_batch.statements import SUPERCLASSES

SUPER, RARE, ALL = LABEL_SETS
REAL, CLASSICAL, TURNED, COPIES, COPIED = (
    "real alone",
    "real + classical",
    "real + turned and scaled (3KG)",
    "real, classes balanced by copies",
    "donors copied first, then real",
)
BARE, NOISE, UNVARIED = (f"{name} first, then real" for name in ("retrieval only", "noise-shaped texture", "unvaried synthetic"))
FIRST, MIXED, ONLY, DONORS = "synthetic first, then real", "real + synthetic", "synthetic alone", "real donors alone"
RARE_FIRST, RARE_COPIED = "rare synthetic first, then real", "rare donors copied first, then real"
BOTH = f"{FIRST}, + classical"
CHEAP = (CLASSICAL, TURNED, COPIES, COPIED, BARE, NOISE)
CANDIDATES = (FIRST, BOTH, MIXED)
BESIDE_FEW = (REAL, CLASSICAL, FIRST, BARE, UNVARIED)  # shown beside rows of few folds, hence on these folds too
TEXTURES = ((UNVARIED, BARE, "none"), (UNVARIED, NOISE, "noise of the same spectrum"))


def main_rows() -> list[Row]:
    return [
        *baselines(),
        first(COPIED, "donors"),
        first(BARE, "retrieval only"),
        first(NOISE, "noise-shaped texture"),
        first(UNVARIED, "no variation"),
        first(FIRST, "synthetic"),
        first(BOTH, "synthetic", augment=1),
        mixed(MIXED, "synthetic"),
        Row(ONLY, (("synthetic", 1.0),)),
        Row(DONORS, (("donors", 1.0),)),
    ]


def baselines() -> list[Row]:
    real = (("real", 1.0),)
    return [Row(REAL, real), Row(CLASSICAL, real, augment=1), Row(TURNED, real, augment=2), Row(COPIES, real, balance=1)]


def of_task(rows: Sequence[Row], task: str) -> list[Row]:
    return [replace(row, task=task, name=in_task(row.name, task)) for row in rows]


def in_task(name: str, task: str) -> str:
    return name if task == SUPER else f"{name}, {task}"


def rare_rows() -> list[Row]:
    """A classifier of rare statements; the synthetic records are of these statements, evenly."""
    return of_task((
        *baselines(),
        first(RARE_COPIED, "rare donors"),
        first("rare at own rates first, then real", "rare at own rates"),
        first("rare retrieval only first, then real", "rare retrieval only"),
        first(RARE_FIRST, "rare synthetic"),
        mixed("real + rare synthetic", "rare synthetic"),
    ), RARE)  # fmt: skip


def all_rows() -> list[Row]:
    """A classifier of all statements."""
    return of_task((*baselines()[:3], first(COPIED, "donors"), first(FIRST, "synthetic")), ALL)


def ablation_rows(smaller: Sequence[str] = tuple(SMALLER_BANKS)) -> list[Row]:
    names = ("real texture", "decoded texture", "as published", "alpha 0.3", "alpha 0.6", *VARIED_ALONE, "all variation", *smaller)
    return [first(f"{name} first, then real", name) for name in names]


def low_data_rows(shares: Sequence[float]) -> list[Row]:
    """Few patients: real records, donors and lenders of noise are cut to the same patients."""
    kinds = (*baselines()[:2], first(COPIED, "donors"), first(FIRST, FEW))
    return [replace(row, share=share, name=f"{row.name}, {100 * share:g} %") for share in shares for row in kinds]


def usefulness_section(sets: Sets, out: Path, settings: Settings, run_id: str) -> dict:
    """All trainings, summarised against real alone, the candidates against the best cheap baseline."""
    from tempfile import TemporaryDirectory

    training = JudgeTraining(steps=settings.steps, look_every=max(settings.steps // 4, 1))
    held = {"real": sets.real, "synthetic": sets.made, "donors": donors_of(sets.made, sets.train)}
    held |= {**sets.variants, **sets.smaller, **sets.few}
    if sets.rare:
        held |= {**sets.rare, "rare donors": donors_of(sets.rare["rare synthetic"], sets.train)}
    all_folds, few_folds = (usefulness.folds_to_test(sets.real.fold, count) for count in (settings.folds, settings.few_folds))
    rows, few = [*main_rows(), *all_rows()], [*low_data_rows(shares_of(sets.real)), *ablation_rows(tuple(sets.smaller))]
    rows += rare_rows() if sets.rare else []
    jobs = [job for some, folds in ((rows, all_folds), (few, few_folds)) for row in some
            for job in trainings(row, folds, settings.seeds)]  # fmt: skip
    with TemporaryDirectory(prefix=".evaluate-", dir=out) as scratch:  # all of PTB-XL, some times over: TMPDIR may be small
        for name, records in held.items():
            usefulness.save_set(Path(scratch), name, records, {task: codes for task, codes in classes_of(sets).items() if codes})
        runs = usefulness.train_rows(Path(scratch), out, jobs, training, settings.workers, data_of(sets, run_id))
    return summary(sets, settings, jobs, runs)


def data_of(sets: Sets, run_id: str) -> str:
    """By what trainings of these records and classes are known again."""
    learnt = sha256(json.dumps(classes_of(sets)).encode()).hexdigest()[:16]
    return f"{run_id} {len(sets.made)} {len(sets.train)} {learnt}"


def classes_of(sets: Sets) -> dict[str, Sequence[str]]:
    return {SUPER: SUPERCLASSES, RARE: sets.rare_statements, ALL: sets.statements}


def trainings(row: Row, folds: Sequence[int], seeds: int) -> list[tuple[Row, int, int]]:
    """(row, test fold, seed)."""
    return [(row, fold, seed) for fold in folds for seed in usefulness.seeds_of(fold, seeds)]


def donors_of(made: Labelled, train: Labelled) -> Labelled:
    """The donor's own record for each synthetic one, as often as it was drawn: what copying would give."""
    at = {int(ecg_id): row for row, ecg_id in enumerate(train.ecg_id)}
    return train.take(np.array([at[int(ecg_id)] for ecg_id in made.ecg_id if int(ecg_id) in at], np.int64))


def summary(sets: Sets, settings: Settings, jobs: list[tuple[Row, int, int]], runs: list[dict]) -> dict:
    classes, folds = classes_of(sets), (*TRAIN_FOLDS, TEST_FOLD)
    held = {task: sets.real.hold(codes) for task, codes in classes.items() if codes}
    truth = {task: {fold: y[sets.real.fold == fold] for fold in folds} for task, y in held.items()}
    patient = {fold: sets.real.patient_id[sets.real.fold == fold] for fold in folds}
    by_row: dict[Row, list[dict]] = {}
    for (row, _, _), run in zip(jobs, runs, strict=True):
        by_row.setdefault(row, []).append(run)
    told = {row.name: usefulness.tested(held, truth[row.task], patient) for row, held in by_row.items()}

    def against(name: str, other: str, classes=(), folds: Sequence[int] = ()) -> dict:
        asked, at = ([run for run in told[row] if not folds or run.fold in folds] for row in (name, other))
        return usefulness.summarise(asked, [run for run in at if run.fold in {run.fold for run in asked}], classes)

    few = usefulness.folds_to_test(sets.real.fold, settings.few_folds)

    rows = {row.name: against(row.name, base_of(row), classes[row.task]) for row in by_row}
    cheap = max(CHEAP, key=lambda name: rows[name]["F1"][0])
    rare = {other: against(in_task(RARE_FIRST, RARE), in_task(other, RARE))["gain"]
            for other in (CLASSICAL, TURNED, COPIES, RARE_COPIED)} if sets.rare else {}  # fmt: skip
    return {
        "settings": asdict(settings), "real records": len(sets.train), "real patients": len(set(sets.train.patient_id.tolist())),
        "donor records": len(set(sets.made.ecg_id.tolist())), "rare statements": list(sets.rare_statements), "rows": rows,
        "donors of smaller banks": {name: len(set(made.ecg_id.tolist())) for name, made in sets.smaller.items()},
        "on the few folds": {name: against(name, REAL, folds=few) for name in BESIDE_FEW},
        "best cheap baseline": cheap, "against it": {name: against(name, cheap) for name in CANDIDATES},
        "synthetic alone against its donors": against(ONLY, DONORS), "rare synthetic against": rare,
        "texture": {f"against {what}": against(name, other)["gain"] for name, other, what in TEXTURES},
    }  # fmt: skip


def base_of(row: Row) -> str:
    """Real alone with as many patients and the same labels."""
    return in_task(REAL + (f", {100 * row.share:g} %" if row.share < 1 else ""), row.task)
