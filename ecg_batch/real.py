"""Real: a PTB-XL folder as a source of records, to be trained on beside synthetic ones, and to be tested on."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS
from ecg_batch.ptbxl import Entry, Release, read_record, read_release
from ecg_batch.records import Records
from ecg_batch.request import CHUNK_RECORDS
from ecg_batch.statements import SUPERCLASSES

DURATION_S = 10


def open_ptbxl(
    folder: str | Path, fs_hz: int = 100, folds: Sequence[int] = range(1, 11), cache: str | Path | None = None
) -> "RealRecords":
    """The records of these folds of a PTB-XL folder, read at once: 24 kB each at 100 Hz, about 300 a second.

    cache: a folder for a file of the samples; it is read from there the next time, at once, and all processes share its memory.
    UserError where the folder is no PTB-XL, a record cannot be read, or has another length than 10 s.
    """
    release = read_release(Path(folder), fs_hz)
    entries = tuple(entry for entry in release.entries if entry.fold in set(folds))
    if not entries:
        raise UserError(f"{folder}: no record in folds {', '.join(map(str, folds))}; PTB-XL has folds 1 to 10")
    return RealRecords(release, entries, _samples(release, entries) if cache is None else _cached(release, entries, Path(cache)))


class RealRecords(Records):
    """Real records. Columns: ecg_id, patient_id, age, sex, fold, scp_codes, label and superclasses, as in a synthetic dataset;
    flags is always empty. label: the superclass of the likeliest diagnostic statement, "" where there is none.
    """

    def __init__(self, release: Release, entries: tuple[Entry, ...], ecg: np.ndarray):
        self.fs_hz, self.total, self.folder = release.fs_hz, len(entries), release.folder
        self._chunks, self._table = ArrayChunks(ecg), _table(release, entries)

    @property
    def chunks(self) -> "ArrayChunks":
        return self._chunks

    def read_table(self, names: list[str] | None):
        return self._table if names is None else self._table.select(names)

    def column_names(self) -> list[str]:
        return self._table.column_names

    def __repr__(self) -> str:
        return f"RealRecords({str(self.folder)!r}, {len(self):,} records, 12 leads, {self.fs_hz} Hz)"


class ArrayChunks:
    """An array, or a file mapped into memory, as chunks."""

    chunk_records = CHUNK_RECORDS

    def __init__(self, ecg: np.ndarray):
        self.ecg, self.shape = ecg, ecg.shape

    def read(self, chunk: int, out: np.ndarray | None = None) -> np.ndarray:
        part = self.ecg[chunk * self.chunk_records : (chunk + 1) * self.chunk_records]
        if out is None:
            return part
        out[: len(part)] = part
        return out[: len(part)]

    def __reduce__(self):
        """A mapped file is sent to another process by its name."""
        if isinstance(self.ecg, np.memmap):
            return _mapped, (self.ecg.filename,)
        return ArrayChunks, (self.ecg,)


def _mapped(path: str) -> ArrayChunks:
    return ArrayChunks(np.load(path, mmap_mode="r"))


def _samples(release: Release, entries: Sequence[Entry]) -> np.ndarray:
    """int16 (record, 12, time)."""
    from tqdm import tqdm

    ecg = np.empty((len(entries), len(LEADS), DURATION_S * release.fs_hz), np.int16)
    for at, entry in enumerate(tqdm(entries, desc="reading PTB-XL", unit=" records", disable=None)):
        try:
            ecg[at] = read_record(release, entry)
        except (ValueError, OSError, IndexError) as error:
            raise UserError(
                f"{release.folder / entry.path}: cannot be read: {error}. Fetch it again (jobs/prepare.py --download)"
            ) from None
    return ecg


def _cached(release: Release, entries: Sequence[Entry], cache: Path) -> np.ndarray:
    """The samples from a file that is named by what it holds; written aside and moved into place where it is not there."""
    held = json.dumps([str(release.folder.resolve()), release.fs_hz, [entry.ecg_id for entry in entries]])
    path = cache / f"ptbxl-{hashlib.sha256(held.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        aside = cache / f"{uuid4().hex}.npy"
        try:
            np.save(aside, _samples(release, entries))
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _table(release: Release, entries: Sequence[Entry]):
    import pyarrow as pa

    def held(entry: Entry) -> dict[str, float]:
        """Superclasses, with the highest likelihood of their statements."""
        found: dict[str, float] = {}
        for code, likelihood in entry.scp_codes.items():
            if name := release.superclass_of.get(code):
                found[name] = max(likelihood, found.get(name, 0.0))
        return found

    superclasses = [held(entry) for entry in entries]
    columns = {
        "ecg_id": pa.array([entry.ecg_id for entry in entries], pa.int64()),
        "patient_id": pa.array([entry.patient_id for entry in entries], pa.int64()),
        "age": pa.array([entry.age for entry in entries], pa.float32()),
        "sex": pa.array([entry.sex for entry in entries], pa.int8()),
        "fold": pa.array([entry.fold for entry in entries], pa.int32()),
        "scp_codes": pa.array([json.dumps(entry.scp_codes) for entry in entries]),
        "label": pa.array([max(found, key=found.get) if found else "" for found in superclasses]),
        **{name: pa.array([name in found for found in superclasses]) for name in SUPERCLASSES},
        "flags": pa.array([""] * len(entries)),
    }
    return pa.table(columns)
