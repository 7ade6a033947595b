"""Registries beside PTB-XL: folders of 12-lead WFDB records whose headers say age, sex and SNOMED CT codes. All of them as one.

The form is that of the PhysioNet/CinC challenges 2020 and 2021 (Perez Alday et al. 2020, doi:10.1088/1361-6579/abc960): lines such
as "# Age: 57", "# Sex: Female" and "# Dx: 426783006,59118001" after the signals. A record whose header lacks one is no donor and is
counted. SNOMED CT codes become SCP-ECG statements by bundled/snomed_ct.csv; those without one are counted too.
"""

import csv
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.ptbxl import (
    NUMBER,
    OLDEST,
    OVER_89,
    PTBXL,
    Entry,
    Release,
    bundled_statements,
    counted,
    read_release,
)
from ecg_batch.donors.recording import MOST_BYTES
from ecg_batch.errors import UserError, clipped, number_of

SNOMED_CT = "snomed_ct.csv"
LAST_ECG_ID = 21837  # of PTB-XL: of its records and of its patients, so numbers from here on are nobody's
FOLDS = 10
KEYS = {"age": "age", "sex": "sex", "gender": "sex", "dx": "dx", "diagnosis": "dx", "diagnoses": "dx",
        "patient": "patient", "patientid": "patient", "subject": "patient", "subjectid": "patient"}  # fmt: skip
SEXES = {"male": 0, "m": 0, "female": 1, "f": 1}
UNKNOWN = ("", "nan", "unknown", "none", "null", "n/a", "na", "?")
AGE = re.compile(rf"({NUMBER.pattern})\s*(?:y|yr|yrs|year|years)?", re.IGNORECASE)
MOST_NAME = 200  # characters of a record's name, with its folders
NO_COUNTERPART = "no SNOMED CT code with a counterpart in SCP-ECG"

log = logging.getLogger(__name__)


def read_sources(ptbxl: Path | None, wfdb: list[Path], fs_hz: int) -> Release:
    """PTB-XL and other registries as one release. Its numbers of records and patients are unique, and do not depend on the order
    in which the folders are given. UserError where a folder is not there, has no record, or is called as another is.
    """
    release = read_release(ptbxl, fs_hz) if ptbxl else None
    if not wfdb:
        return release
    codes, superclass_of = (release.codes, release.superclass_of) if release else bundled_statements()
    folders = _named(wfdb, [PTBXL] if release else [])
    found_all, rejected, unmapped = [], Counter(release.rejected if release else {}), Counter()
    for name, folder in sorted(folders.items()):
        found = list(_entries(name, folder, frozenset(codes), rejected, unmapped))
        if not found:
            raise UserError(f"{folder}: no WFDB record (a .hea file, and its samples beside it) there or below; needed a folder of "
                            "12-lead records whose headers say age, sex and SNOMED CT codes")  # fmt: skip
        found_all += found
    if unmapped:
        log.warning("%s %d times: left out, since SCP-ECG has no counterpart: %s", number_of(len(unmapped), "SNOMED CT code"),
                    unmapped.total(), counted(Counter({_meaning(code): count for code, count in unmapped.items()})))  # fmt: skip
    first = release.entries if release else ()
    return Release(
        folder=release.folder if release else wfdb[0],
        fs_hz=fs_hz,
        entries=first + _numbered(found_all, max([LAST_ECG_ID, *(n for one in first for n in (one.ecg_id, one.patient_id))])),
        codes=codes,
        superclass_of=superclass_of,
        rejected=dict(rejected.most_common()),
        folders=((release.folder,) if release else ()) + tuple(wfdb),
        unmapped={_meaning(code): count for code, count in unmapped.most_common()},
    )


def fold_of(source: str, patient: str) -> int:
    """1 to 10, by a hash of both: the same whatever else is in the folder, and wherever it lies."""
    return 1 + int.from_bytes(hashlib.sha256(f"{source}\0{patient}".encode()).digest()[:8]) % FOLDS


def _named(wfdb: list[Path], taken: list[str]) -> dict[str, Path]:
    """Source -> folder. The name of a folder is that of its source."""
    folders: dict[str, Path] = {}
    for folder in wfdb:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; needed one of WFDB records, for --wfdb")
        name = folder.resolve().name
        if not name.isprintable() or not 0 < len(name) <= MOST_NAME or not _is_text(name):
            raise UserError(f"{ascii(str(folder)):.300}: the folder's name becomes that of its source, so plain text is needed. "
                            "Rename it")  # fmt: skip
        if name in folders or name in taken:
            other = folders.get(name, "the one of --ptbxl")
            raise UserError(f"{folder}: {other} is called {name} as well, and a folder's name becomes that of its source, by "
                            "which donors are told apart. Give each folder once; rename one of two of the same name")  # fmt: skip
        folders[name] = folder
    for folder in folders.values():
        if within := [other for other in folders.values() if other.resolve() in folder.resolve().parents]:
            raise UserError(f"{folder}: lies in {within[0]}, so its records would be there twice. Give one of them")
    return folders


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # a name that is not UTF-8
        return False


def _numbered(found: list[tuple[str, Entry]], last: int) -> tuple[Entry, ...]:
    """Numbers of records above `last`, in the order of source and record; that of a patient is the number of its first record."""
    found = sorted(found, key=lambda one: (one[1].source, one[1].path))
    first: dict[tuple[str, str], int] = {}
    numbers = [first.setdefault((entry.source, patient), number) for number, (patient, entry) in enumerate(found, last + 1)]
    return tuple(replace(entry, ecg_id=last + 1 + at, patient_id=numbers[at]) for at, (_, entry) in enumerate(found))


# Headers --------------------------------------------------------------------------------------------------------------


def _entries(source: str, folder: Path, codes: frozenset[str], rejected: Counter, unmapped: Counter) -> Iterator[tuple[str, Entry]]:
    """(patient, record) of each record below a folder, not yet numbered. Where no patient is named, the record stands for one."""
    for path in _headers(folder, rejected):
        record = path.relative_to(folder).with_suffix("").as_posix()
        if not _is_text(record) or not record.isprintable() or len(record) > MOST_NAME:
            rejected["a file name that is no plain text"] += 1
            continue
        try:
            said = header_says(path)
        except OSError as error:
            rejected[f"unreadable ({error.strerror})"] += 1
            continue
        stated = [code for code in re.split(r"[\s,;|]+", said.get("dx", "")) if code.lower() not in UNKNOWN]
        statements, without = _statements(stated, codes)
        unmapped.update(without)
        patient = said.get("patient", "")
        patient = f"patient {patient}" if patient.lower() not in UNKNOWN else path.stem
        yield patient, Entry(
            ecg_id=-1, patient_id=-1, age=_age(said.get("age", "")), sex=SEXES.get(said.get("sex", "").lower(), -1),
            fold=fold_of(source, patient), scp_codes=statements, path=record, source=source, folder=folder,
            unsaid=NO_COUNTERPART if stated else "no diagnosis in the header",
        )  # fmt: skip


def _headers(folder: Path, rejected: Counter) -> Iterator[Path]:
    """The header files below a folder, in the order of their names. What file systems and other tools put there is none."""

    def cannot_be_read(error: OSError) -> None:
        log.warning("%s: cannot be read: %s; its records are left out", ascii(error.filename), error.strerror)
        rejected[f"a folder that cannot be read ({error.strerror})"] += 1

    for parent, folders, names in os.walk(folder, onerror=cannot_be_read):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".hea") and not name.startswith("."):
                yield Path(parent, name)


def header_says(path: Path) -> dict[str, str]:
    """age, sex, dx and patient as a header's comments state them, however they are spelt: "#Age: 57", "# age : 57", "# Gender = M".

    Several lines of one kind are taken together where they are diagnoses; otherwise the first counts.
    """
    said: dict[str, str] = {}
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return said  # reading the record says the same, with its reason
    for line in path.read_bytes().decode("utf-8", errors="replace").splitlines():
        for part in line.split("#")[1:]:
            key, _, value = re.sub("=", ":", part, count=1).partition(":")
            key, value = KEYS.get(re.sub(r"[\s_<>-]", "", key).lower()), value.strip()
            if key == "dx":
                said[key] = f"{said.get(key, '')} {value}".strip()
            elif key:
                said.setdefault(key, value[:MOST_NAME])
    return said


def _age(text: str) -> float:
    """Years, NaN where that is not what stands there. Over 89 is 90, as in PTB-XL."""
    found = AGE.fullmatch(text)
    age = float(found[1]) if found else -1.0
    return min(age, OVER_89) if 0 <= age <= OLDEST else float("nan")


# SNOMED CT ------------------------------------------------------------------------------------------------------------


@cache
def snomed_ct() -> dict[str, tuple[str, str]]:
    """Of each SNOMED CT code that such headers use (meaning, SCP-ECG statement or nothing)."""
    with open(BUNDLED / SNOMED_CT, newline="", encoding="utf-8") as file:
        return {row["snomed_ct"]: (row["meaning"], row["scp_statement"]) for row in csv.DictReader(file)}


def _statements(stated: list[str], codes: frozenset[str]) -> tuple[dict[str, float], list[str]]:
    """(statements with likelihoods, codes without one). A header has no likelihoods: a diagnosis gets 100 percent, a rhythm or a
    form 0, as PTB-XL writes where nothing is said.
    """
    diagnostic = bundled_statements()[1]
    found = {code: snomed_ct().get(code, ("", ""))[1] for code in stated}
    statements = {scp: 100.0 if scp in diagnostic else 0.0 for scp in found.values() if scp in codes}
    return statements, [code for code, scp in found.items() if scp not in codes]


def _meaning(code: str) -> str:
    return f"{clipped(code, 40)} {snomed_ct().get(code, ('not in ' + SNOMED_CT, ''))[0]}"
