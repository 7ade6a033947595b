"""Real ECGs for tests of the evaluation: one bundled donor of five, as they were recorded, with their diagnoses, and their bank."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.evaluation.labelled import Labelled
from ecg_batch.leads import MODELLED, twelve_leads

ONE_OF = 5


def few_donors(rows=slice(None, None, ONE_OF)) -> bank.Bank:
    """Of the bundled bank as many donors as tests have time for, or those of these rows."""
    held = bank.read_bank(BUNDLED)
    table = replace(held.table, **{name: getattr(held.table, name)[rows] for name in bank.TABLE_COLUMNS})
    return bank.Bank(table, **{field.name: getattr(held, field.name)[rows] for field in fields(held)[1:]})


def write_few_donors(folder: Path, rows=slice(None, None, ONE_OF)) -> Path:
    """They as a bank; returns the folder."""
    few = few_donors(rows)
    columns = {name: getattr(few.table, name) for name in bank.TABLE_COLUMNS}
    columns |= {field.name: getattr(few, field.name) for field in fields(few)[1:]}
    attributes = {"format": bank.FORMAT, "leads": MODELLED, "fs_hz": few.table.fs_hz, "codes": few.table.codes,
                  "superclass_of": few.table.superclass_of, "attribution": few.table.attribution}  # fmt: skip
    folder.mkdir()
    bank.write_group(folder / "donors.zarr", columns, attributes)
    return folder


def bundled_records(folds: dict[int, int] | None = None) -> Labelled:
    """These donors; folds: fold -> the fold it plays in this test."""
    held = few_donors()
    table, count = held.table, len(held.table)
    patients = np.full((count, 3), -1)
    patients[:, 0] = table.patient_id
    records = Labelled(
        ecg=twelve_leads(held.skeleton.astype(np.int32) + held.texture).astype(np.int16),
        labels=table.superclasses, patient_id=table.patient_id, ecg_id=table.ecg_id, fold=table.fold.astype(int),
        age=table.age.astype(float), sex=table.sex, patients=patients,
        codes=tuple(tuple(table.scp_codes(donor)) for donor in range(count)), fs_hz=table.fs_hz,
    ).take(table.superclasses.any(1))  # fmt: skip
    return replace(records, fold=np.array([(folds or {}).get(fold, fold) for fold in records.fold]))
