"""One row per record: what records.parquet says of it. Columns: docs/format.md, what was asked beside what was got."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ecg_batch.donors.bank import DonorTable
from ecg_batch.leads import LEADS
from ecg_batch.statements import SUPERCLASSES

ROW_COLUMNS = (
    "record", "shard", "label", "hr_bpm_requested", "hr_bpm_measured", "age_requested", "age", "sex_requested", "sex",
    "donor_ecg_id", "donor_patient_id", "donor_fold", "blend_ecg_id", "blend_patient_id", "blend_fold",
    "texture_ecg_id", "texture_patient_id", "texture_fold",
    "scp_codes", *SUPERCLASSES, "prd_pct", "alpha", "flags",
)  # fmt: skip
# where the bank is not of PTB-XL alone: the registry of each donor, and the record's name there
SOURCE_COLUMNS = ("donor_source", "donor_record", "blend_source", "blend_record", "texture_source", "texture_record")
LENT_SOURCE_COLUMNS = ("beat_source", "beat_record")  # both
# where the request asks for events: other patients whose beats, P waves or fibrillation a record has
LENT_COLUMNS = ("beat_ecg_id", "beat_patient_id", "beat_fold")
PAIR_COLUMNS = ("pair_id",)  # where the request makes sets of records that are alike in all but what it varies
# where the request asks for noise
NOISE_COLUMNS = ("snr_db", "snr_db_by_lead", "noise_kinds", "masked")
OPTIONAL_COLUMNS = (LENT_COLUMNS, PAIR_COLUMNS, NOISE_COLUMNS, SOURCE_COLUMNS, LENT_SOURCE_COLUMNS)  # in this order, at the end
FURTHER = pa.list_(pa.int32())  # donors beside the first: of a blend none, one or two; of recorded texture none or more


def rows_table(donors: DonorTable, batch, shard: int) -> pa.Table:
    """The rows of a Batch. age, sex and labels are the donor's, which its beats show; *_requested what was asked."""
    queries, chosen = batch.queries, batch.donor_row
    superclasses = donors.superclasses[chosen]
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
        "donor_ecg_id": pa.array(donors.ecg_id[chosen], pa.int32()),
        "donor_patient_id": pa.array(donors.patient_id[chosen], pa.int32()),
        "donor_fold": pa.array(donors.fold[chosen], pa.int32()),
        **_further("blend", donors, batch.blended_rows),
        **_further("texture", donors, _noise_rows(batch)),
        "scp_codes": pa.array([donors.scp_text(donor) for donor in chosen.tolist()], pa.string()),
        **{name: pa.array(superclasses[:, at]) for at, name in enumerate(SUPERCLASSES)},
        "prd_pct": pa.array(batch.prd_pct, pa.float32()),
        "alpha": pa.array(batch.alpha, pa.float32()),
        "flags": pa.array([",".join(flags) for flags in batch.flags], pa.string()),
    }
    return pa.table(columns | _lent(donors, batch) | _pairs(queries) | _noise(batch) | _sources(donors, batch))


def _further(what: str, donors: DonorTable, each: Sequence[Sequence[int]]) -> dict[str, pa.Array]:
    """The three columns that name donors beside the first: several rows of the bank for each record."""
    rows = np.concatenate([np.asarray(own, np.int64) for own in each])
    ends = pa.array(np.cumsum([0, *map(len, each)]), pa.int32())
    values = {"ecg_id": donors.ecg_id, "patient_id": donors.patient_id, "fold": donors.fold}
    lists = {name: pa.ListArray.from_arrays(ends, pa.array(of[rows], pa.int32()), FURTHER) for name, of in values.items()}
    return {f"{what}_{name}": each for name, each in lists.items()}


def _noise_rows(batch) -> Sequence[Sequence[int]]:
    """Whose recorded noise is in each record: texture, and what was added where noise was asked for."""
    if batch.noise is None:
        return batch.texture_rows
    each = zip(batch.texture_rows, batch.noise, strict=True)
    return [tuple(dict.fromkeys((*map(int, texture), *one.rows))) if one.rows else texture for texture, one in each]


def _lent(donors: DonorTable, batch) -> dict[str, pa.Array]:
    """LENT_COLUMNS; none where no events were asked for."""
    if batch.lent_rows is None:
        return {}
    return _further("beat", donors, batch.lent_rows)


def _pairs(queries) -> dict[str, pa.Array]:
    """PAIR_COLUMNS; none where nothing is varied."""
    return {"pair_id": pa.array(queries.key, pa.int64())} if queries.set_size > 1 else {}


def _noise(batch) -> dict[str, pa.Array]:
    """NOISE_COLUMNS; none where no noise was asked for."""
    if batch.noise is None:
        return {}
    return {
        "snr_db": pa.array([one.snr_db for one in batch.noise], pa.float32()),
        "snr_db_by_lead": pa.array([one.snr_db_by_lead for one in batch.noise], pa.list_(pa.float32())),
        "noise_kinds": pa.array([list(one.kinds) for one in batch.noise], pa.list_(pa.string())),
        "masked": pa.array([[f"{lead}:{start}-{stop}" for lead, start, stop in one.masked] for one in batch.noise],
                           pa.list_(pa.string())),
    }  # fmt: skip


def mask_of(masked: list[str], samples: int) -> np.ndarray:
    """Where a record does not show the heart, by its row's `masked`: bool (12, time)."""
    mask = np.zeros((len(LEADS), samples), bool)
    for place in masked:
        lead, _, interval = place.partition(":")
        start, stop = map(int, interval.split("-"))
        mask[LEADS.index(lead), start:stop] = True
    return mask


def _sources(donors: DonorTable, batch) -> dict[str, pa.Array]:
    """SOURCE_COLUMNS; none where all donors are of one release in PTB-XL's layout, whose numbers name the records."""
    if donors.source is None:
        return {}
    further = {"donor": None, "blend": batch.blended_rows, "texture": _noise_rows(batch)}
    further |= {"beat": batch.lent_rows} if batch.lent_rows is not None else {}
    named = {}
    for what, each in further.items():
        for name in ("source", "record"):
            values = getattr(donors, name)
            named[f"{what}_{name}"] = (
                pa.array(values[batch.donor_row].tolist(), pa.string())
                if each is None
                else pa.array([values[list(rows)].tolist() for rows in each], pa.list_(pa.string()))
            )
    return named


def _asked(values: np.ndarray, absent: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Values with nulls where nothing was asked, or nothing could be measured."""
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=absent)
