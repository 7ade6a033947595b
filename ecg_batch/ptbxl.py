"""PTB-XL in its original layout: the table, the records, and the download. Wagner et al. 2020, doi:10.1038/s41597-020-0495-6."""

import ast
import csv
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from ecg_batch.bank import BUNDLED
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.leads import LEADS, MV_PER_STEP

DATABASE = "ptbxl"  # its name on PhysioNet
TABLE, STATEMENTS, SUMS = "ptbxl_database.csv", "scp_statements.csv", "SHA256SUMS.txt"
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


def statement_codes() -> tuple[str, ...]:
    """All SCP-ECG statements of PTB-XL, from the bundled copy of its table."""
    return _statements(BUNDLED / STATEMENTS)[0]


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


def download(folder: Path, fs_hz: int) -> None:
    """Fetches PTB-XL at one rate into `folder` through wfdb's own downloader. Call it again after a break.

    Every file is held against the release's SHA256SUMS.txt: a whole one is kept, a broken one is fetched anew (wfdb's own
    resuming appends to it, which needs a server that knows ranges). Raises UserError when one does not arrive whole.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMS).unlink(missing_ok=True)
    _fetch(folder, [SUMS])
    sums = {name: digest for digest, name in (line.split(maxsplit=1) for line in (folder / SUMS).read_text().splitlines())}
    prefix = {100: "records100/", 500: "records500/"}[fs_hz]
    wanted = [name for name in sums if name in (TABLE, STATEMENTS, "LICENSE.txt") or name.startswith(prefix)]
    step = 200  # files asked for at a time, so that progress can be shown
    with tqdm(total=len(wanted), desc="download", unit="file", disable=None) as bar:
        for first in range(0, len(wanted), step):
            block = wanted[first : first + step]
            _fetch(folder, _broken(folder, block, sums))
            if broken := _broken(folder, block, sums):
                raise UserError(f"{folder / broken[0]}: did not arrive whole ({len(broken)} such files); its sha256 is not the one "
                                f"in {SUMS}. Run the same command again; whole files are kept")  # fmt: skip
            bar.update(len(block))


def _broken(folder: Path, names: list[str], sums: dict[str, str]) -> list[str]:
    """Those that are absent or not whole; what is not whole is removed."""
    broken = []
    for name in names:
        path = folder / name
        if not path.is_file() or sha256_file(path) != sums[name]:
            path.unlink(missing_ok=True)
            broken.append(name)
    return broken


def _fetch(folder: Path, names: list[str]) -> None:
    import wfdb

    if names:
        with redirect_stdout(StringIO()):  # it prints two lines a call
            wfdb.dl_files(DATABASE, str(folder), names, keep_subdirs=True)
