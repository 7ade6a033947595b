"""What an evaluation compares, and what it spends.

Synthetic records come from the dataset; the ablations are the same request made again with one option changed. Real records are
PTB-XL's: folds 1-8 are what donors and training come from, fold 9 chooses, fold 10 tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.evaluation.ablations import ablations, noise_texture, real_texture
from ecg_batch.evaluation.labelled import CHOICE_FOLD, TEST_FOLD, TRAIN_FOLDS, Labelled, from_rows
from ecg_batch.evaluation.usefulness import few_name, few_patients, folds_to_test, seeds_of
from ecg_batch.keys import Range
from ecg_batch.request.model import Cohort, Variation

VARIED_ALONE = {"rr_cv": 0.05, "axis_deg": 10.0, "electrode": 0.25, "gain_sd": 0.12, "blend": 0.4}  # each has a row of its own
PUBLISHED = {"texture": "decoded", "alpha": 0.6, "prd_limit_pct": 10.0, "lowpass_hz": 40.0}
FEWEST_TAUGHT, FEWEST_CHOSEN = 20, 3  # records of folds 1-8 and of fold 9 that a rare statement has
MOST_TAUGHT, RARE = 500, 0.1  # records of folds 1-8 that have it at most, and their share
WHOLE = 1000  # records of fold 10 from which on it suffices as test fold; the whole of PTB-XL has 2,159, a sample of 9 % 252
OF_WHOLE = {"folds": 1, "few_folds": 1, "seeds": 3, "steps": 2000, "records": 4096}
OF_SAMPLE = {"folds": 9, "few_folds": 3, "seeds": 1, "steps": 400, "records": 2048}
SMALLER_BANKS, OF_FOLDS = {"an eighth of the donors": 1, "three eighths of the donors": 3}, 8  # so many of so many folds of donors
FEW_RECORDS = 1024  # of few patients: a hundredth of PTB-XL's has 30 donors


@dataclass(frozen=True)
class Settings:
    """What the evaluation spends. 0: by the size of PTB-XL, as `of` says."""

    folds: Annotated[int, Range(0, 9, "test folds of the main rows: 10, and so many less one of 1-8")] = 0
    few_folds: Annotated[int, Range(0, 9, "of ablation rows and the low-data curve")] = 0
    seeds: Annotated[int, Range(0, 100, "trainings for each of them; every fold has other seeds")] = 0
    steps: Annotated[int, Range(0, 10**6, "of each classifier")] = 0
    records: Annotated[int, Range(0, 10**7, "of each synthetic set that trains")] = 0
    compared: Annotated[int, Range(2, 10**6, "pairs in fidelity and validity at most")] = 484
    delineated: Annotated[int, Range(1, 10**6, "records a side for NeuroKit2")] = 150
    workers: Annotated[int, Range(1, 1024, "processes")] = 2
    told_seeds: Annotated[int, Range(1, 100, "trainings of the two-sample test; of one band or part of the beat, one")] = 3
    told_steps: Annotated[int, Range(10, 10**6, "of each of them")] = 400

    def of(self, real: Labelled) -> "Settings":
        """The same with a number for each 0: where fold 10 has few records, the others are tested too, one at a time."""
        scale = OF_WHOLE if is_whole(real) else OF_SAMPLE
        return replace(self, **{name: getattr(self, name) or usual for name, usual in scale.items()})


def is_whole(real: Labelled) -> bool:
    return (real.fold == TEST_FOLD).sum() >= WHOLE


@dataclass(frozen=True)
class Sets:
    """Everything that is compared. made: the dataset; variants: name -> ablation, record for record beside `made`; smaller: the
    same of fewer donors; few: of donors among few patients; rare: the same request for the rare statements, evenly; statements: all
    that can be learned.
    """

    real: Labelled
    train: Labelled
    choice: Labelled
    test: Labelled
    made: Labelled
    rows: object  # records.parquet of `made`
    variants: dict[str, Labelled]
    smaller: dict[str, Labelled]
    few: dict[str, Labelled]
    rare: dict[str, Labelled]
    statements: tuple[str, ...]
    rare_statements: tuple[str, ...]
    prd_limit_pct: float | None


def read_sets(folder: Path, real: Labelled, settings: Settings, show=iter) -> Sets:
    """Opens the dataset, refuses a leak, makes the ablations."""
    from ecg_batch.dataset.plan import read_plan
    from ecg_batch.reading.synthetic import open_dataset
    from ecg_batch.synthesis.source import query_source
    from ecg_batch.synthesis.synthesizer import open_synthesizer

    dataset, plan = open_dataset(folder), read_plan(folder)
    count = min(len(dataset), settings.records)
    rows = dataset.records.slice(0, count)
    made = from_rows(dataset.raw[:count], rows, dataset.fs_hz)
    train, choice, test = (real.in_folds(*folds) for folds in (TRAIN_FOLDS, (CHOICE_FOLD,), (TEST_FOLD,)))
    refuse_leak(folder, made, choice, test)
    synthesizer = open_synthesizer(with_this_software(plan), "decoded")
    stand_ins = {"noise-shaped texture": noise_texture, "real texture": real_texture}
    queries = query_source(plan.request, folder)
    variants = ablations(synthesizer, count, variants_of(plan.request), queries, stand_ins, show)
    donors = synthesizer.donors
    held = [code for code in donors.table.codes if donors.table.holds(code)[donors.rows].any()]
    rare = rare_statements(train, choice, held)
    return Sets(
        real, train, choice, test, made, rows, variants, of_smaller_banks(synthesizer, folder, count, show),
        of_few_patients(synthesizer, real, settings, show), of_statements(synthesizer, rare, count, show) if rare else {},
        learnable_statements(train, choice), rare, plan.request.prd_limit_pct,
    )  # fmt: skip


def variants_of(request) -> dict[str, dict]:
    """Ablations: without variation, without texture, with other textures; the alpha sweep; each kind of variation by itself.

    "real texture" is recorded too, but not laid in time with the beats; so is none that is decoded.
    """
    bare = {"variation": None, "judge": None}
    decoded = {**bare, "texture": "decoded"}
    return {
        "no variation": bare,
        "retrieval only": {**bare, "alpha": 0.0},
        "noise-shaped texture": decoded,
        "real texture": decoded,
        "decoded texture": decoded,
        "as published": {**bare, **PUBLISHED},
        "alpha 0.3": {**bare, "alpha": 0.3},
        "alpha 0.6": {**bare, "alpha": 0.6},
        **{name: {**bare, "variation": replace(Variation(), **{name: value})} for name, value in VARIED_ALONE.items()},
        "all variation": {**bare, "variation": Variation(**VARIED_ALONE)},
    }


def of_smaller_banks(synthesizer, folder: Path, records: int, show) -> dict[str, Labelled]:
    """The dataset's request without variation, beats and noise of its first folds' donors alone; none where these lack an asked
    label, or the request has not all eight folds.
    """
    from ecg_batch.synthesis.retrieve import donors_for
    from ecg_batch.synthesis.source import query_source
    from ecg_batch.synthesis.units import unit_index

    made = {}
    for name, folds in SMALLER_BANKS.items() if len(synthesizer.request.donor_folds) == OF_FOLDS else ():
        asked = synthesizer.asked(donor_folds=synthesizer.request.donor_folds[:folds], variation=None, judge=None)
        try:
            units = asked.units and unit_index(asked.bank, asked.request.donor_folds, asked.units.model)
            few = replace(asked, donors=donors_for(asked.request, asked.bank.table), units=units)
            made |= ablations(few, records, {name: {}}, query_source(asked.request, folder), {}, show)
        except UserError:  # nobody among so few holds a label that the request asks for
            continue
    return made


def shares_of(real: Labelled) -> tuple[float, ...]:
    """Of the patients, where few are to teach."""
    return (0.01, 0.10) if is_whole(real) else (0.05, 0.10, 0.25)


def of_few_patients(synthesizer, real: Labelled, settings: Settings, show) -> dict[str, Labelled]:
    """Records like those of the few patients whom a training may see, beats and noise of the donors among these alone; none where
    they are fewer than two. By the names that FEW gets in a training.
    """
    from ecg_batch.synthesis.ask import cohort_queries
    from ecg_batch.synthesis.retrieve import index_donors
    from ecg_batch.synthesis.units import unit_index

    asked, made = synthesizer.asked(mix=None, table=None, vary=None, cohort=Cohort(), judge=None), {}
    request, table = asked.request, asked.bank.table
    for share in shares_of(real):
        for fold in folds_to_test(real.fold, settings.few_folds):
            for seed in seeds_of(fold, settings.seeds):
                allowed = few_patients(real.patients, real.fold, share, fold, seed)
                usable = np.isin(table.patient_id, allowed)
                try:
                    units = asked.units and unit_index(asked.bank, request.donor_folds, asked.units.model, usable)
                    donors = index_donors(table, request.donor_folds, usable, request.min_likelihood)
                except UserError:  # nobody among so few is a donor
                    continue
                few = replace(asked, donors=donors, units=units)
                queries, name = partial(cohort_queries, request, donors), few_name(share, fold, seed)
                made |= ablations(few, min(settings.records, FEW_RECORDS), {name: {}}, queries, {}, show)
    return made


def of_statements(synthesizer, statements: Sequence[str], records: int, show) -> dict[str, Labelled]:
    """The dataset's request, asked for these statements in equal shares instead; and what comes ever nearer to copies: without
    texture, at the donors' own rates without variation.
    """
    from ecg_batch.synthesis.ask import cohort_queries

    labels, bare = tuple((code, 1 / len(statements)) for code in statements), {"variation": None, "judge": None}
    asked = synthesizer.asked(mix=None, table=None, vary=None, cohort=Cohort(labels=labels))
    own = synthesizer.asked(mix=None, table=None, vary=None, cohort=Cohort(labels=labels, hr_spread=0.0))
    changes = {"rare synthetic": {}, "rare retrieval only": {**bare, "alpha": 0.0}}
    made = ablations(asked, records, changes, partial(cohort_queries, asked.request, asked.donors), {}, show)
    return made | ablations(own, records, {"rare at own rates": bare}, partial(cohort_queries, own.request, own.donors), {}, show)


def rare_statements(train: Labelled, choice: Labelled, held_by_donors: Sequence[str]) -> tuple[str, ...]:
    """The statements that few of the training records hold, but enough to learn and to choose a threshold."""
    counts = {code: train.holds(code).sum() for code in learnable_statements(train, choice) if code in held_by_donors}
    most = min(MOST_TAUGHT, RARE * len(train))
    return tuple(
        code for code, taught in counts.items()
        if FEWEST_TAUGHT <= taught <= most and choice.holds(code).sum() >= FEWEST_CHOSEN
    )  # fmt: skip


def learnable_statements(*parts: Labelled) -> tuple[str, ...]:
    """Those that some records of each part hold."""
    return tuple(sorted(set.intersection(*({code for codes in part.codes for code in codes} for part in parts))))


def with_this_software(plan):
    """The same plan for records that are compared among themselves and never join its dataset."""
    from ecg_batch.dataset.plan import software_versions

    return replace(plan, versions=software_versions(plan.request))


def refuse_leak(folder: Path, made: Labelled, *held_out: Labelled) -> None:
    """UserError where a patient of fold 9 or 10 is among the donors: no score on that patient would mean anything."""
    donors = set(made.patients[made.patients >= 0].tolist())
    leaked = sorted(donors & {int(patient) for part in held_out for patient in part.patient_id})
    if leaked:
        raise UserError(
            f"{folder}: patients {', '.join(map(str, leaked[:5]))}{' ...' * (len(leaked) > 5)} of PTB-XL's folds 9 and 10 are "
            "among the donors; a score on these folds would measure memory. Make the dataset with donor_folds within 1 to 8"
        )
