"""Real ECGs for tests of the evaluation: the bundled donors, as they were recorded, with their diagnoses."""

from dataclasses import replace

import numpy as np

from ecg_batch import bank
from ecg_batch.labelled import Labelled
from ecg_batch.leads import twelve_leads


def bundled_records(folds: dict[int, int] | None = None) -> Labelled:
    """The bundled donors; folds: fold -> the fold it plays in this test."""
    held = bank.read_bank(bank.BUNDLED)
    table, count = held.table, len(held.table)
    patients = np.full((count, 3), -1)
    patients[:, 0] = table.patient_id
    records = Labelled(
        ecg=twelve_leads(held.skeleton.astype(np.int32) + held.texture).astype(np.int16),
        labels=table.superclasses(), patient_id=table.patient_id, ecg_id=table.ecg_id, fold=table.fold.astype(int),
        age=table.age.astype(float), sex=table.sex, patients=patients,
        codes=tuple(tuple(table.scp_codes(donor)) for donor in range(count)), fs_hz=table.fs_hz,
    ).take(table.superclasses().any(1))  # fmt: skip
    return replace(records, fold=np.array([(folds or {}).get(fold, fold) for fold in records.fold]))
