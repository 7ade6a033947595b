"""Pictures of a dataset: records on ECG paper, each beside its donor, asked values against measured ones."""

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np

from ecg_batch.dataset.beats import BEAT_SYMBOLS
from ecg_batch.dataset.layout import PLAN
from ecg_batch.dataset.plan import Plan, read_plan
from ecg_batch.donors.bank import DonorTable, bank_digest, read_ecg, read_table
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_UV, twelve_leads
from ecg_batch.plot.paper import Sheet, draw
from ecg_batch.reading.synthetic import OpenDataset, open_dataset
from ecg_batch.reading.targets import make_targets
from ecg_batch.request.model import LOOP_S

log = logging.getLogger(__name__)

SEXES = {0: "male", 1: "female", None: "any"}


def plot_dataset(folder: Path, out: Path, records: list[int] | None = None, at_s: float | None = None) -> list[int]:
    """Draws records of a finished dataset beside their donors as PNG and returns which: by default the first of three labels.

    Of a dataset of long records one, by default the first, as a page: rhythm, and a strip from at_s on.

    The donors come from the bank that made the dataset, found by the plan and known by its hash; without it they are left out.
    """
    dataset = open_dataset(folder)
    if dataset.manifest["request"]["duration_s"] > LOOP_S:
        if records and len(records) > 1:
            log.warning("long records are drawn one at a time: record %d; %d more were asked for", records[0], len(records) - 1)
        return _plot_long(dataset, out, (records or [0])[0], at_s)
    if at_s is not None:
        raise UserError(f"--at {at_s:g}: records of {dataset.duration_s} s are drawn whole. Leave --at out")
    rows = dataset.records.to_pylist() if records is None else None
    chosen = records if rows is None else _one_of_each_label(rows)
    beyond = [record for record in chosen if not 0 <= record < len(dataset)]
    if beyond:
        raise UserError(f"{folder}: no record {beyond[0]}; it has records 0 to {len(dataset) - 1}")
    plan = plan_of(folder)
    donors = _donors_of(folder, plan)
    table = dataset.records.take(chosen).to_pylist()
    named = "" if plan.source else "PTB-XL "
    waves = waves_of(dataset, chosen)
    each = zip(chosen, table, waves, strict=True)
    sheets = [_row(dataset[record], row, dataset.fs_hz, donors, named, shaded) for record, row, shaded in each]
    draw(sheets, out)
    return chosen


def _plot_long(dataset: OpenDataset, out: Path, record: int, at_s: float | None) -> list[int]:
    """A page about one long record. Only the strip's samples and the record's beats are read."""
    from ecg_batch.plot.course import lanes_in, rhythms_in
    from ecg_batch.plot.long import STRIP_S, plot_long

    request = dataset.manifest["request"]
    if not 0 <= record < len(dataset):
        raise UserError(f"{dataset.path}: no record {record}; it has records 0 to {len(dataset) - 1}")
    if at_s is not None and not 0 <= at_s <= request["duration_s"] - STRIP_S:
        raise UserError(f"--at {at_s:g}: a strip is {STRIP_S:g} s; needed 0 to {request['duration_s'] - STRIP_S:g} s")
    row = dataset.records.slice(record, 1).to_pylist()[0]
    annotations = dataset.beats(record)
    symbols = np.array(annotations["symbol"].to_pylist())
    samples, beats = annotations["sample"].to_numpy(), np.isin(symbols, BEAT_SYMBOLS)
    symbols = symbols.astype("U1")
    said = samples, symbols, np.array(annotations["aux"].to_pylist()), dataset.fs_hz
    donor = f"donor {_donor(row, '' if plan_of(dataset.path).source else 'PTB-XL ')}"
    facts = f"Synthetic record {record}: {row['label']} asked, {donor}   flags: {row['flags'] or 'none'}"
    read_mv = partial(dataset.window, record)
    r_s = samples[beats] / dataset.fs_hz
    course = rhythms_in(*said), lanes_in(*said, r_s[-1])
    plot_long(facts, dataset.fs_hz, r_s, symbols[beats], read_mv, at_s, out, request.get("start_hour"), *course)
    return [record]


def _one_of_each_label(rows: list[dict], most: int = 3) -> list[int]:
    """The first record without flags of each label, in order of appearance."""
    first: dict[str, int] = {}
    for row in rows:
        if not row["flags"]:
            first.setdefault(row["label"], row["record"])
    return list(first.values())[:most] or [0]


def plan_of(folder: Path) -> Plan:
    try:
        return read_plan(folder)
    except FileNotFoundError:
        raise UserError(f"{folder / PLAN}: absent, so the dataset is damaged. ecg-batch verify names what else is") from None


def _donors_of(folder: Path, plan: Plan) -> tuple[Path, DonorTable] | None:
    """The bank that made a dataset, and its donors."""
    path = Path(plan.request.bank)
    if not (path / "donors.zarr").is_dir() or bank_digest(path) != plan.inputs["bank"]:
        log.warning("%s: its bank %s is not here or has changed; drawing without donors", folder / PLAN, path)
        return None
    return path, read_table(path)


def waves_of(dataset: OpenDataset, records: list[int]) -> list[np.ndarray | None]:
    """Where each record has its waves, uint8 (3, time); None of datasets that do not know them."""
    if not dataset.has_waves:
        return [None] * len(records)
    known, order = np.unique(records, return_inverse=True)
    targets = make_targets("waves", [dataset], known, np.zeros(len(known), np.uint8))
    return list(targets.of(order)["waves"])


def _row(ecg_mv: np.ndarray, row: dict, fs_hz: int, donors, named: str, waves: np.ndarray | None) -> tuple[Sheet, ...]:
    """donors: of _donors_of; named: what stands before the number of a donor."""
    facts = (f"HR {_number(row['hr_bpm_requested'])} asked, {_number(row['hr_bpm_measured'], 1)} measured   "
             f"age {_number(row['age_requested'])} asked, {_number(row['age'])} of the donor   "
             f"sex {SEXES[row['sex_requested']]} asked, {SEXES[row['sex']]} of the donor   "
             f"noise {row['prd_pct']:.0f} % of the beats' RMS (PRD)   flags: {row['flags'] or 'none'}")  # fmt: skip
    synthetic = Sheet(ecg_mv, fs_hz, f"Synthetic record {row['record']}: {row['label']} asked{_noise(row)}", facts, waves)
    if donors is None:
        return (synthetic,)
    bank, table = donors
    donor = int(np.flatnonzero(table.ecg_id == row["donor_ecg_id"])[0])
    codes = ", ".join(f"{code} {percent} %" if percent else code for code, percent in json.loads(row["scp_codes"]).items())
    title = f"Its donor: {_donor(row, named)}, patient {row['donor_patient_id']}, fold {row['donor_fold']}"
    ecg_mv = twelve_leads(read_ecg(bank, donor)) * MV_PER_UV
    return synthetic, Sheet(ecg_mv, fs_hz, title, f"HR {table.hr_bpm[donor]:.1f}   {codes}")


def _noise(row: dict) -> str:
    """The noise that was asked for."""
    if not row.get("noise_kinds"):
        return ""
    return f", with {' and '.join(row['noise_kinds'])}" + ("" if row["snr_db"] is None else f" at {row['snr_db']:z.1f} dB")


def _donor(row: dict, named: str) -> str:
    """A donor by its registry and name there, or by its number."""
    return f"{row['donor_source']} {row['donor_record']}" if "donor_source" in row else f"{named}{row['donor_ecg_id']}"


def _number(value: float | None, digits: int = 0) -> str:
    return "any" if value is None else f"{value:.{digits}f}"
