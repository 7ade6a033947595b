"""PTB-XL in its original layout: its tables, and its records. Wagner et al. 2020, doi:10.1038/s41597-020-0495-6.

The table is read cell by cell. A row with a cell that means nothing is left out, and counted under its reason; a table that is no
table of PTB-XL, or names a record twice, is refused.
"""

import csv
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.quality import noisy_leads
from ecg_batch.donors.recording import Unreadable, read_recording, read_windows
from ecg_batch.errors import UserError, clipped
from ecg_batch.statements import NOISE_KINDS

PTBXL = "PTB-XL"
TABLE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
NEEDED = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr")
OVER_89, CODED_OVER_89 = 90.0, 300.0  # releases code "90 or more" as 300 (HIPAA) or as 90 and above
OLDEST = 130.0
SAME_SIGNAL = "the same signal as another record"
SMALLEST_UV = 500  # from lowest to highest sample, in the lead where that is most: 1,025 uV at least in 1,987 records of PTB-XL
BLANK = " \t"  # about a cell's value; what else Python counts as a space, such as a unit separator, is damage
WHOLE = re.compile(r"([0-9]{1,9})(?:\.0*)?")  # pandas writes 15709 as 15709.0
NUMBER = re.compile(r"[-+]?(?:[0-9]{1,20}\.?[0-9]{0,30}|\.[0-9]{1,30})(?:[eE][-+]?[0-9]{1,3})?")
LIKELIHOOD = rf"(?!0+[1-9][0-9]*[ \t]*$)({NUMBER.pattern})"  # Python takes no 00100
STATEMENT = re.compile(rf"""[ \t]*(['"])([^'"\\]{{1,40}})\1[ \t]*:[ \t]*{LIKELIHOOD}[ \t]*""")
PLAIN_PATH = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[\w.-]+(?:/[\w.-]+)*", re.ASCII)

log = logging.getLogger(__name__)


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
    noise: dict[str, frozenset[str]] = field(default_factory=dict)  # of each kind in statements.NOISE_KINDS, the leads that have it
    source: str = PTBXL  # the registry
    folder: Path | None = None  # of another registry than PTB-XL: the folder that path is relative to
    unsaid: str = ""  # why there is no statement, where something was stated


@dataclass(frozen=True)
class Release:
    """A PTB-XL folder: its entries and the superclass of each diagnostic SCP statement. rejected: rows left out, by reason.

    With other registries (sources.py) their entries follow; folder is then PTB-XL's, or the first registry's without PTB-XL.
    """

    folder: Path
    fs_hz: int
    entries: tuple[Entry, ...]
    codes: tuple[str, ...]
    superclass_of: dict[str, str]
    rejected: dict[str, int] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()  # all of them, where there are others than `folder`
    unmapped: dict[str, int] = field(default_factory=dict)  # SNOMED CT codes without a statement, and how many records have them

    @property
    def named(self) -> str:
        """Its folders, for a message."""
        return ", ".join(map(str, self.folders or (self.folder,)))


class Rejected(Exception):
    """A row that is left out; its text is the reason."""


def read_release(folder: Path, fs_hz: int) -> Release:
    """Reads both tables of a PTB-XL folder. Entries whose files are not there (a partial download) are left out.

    Rows with cells that mean nothing are left out with a warning. Raises UserError when the folder is no PTB-XL, names a record
    twice, or holds no record at this rate.
    """
    for name in (TABLE, STATEMENTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; a PTB-XL folder holds {TABLE}, {STATEMENTS} and records100/ or records500/. "
                            "Name such a folder, or add --download to fetch PTB-XL into it")  # fmt: skip
    codes, superclass_of = _statements(folder / STATEMENTS)
    entries, rejected = _entries(folder / TABLE, {100: "filename_lr", 500: "filename_hr"}[fs_hz], frozenset(codes))
    here = tuple(entry for entry in entries if (folder / f"{entry.path}.hea").is_file())
    if not here:
        raise UserError(f"{folder}: none of the {len(entries)} records of {TABLE} is there at {fs_hz} Hz; "
                        f"choose the other rate with --fs, or add --download")  # fmt: skip
    return Release(folder, fs_hz, here, codes, superclass_of, rejected)


def _entries(path: Path, column: str, codes: frozenset[str]) -> tuple[list[Entry], dict[str, int]]:
    """The rows that can be used, and how many cannot, by reason."""
    entries: list[Entry] = []
    reasons: Counter = Counter()
    lines: dict[int, int] = {}  # of each ecg_id
    for line, row in _rows(path, NEEDED):
        try:
            entry = _entry(row, column, codes)
        except Rejected as error:
            log.debug("%s: line %d: %s", path, line, error)
            reasons[str(error)] += 1
            continue
        if entry.ecg_id in lines:
            raise UserError(f"{path}: lines {lines[entry.ecg_id]} and {line} both have the ecg_id {entry.ecg_id}; needed one row "
                            "for each record. Was the table joined with another? Fetch it again")  # fmt: skip
        lines[entry.ecg_id] = line
        entries.append(entry)
    if reasons:
        said = counted(reasons)
        if not entries:
            raise UserError(f"{path}: no row can be used: {said}. Fetch it again")
        log.warning("%s: %d of %d rows left out: %s", path, reasons.total(), reasons.total() + len(entries), said)
    return entries, dict(reasons.most_common())


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row. UserError where the file is no table with these columns."""
    rows = None
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # a byte order mark is what spreadsheets put before UTF-8
            rows = csv.DictReader(file, strict=True)
            _refuse_other_columns(path, rows.fieldnames or [], needed)
            yield from ((rows.line_num, row) for row in rows)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text ({error!s:.200}); save it as UTF-8, or fetch it again") from None
    except csv.Error as error:
        at = f"line {rows.line_num}: " if rows else ""
        raise UserError(f"{path}: {at}no row of a table ({error!s:.200}); mend it, or fetch it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}. Fetch it again") from None


def _refuse_other_columns(path: Path, found: list[str], needed: tuple[str, ...]) -> None:
    if absent := [name for name in needed if name not in found]:
        shown = f"{len(found)} columns: {clipped(', '.join(found), 150)}" if found else "nothing"
        raise UserError(f"{path}: no column {', '.join(absent)}; this is not PTB-XL's table, separated by commas. It has {shown}. "
                        "Fetch it again")  # fmt: skip
    if twice := [name for name, count in Counter(found).items() if count > 1 and name in needed]:
        raise UserError(f"{path}: the column {twice[0]} is there twice; needed one of each. Fetch it again")


# Cells ----------------------------------------------------------------------------------------------------------------


def _entry(row: dict[str, str], column: str, codes: frozenset[str]) -> Entry:
    """Raises Rejected for the first cell that means nothing."""
    if None in row or None in row.values():
        raise Rejected("more or fewer cells than columns")
    return Entry(
        ecg_id=_whole("ecg_id", row),
        patient_id=_whole("patient_id", row),
        age=_age(row["age"].strip(BLANK)),
        sex=_whole("sex", row, 0, 1) if row["sex"].strip(BLANK) else -1,
        fold=_whole("strat_fold", row, 1, 10),
        scp_codes=_scp_codes(row["scp_codes"], codes),
        path=_path(column, row[column]),
        noise={kind: leads for kind in NOISE_KINDS if (leads := noisy_leads(row.get(kind, "")[:200]))},
    )


def _whole(name: str, row: dict[str, str], low: int = 0, high: int = 2**31 - 1) -> int:
    found = WHOLE.fullmatch(row[name].strip(BLANK))
    if not found or not low <= int(found[1]) <= high:
        raise Rejected(f"{name} is no whole number" + (f" from {low} to {high}" if high < 2**31 - 1 else ""))
    return int(found[1])


def _age(text: str) -> float:
    if text.lower() in ("", "nan"):
        return float("nan")
    age = float(text) if NUMBER.fullmatch(text) else -1.0
    if not (0 <= age <= OLDEST or age == CODED_OVER_89):
        raise Rejected(f"age is no number of years (0 to {OLDEST:g}, or {CODED_OVER_89:g} for over 89)")
    return min(age, OVER_89)


def _scp_codes(text: str, codes: frozenset[str]) -> dict[str, float]:
    """{'NORM': 100.0, 'SR': 0.0} as Python writes it, by a pattern: nothing in a table is evaluated."""
    text = text.strip(BLANK)
    if not text:
        raise Rejected("scp_codes is blank")
    if len(text) > 10_000 or not (text.startswith("{") and text.endswith("}")):
        raise Rejected("scp_codes is no {'CODE': percent, ...}")
    found: dict[str, float] = {}
    parts = text[1:-1].split(",")
    if not parts[-1].strip(BLANK) and parts[0].strip(BLANK):
        parts.pop()  # Python takes a comma at the end, and nowhere else without a statement before it
    for part in parts if text[1:-1].strip(BLANK) else ():
        match = STATEMENT.fullmatch(part)
        if not match:
            raise Rejected("scp_codes is no {'CODE': percent, ...}")
        if match[2] in found:
            raise Rejected("scp_codes names a statement twice")
        if match[2] not in codes:
            raise Rejected(f"scp_codes has a statement that {STATEMENTS} lacks")
        if not 0 <= float(match[3]) <= 100:
            raise Rejected("scp_codes has a likelihood outside 0 to 100")
        found[match[2]] = float(match[3])
    return found


def _path(column: str, text: str) -> str:
    """A record's path, which must stay inside the folder."""
    if not PLAIN_PATH.fullmatch(text) or len(text) > 200:
        raise Rejected(f"{column} is no plain path below the folder")
    return text


def _statements(path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """All SCP statements, and the superclass of the diagnostic ones."""
    codes, diagnostic = [], {}
    for line, row in _rows(path, ("diagnostic", "diagnostic_class")):
        code = row.get(next(iter(row)))  # the first column has no title
        stated = (row["diagnostic"] or "").strip(BLANK)
        if (
            None in row
            or None in row.values()  # a row that is too short would be a statement without a superclass
            or not code
            or not re.fullmatch(r"[^'\"\\\s]{1,40}", code)
            or code in codes
            or not (stated == "" or NUMBER.fullmatch(stated))
        ):
            raise UserError(
                f"{path}: line {line}: needed a statement that no other line has, 1 or nothing below diagnostic, and as many cells "
                "as columns. Fetch it again"
            )
        codes.append(code)
        if stated and float(stated) == 1:
            diagnostic[code] = row["diagnostic_class"]
    if not codes:
        raise UserError(f"{path}: has no statement. Fetch it again")
    if blank := [code for code, name in diagnostic.items() if not re.fullmatch(r"\w{1,40}", name)]:
        raise UserError(f"{path}: {blank[0]} is diagnostic, but has no diagnostic_class. Fetch it again")
    return tuple(codes), diagnostic


def bundled_statements() -> tuple[tuple[str, ...], dict[str, str]]:
    """As a release has them, from the bundled copy of its table."""
    return _statements(BUNDLED / STATEMENTS)


def statement_codes() -> tuple[str, ...]:
    """All SCP-ECG statements of PTB-XL."""
    return bundled_statements()[0]


def read_records(release: Release, entries: Iterable[Entry]) -> Iterator[tuple[Entry, np.ndarray]]:
    """The entries whose recordings can be read, with them. What cannot be, or repeats one before, is left out with a warning."""
    reasons: Counter = Counter()
    seen: set[bytes] = set()
    small = 0
    for entry in entries:
        try:
            ecg = read_record(release, entry)
        except Unreadable as error:
            log.debug("%s: %s", release.folder / entry.path, error)
            reasons[str(error)] += 1
            continue
        if (signal := digest_of(ecg)) in seen:
            reasons[SAME_SIGNAL] += 1
            continue
        seen.add(signal)
        small += bool(np.ptp(ecg.astype(np.int32), axis=1).max() < SMALLEST_UV)
        yield entry, ecg
    if small > len(seen) / 2:
        log.warning(
            "%s: %d of %d recordings have under %g mV in every lead. Real ones have about 2 mV, so the gain in these headers is "
            "not that of the samples. Fetch them again", release.folder, small, len(seen), SMALLEST_UV / 1000,
        )  # fmt: skip
    if reasons:
        log.warning("%s: %d recordings left out: %s", release.folder, reasons.total(), counted(reasons))


def counted(reasons: Counter) -> str:
    """'no lead V6 (3), not 10 s long (1)': at most ten of them."""
    shown = [f"{reason} ({count})" for reason, count in reasons.most_common(10)]
    return ", ".join(shown) + (f" and {len(reasons) - 10} other reasons" if len(reasons) > 10 else "")


def digest_of(ecg: np.ndarray) -> bytes:
    return hashlib.sha256(ecg.tobytes()).digest()


def read_record(release: Release, entry: Entry) -> np.ndarray:
    """One record as int16 microvolts (12 leads in our order, time). recording.Unreadable, a ValueError, says why there is none."""
    return next(read_stretches(release, entry))[1]


def read_stretches(release: Release, entry: Entry) -> Iterator[tuple[float, np.ndarray]]:
    """(second of the recording at which it begins, as read_record) of each stretch of ten seconds; PTB-XL's records are one."""
    if entry.folder is None:
        yield 0.0, read_recording(release.folder / entry.path, release.fs_hz)
    else:
        yield from read_windows(entry.folder / entry.path, release.fs_hz)
