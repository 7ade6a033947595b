"""One row per record: what records.parquet says of it. Columns as in dataset-format.md, with what was asked beside what was got."""

import json

import numpy as np
import pyarrow as pa

from ecg_batch.bank import DonorTable
from ecg_batch.statements import SUPERCLASSES

ROW_COLUMNS = (
    "record", "shard", "label", "hr_bpm_requested", "hr_bpm_measured", "age_requested", "age", "sex_requested", "sex",
    "donor_ecg_id", "donor_patient_id", "donor_fold", "scp_codes", *SUPERCLASSES, "prd_pct", "alpha", "flags",
)  # fmt: skip
DONORS = pa.list_(pa.int32())  # a list, because a record may blend several donors


def rows_table(donors: DonorTable, batch, shard: int) -> pa.Table:
    """The rows of a shard.Batch. age, sex and labels are the donor's: they are what its beats show; *_requested what was asked."""
    queries, chosen = batch.queries, batch.donors
    superclasses = donors.superclasses()[chosen]
    held = [[int(donor), *others] for donor, others in zip(chosen, batch.blended, strict=True)]
    columns = {
        "record": pa.array(queries.record, pa.int64()),
        "shard": pa.array(np.full(len(chosen), shard), pa.int32()),
        "label": pa.array(queries.label.tolist(), pa.string()),
        "hr_bpm_requested": _asked(queries.hr_bpm, np.isnan(queries.hr_bpm), pa.float32()),
        "hr_bpm_measured": _asked(batch.measured_bpm, np.isnan(batch.measured_bpm), pa.float32()),
        "age_requested": _asked(queries.age, np.isnan(queries.age), pa.float32()),
        "age": pa.array(donors.age[chosen], pa.float32()),
        "sex_requested": _asked(queries.sex, queries.sex < 0, pa.int8()),
        "sex": pa.array(donors.sex[chosen], pa.int8()),
        "donor_ecg_id": pa.array([donors.ecg_id[at].tolist() for at in held], DONORS),
        "donor_patient_id": pa.array([donors.patient_id[at].tolist() for at in held], DONORS),
        "donor_fold": pa.array([donors.fold[at].tolist() for at in held], DONORS),
        "scp_codes": pa.array([json.dumps(donors.scp_codes(int(donor))) for donor in chosen], pa.string()),
        **{name: pa.array(superclasses[:, at]) for at, name in enumerate(SUPERCLASSES)},
        "prd_pct": pa.array(batch.prd_pct, pa.float32()),
        "alpha": pa.array(batch.alpha, pa.float32()),
        "flags": pa.array([",".join(flags) for flags in batch.flags], pa.string()),
    }
    return pa.table(columns)


def _asked(values: np.ndarray, absent: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Values with nulls where nothing was asked, or nothing could be measured."""
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=absent)


def beats_table(record: int, annotations: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> pa.Table:
    """The rows of beats.parquet of one record: its annotations, several of (samples, symbols, aux), put in the order of time."""
    sample, symbol, aux = (np.concatenate(arrays) for arrays in zip(*annotations, strict=True))
    order = np.argsort(sample, kind="stable")
    columns = {"record": np.full(len(sample), record, np.int64), "sample": sample[order].astype(np.int64),
               "symbol": pa.array(symbol[order], pa.string()), "aux": pa.array(aux[order], pa.string())}  # fmt: skip
    return pa.table(columns)
