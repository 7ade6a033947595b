"""Pictures of a dataset: records on ECG paper, each beside its donor, asked values against measured ones."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from ecg_batch.bank import Bank, bank_digest, read_bank
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_STEP, twelve_leads
from ecg_batch.paper import Sheet, draw
from ecg_batch.plan import PLAN, read_plan
from ecg_batch.read import OpenDataset, open_dataset
from ecg_batch.request import LOOP_S

SEXES = {0: "male", 1: "female", None: "any"}


def plot_dataset(folder: Path, out: Path, records: list[int] | None = None, at_s: float | None = None) -> list[int]:
    """Draws records of a finished dataset beside their donors as PNG and returns which: by default the first of three labels.

    Of a dataset of long records one, by default the first, as a page: rhythm, and a strip from at_s on.

    The donors come from the bank that made the dataset, found by the plan and known by its hash; without it they are left out.
    """
    dataset = open_dataset(folder)
    if dataset.manifest["request"]["duration_s"] > LOOP_S:
        return _plot_long(dataset, out, (records or [0])[0], at_s)
    rows = dataset.records.to_pylist() if records is None else None
    chosen = records if rows is None else _one_of_each_label(rows)
    beyond = [record for record in chosen if not 0 <= record < len(dataset)]
    if beyond:
        raise UserError(f"{folder}: no record {beyond[0]}; it has records 0 to {len(dataset) - 1}")
    bank = _bank_of(folder)
    table = dataset.records.take(chosen).to_pylist()
    sheets = [_row(dataset[record], row, dataset.fs_hz, bank) for record, row in zip(chosen, table, strict=True)]
    draw(sheets, out)
    return chosen


def _plot_long(dataset: OpenDataset, out: Path, record: int, at_s: float | None) -> list[int]:
    """A page about one long record. Only the strip's samples and the record's beats are read."""
    from ecg_batch.plot_long import STRIP_S, plot_long

    request = dataset.manifest["request"]
    if not 0 <= record < len(dataset):
        raise UserError(f"{dataset.path}: no record {record}; it has records 0 to {len(dataset) - 1}")
    if at_s is not None and not 0 <= at_s <= request["duration_s"] - STRIP_S:
        raise UserError(f"--at {at_s:g}: a strip is {STRIP_S:g} s; needed 0 to {request['duration_s'] - STRIP_S:g} s")
    row = dataset.records.slice(record, 1).to_pylist()[0]
    annotations = dataset.beats(record)
    symbols = np.array(annotations["symbol"].to_pylist())
    samples, beats = annotations["sample"].to_numpy(), np.isin(symbols, ("N", "V", "A"))
    aux = next(text for text in annotations["aux"].to_pylist() if text.startswith("("))
    facts = (
        f"Synthetic record {record}: {row['label']} asked, donor PTB-XL {row['donor_ecg_id'][0]}   flags: {row['flags'] or 'none'}"
    )
    read_mv = partial(dataset.window, record)
    r_s = samples[beats] / dataset.fs_hz
    plot_long(facts, dataset.fs_hz, r_s, symbols[beats], read_mv, at_s, out, request.get("start_hour"), aux)
    return [record]


def _one_of_each_label(rows: list[dict], most: int = 3) -> list[int]:
    """The first record without flags of each label, in order of appearance."""
    first: dict[str, int] = {}
    for row in rows:
        if not row["flags"]:
            first.setdefault(row["label"], row["record"])
    return list(first.values())[:most] or [0]


def _bank_of(folder: Path) -> Bank | None:
    plan = read_plan(folder)
    path = Path(plan.request.bank)
    if not (path / "donors.zarr").is_dir() or bank_digest(path) != plan.inputs["bank"]:
        print(f"{folder / PLAN}: its bank {path} is not here or has changed; drawing without donors")
        return None
    return read_bank(path)


def _row(ecg_mv: np.ndarray, row: dict, fs_hz: int, bank: Bank | None) -> tuple[Sheet, ...]:
    facts = (f"HR {_number(row['hr_bpm_requested'])} asked, {_number(row['hr_bpm_measured'], 1)} measured   "
             f"age {_number(row['age_requested'])} asked, {_number(row['age'])} of the donor   "
             f"sex {SEXES[row['sex_requested']]} asked, {SEXES[row['sex']]} of the donor   "
             f"PRD {row['prd_pct']:.1f} %   flags: {row['flags'] or 'none'}")  # fmt: skip
    synthetic = Sheet(ecg_mv, fs_hz, f"Synthetic record {row['record']}: {row['label']} asked", facts)
    if bank is None:
        return (synthetic,)
    donor = int(np.flatnonzero(bank.table.ecg_id == row["donor_ecg_id"][0])[0])
    modelled = bank.skeleton[donor].astype(np.int32) + bank.texture[donor]
    codes = ", ".join(f"{code} {percent}" for code, percent in json.loads(row["scp_codes"]).items())
    title = f"Its donor: PTB-XL {row['donor_ecg_id'][0]}, patient {row['donor_patient_id'][0]}, fold {row['donor_fold'][0]}"
    return synthetic, Sheet(twelve_leads(modelled) * MV_PER_STEP, fs_hz, title, f"HR {bank.table.hr_bpm[donor]:.1f}   {codes}")


def _number(value: float | None, digits: int = 0) -> str:
    return "any" if value is None else f"{value:.{digits}f}"
