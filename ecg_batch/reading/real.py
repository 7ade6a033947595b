"""Real: a PTB-XL folder as a source of records, to be trained on beside synthetic ones, and to be tested on."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import google_crc32c
import numpy as np

from ecg_batch.donors.ptbxl import Entry, Release, read_records, read_release
from ecg_batch.errors import UserError
from ecg_batch.files import open_regular
from ecg_batch.leads import LEADS
from ecg_batch.progress import track
from ecg_batch.reading.choice import several
from ecg_batch.reading.records import Records
from ecg_batch.request.model import CHUNK_RECORDS
from ecg_batch.statements import SUPERCLASSES

DURATION_S = 10


def open_ptbxl(
    folder: str | Path, fs_hz: int = 100, folds: Sequence[int] = range(1, 11), cache: str | Path | None = None
) -> "RealRecords":
    """The records of these folds of a PTB-XL folder, read at once: 24 kB each at 100 Hz, about 300 a second.

    cache: a folder for a file of the samples; it is read from there the next time, at once, and all processes share its memory.
    Records that cannot be read, are not ten seconds long, or are the same as another, are left out with a warning.
    UserError where the folder is no PTB-XL, or no record of these folds can be read.
    """
    release = read_release(Path(folder).absolute(), fs_hz)
    entries = tuple(entry for entry in release.entries if entry.fold in set(folds))
    if not entries:
        raise UserError(f"{folder}: no record in folds {', '.join(map(str, folds))}; PTB-XL has folds 1 to 10")
    return RealRecords(release, *(_samples(release, entries) if cache is None else _cached(release, entries, Path(cache))))


class RealRecords(Records):
    """Real records. Columns: ecg_id, patient_id, age, sex, fold, scp_codes, label and superclasses, as in a synthetic dataset;
    flags is always empty. label: the superclass of the likeliest diagnostic statement, "" where there is none.
    """

    label_means = "the superclass of the likeliest statement"

    def __init__(self, release: Release, entries: tuple[Entry, ...], ecg: np.ndarray):
        self.fs_hz, self.total, self.folder = release.fs_hz, len(entries), release.folder
        self._chunks, self._table, self._content = ArrayChunks(ecg), _table(release, entries), None

    @property
    def chunks(self) -> "ArrayChunks":
        return self._chunks

    def content(self) -> str:
        if self._content is None:
            self._content = hashlib.sha256(_crcs(self._chunks.ecg).tobytes()).hexdigest()
        return self._content

    def read_table(self, names: list[str] | None):
        return self._table if names is None else self._table.select(names)

    def column_names(self) -> list[str]:
        return self._table.column_names

    def where(self, **values) -> Records:
        """As of all records; a label that is no superclass would never match, and is refused."""
        if "label" in values:
            values["label"] = several(values["label"])
        for label in values.get("label", ()):
            if isinstance(label, str) and label not in (*SUPERCLASSES, ""):
                raise UserError(f"where(label={label[:60]!r}): label is {self.label_means} in {self}: {', '.join(SUPERCLASSES)}, "
                                f"or '' for none. For the records that hold a statement, say holding({label[:60]!r})")  # fmt: skip
        return super().where(**values)

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


def _samples(release: Release, entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], np.ndarray]:
    """The entries that can be read, and their samples, int16 (record, 12, time)."""
    ecg, kept = np.empty((len(entries), len(LEADS), DURATION_S * release.fs_hz), np.int16), []
    for entry, samples in read_records(release, track(entries, "reading PTB-XL", "records")):
        ecg[len(kept)] = samples
        kept.append(entry)
    if not kept:
        raise UserError(f"{release.folder}: none of {len(entries)} records can be read; the warnings say why. Fetch them again "
                        "(ecg-batch prepare --download)")  # fmt: skip
    return tuple(kept), ecg[: len(kept)]


def _cached(release: Release, entries: Sequence[Entry], cache: Path) -> tuple[tuple[Entry, ...], np.ndarray]:
    """The same from a file that is named by what it holds, and by size, time and inode of the files that this comes from.

    Written aside and moved into place where it is not there, or not what was written.
    """
    files = [_state(release.folder / f"{entry.path}{suffix}") for entry in entries for suffix in (".hea", ".dat")]
    content = json.dumps([str(release.folder.resolve()), release.fs_hz, [entry.ecg_id for entry in entries], files])
    path = cache.absolute() / f"ptbxl-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"
    known = _whole(path, (len(LEADS), DURATION_S * release.fs_hz))
    if known is None:
        _write_cache(path, *_samples(release, entries))
        known = _whole(path, (len(LEADS), DURATION_S * release.fs_hz))
    if known is None:
        raise UserError(f"{path}: the file system gave back other bytes than were written. Give another cache")
    ids, ecg = known
    return tuple(entry for entry in entries if entry.ecg_id in ids), ecg


def _write_cache(path: Path, kept: Sequence[Entry], ecg: np.ndarray) -> None:
    """A .npy of the samples, and behind it the ecg_id of each record and the checksums of both."""
    tmp = path.with_name(f"{uuid4().hex}.npy")
    ids = np.array([entry.ecg_id for entry in kept], "<i8").tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(tmp, "wb") as file:
            np.save(file, ecg)
            file.write(ids + google_crc32c.value(ids).to_bytes(4, "little") + _crcs(ecg).tobytes())
        os.replace(tmp, path)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written: {error.strerror or error}. Free space, or give another cache"
        ) from error
    finally:
        with suppress(OSError):
            tmp.unlink(missing_ok=True)


def _state(path: Path) -> list[int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None  # whoever reads it says so
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _whole(path: Path, shape: tuple[int, int]) -> tuple[set[int], np.ndarray] | None:
    """ecg_id and samples (record, *shape) of each record in a cache, mapped; None where it is absent or not what was written."""
    try:
        ecg = np.load(path, mmap_mode="r")
        if ecg.shape[1:] != shape or ecg.dtype != np.int16:
            return None
        with open_regular(path) as file:
            file.seek(-(8 * len(ecg) + 4 + 4 * _chunks_of(len(ecg))), os.SEEK_END)
            ids, stated, crcs = file.read(8 * len(ecg)), file.read(4), np.frombuffer(file.read(), "<u4")
        if google_crc32c.value(ids) != int.from_bytes(stated, "little") or not np.array_equal(_crcs(ecg), crcs):
            return None
        return set(np.frombuffer(ids, "<i8").tolist()), ecg
    except Exception:  # numpy reads the header as Python, so damage there raises nearly anything
        return None


def _chunks_of(records: int) -> int:
    return -(-records // CHUNK_RECORDS)


def _crcs(ecg: np.ndarray) -> np.ndarray:
    """crc32c of each chunk of records, uint32 (chunk,): 524 MB of PTB-XL at 100 Hz in a fraction of a second."""
    starts = range(0, len(ecg), CHUNK_RECORDS)
    return np.array([google_crc32c.value(np.ascontiguousarray(ecg[at : at + CHUNK_RECORDS]).tobytes()) for at in starts], "<u4")


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
