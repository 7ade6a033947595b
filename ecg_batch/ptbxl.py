"""PTB-XL in its original layout: the table, the records, and the download. Wagner et al. 2020, doi:10.1038/s41597-020-0495-6."""

import ast
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS, MV_PER_STEP

DATABASE = "ptbxl"  # its name on PhysioNet
TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
NEEDED = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
OVER_89 = 90.0  # releases code "90 or more" as 300 (HIPAA) or as 90 and above


@dataclass(frozen=True)
class Entry:
    """One row of ptbxl_database.csv. age in years (NaN = unknown), sex 0 male 1 female (-1 = unknown), likelihoods in percent."""

    ecg_id: int
    patient_id: int
    age: float
    sex: int
    fold: int
    scp_codes: dict[str, float]
    path: str  # of the record, without suffix, relative to the release


@dataclass(frozen=True)
class Release:
    """A PTB-XL folder: its entries and the superclass of each diagnostic SCP statement."""

    folder: Path
    fs_hz: int
    entries: tuple[Entry, ...]
    codes: tuple[str, ...]
    superclass_of: dict[str, str]


def read_release(folder: Path, fs_hz: int) -> Release:
    """Reads both tables of a PTB-XL folder. Entries whose files are not there (a partial download) are left out.

    Raises UserError when the folder is no PTB-XL or holds no record at this rate.
    """
    for name in (TABLE, STATEMENTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; a PTB-XL folder holds {TABLE}, {STATEMENTS} and records100/ or records500/. "
                            "Name such a folder, or add --download to fetch PTB-XL into it")  # fmt: skip
    column = {100: "filename_lr", 500: "filename_hr"}[fs_hz]
    with open(folder / TABLE, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        absent = [name for name in NEEDED if name not in (rows.fieldnames or ())]
        if absent:
            raise UserError(f"{folder / TABLE}: no column {', '.join(absent)}; this is not PTB-XL's table. Fetch it again")
        entries = tuple(_entry(row, column) for row in rows)
    here = tuple(entry for entry in entries if (folder / f"{entry.path}.hea").is_file())
    if not here:
        raise UserError(f"{folder}: none of the {len(entries)} records of {TABLE} is there at {fs_hz} Hz; "
                        f"choose the other rate with --fs, or add --download")  # fmt: skip
    codes, superclass_of = _statements(folder / STATEMENTS)
    return Release(folder, fs_hz, here, codes, superclass_of)


def _entry(row: dict[str, str], column: str) -> Entry:
    age = float(row["age"] or "nan")
    return Entry(
        ecg_id=int(float(row["ecg_id"])),
        patient_id=int(float(row["patient_id"])),
        age=min(age, OVER_89) if age == age else age,
        sex=int(float(row["sex"])) if row["sex"] else -1,
        fold=int(row["strat_fold"]),
        scp_codes=ast.literal_eval(row["scp_codes"]),
        path=row[column],
    )


def _statements(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """All SCP statements, and the superclass of the diagnostic ones."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    name = next(iter(rows[0]))  # the first column has no title
    diagnostic = {row[name]: row["diagnostic_class"] for row in rows if row["diagnostic"] and float(row["diagnostic"]) == 1}
    return tuple(row[name] for row in rows), diagnostic


def read_record(release: Release, entry: Entry) -> np.ndarray:
    """One record as int16 microvolts (12 leads in our order, time), through wfdb.

    Raises ValueError when the record is damaged, lacks a lead or has another rate.
    """
    import wfdb

    record = wfdb.rdrecord(str(release.folder / entry.path), physical=True)
    if round(record.fs) != release.fs_hz:
        raise ValueError(f"{entry.path}: {record.fs} Hz, not {release.fs_hz}")
    names = [name.lower() for name in record.sig_name]
    missing = [lead for lead in LEADS if lead.lower() not in names]
    if missing:
        raise ValueError(f"{entry.path}: no lead {', '.join(missing)}")
    ecg_mv = record.p_signal.T[[names.index(lead.lower()) for lead in LEADS]]
    if not np.isfinite(ecg_mv).all():
        raise ValueError(f"{entry.path}: missing samples")
    return np.clip(np.rint(ecg_mv / MV_PER_STEP), -32768, 32767).astype(np.int16)


def download(folder: Path, fs_hz: int, records: int | None = None) -> None:
    """Fetches PTB-XL at one rate into `folder` through wfdb's own downloader; files already there in full are kept."""
    import wfdb
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    wfdb.dl_files(DATABASE, str(folder), [TABLE, STATEMENTS, "LICENSE.txt"], keep_subdirs=True)
    with open(folder / TABLE, newline="", encoding="utf-8") as file:
        paths = [row[{100: "filename_lr", 500: "filename_hr"}[fs_hz]] for row in csv.DictReader(file)][:records]
    step = 200  # records asked for at a time, so that progress can be shown
    for first in tqdm(range(0, len(paths), step), desc="download", unit="x200 records", disable=None):
        block = [f"{path}{suffix}" for path in paths[first : first + step] for suffix in (".hea", ".dat")]
        wfdb.dl_files(DATABASE, str(folder), block, keep_subdirs=True)
