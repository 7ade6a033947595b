"""A small PTB-XL in its original layout, made of the bundled donors: real ECGs, so preparing it is preparing PTB-XL."""

import csv
from pathlib import Path

import numpy as np
import wfdb

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.leads import LEADS, twelve_leads

COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")


def fold_10(folder: Path) -> int:
    """How many records of fold 10 the table of a PTB-XL folder has."""
    with open(folder / "ptbxl_database.csv", newline="", encoding="utf-8") as file:
        return sum(int(float(row["strat_fold"])) == 10 for row in csv.DictReader(file))


def write_layout(folder: Path, donors: list[int]) -> dict[int, np.ndarray]:
    """Writes these bundled donors; returns ecg_id -> the ECG written, int16 (12, time). Folds 9 and 10 get one donor each."""
    source = bank.read_bank(BUNDLED)
    table, written, rows = source.table, {}, []
    (folder / "records100" / "00000").mkdir(parents=True)
    for at, donor in enumerate(donors):
        ecg_id = int(table.ecg_id[donor])
        ecg = twelve_leads(source.skeleton[donor] + source.texture[donor])
        write_record(folder / "records100" / "00000", f"{ecg_id:05d}_lr", ecg)
        fold = {0: 9, 1: 10}.get(at, int(table.fold[donor]))
        rows.append({"ecg_id": ecg_id, "patient_id": f"{table.patient_id[donor]}.0", "age": float(table.age[donor]),
                     "sex": int(table.sex[donor]), "scp_codes": str({c: float(p) for c, p in table.scp_codes(donor).items()}),
                     "strat_fold": fold, "filename_lr": f"records100/00000/{ecg_id:05d}_lr",
                     "filename_hr": f"records500/00000/{ecg_id:05d}_hr"})  # fmt: skip
        written[ecg_id] = ecg
    write_tables(folder, rows, table)
    return written


def write_record(folder: Path, name: str, ecg: np.ndarray, fs_hz: int = 100) -> None:
    """One WFDB record as PTB-XL stores it: int16, 1 uV a step, leads in capitals."""
    names = [lead.upper() if lead.startswith("a") else lead for lead in LEADS]
    wfdb.wrsamp(name, fs_hz, ["mV"] * 12, names, d_signal=ecg.T.astype(np.int64), fmt=["16"] * 12, adc_gain=[1000.0] * 12,
                baseline=[0] * 12, write_dir=str(folder))  # fmt: skip


def write_tables(folder: Path, rows: list[dict], table: bank.DonorTable) -> None:
    with open(folder / "ptbxl_database.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with open(folder / "scp_statements.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", "description", "diagnostic", "diagnostic_class"])
        for code in table.codes:
            parent = table.superclass_of.get(code)
            writer.writerow([code, "", 1.0 if parent else "", parent or ""])
