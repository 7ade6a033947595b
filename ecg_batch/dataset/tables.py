"""Tables: the Parquet files of a dataset are opened here, and are held against their sums before they are believed.

A page's checksum covers its values and not the footer or the heads of pages: of 1,500 single-bit flips in a records.parquet of
540 rows, 378 came back as other values, with checked pages still 7. So SHA256SUMS is asked first, once in each process for a
state of the file (a table of a million records takes some 30 ms), and pages are checked at each reading.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import BEATS, SUMS
from ecg_batch.dataset.sums import read_sums
from ecg_batch.errors import UserError, clipped
from ecg_batch.files import open_regular, sha256_file
from ecg_batch.remote.path import RemotePath, is_remote

# whatever a footer with a flipped bit leads to in pyarrow
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError, MemoryError, RuntimeError)
DONOR_COLUMNS = {"donor_ecg_id": "blend_ecg_id", "donor_patient_id": "blend_patient_id", "donor_fold": "blend_fold"}


def damaged(path: Path, why: object, folder: Path | None = None) -> UserError:
    """The error for a file of a finished dataset that is not what was written. folder: the dataset's, by default the file's."""
    why = clipped(" ".join(str(why).split()).rstrip("."))
    where = folder or path.parent
    mend = "names what else is; copy it there again" if is_remote(path) else "--repair has it made again"
    return UserError(f"{path}: damaged: {why}. ecg-batch verify {where} {mend}")


def hold_against_sums(folder: Path, name: str) -> None:
    """UserError where the file is not what SHA256SUMS says. Silent where nothing is said of it, as in an export, and where it
    cannot be read: whoever reads it says so.
    """
    try:
        stated = _sums(folder, _state(folder / SUMS)).get(name)
        found = _sha256(folder / name, _state(folder / name)) if stated else None
    except OSError:
        return
    if found != stated:
        raise damaged(folder / name, "its sha256 is not that in SHA256SUMS", folder)


def is_there(folder: Path, name: str) -> bool:
    """Whether a dataset has a file that only some have. UserError where it is named in SHA256SUMS and absent."""
    if is_remote(folder) and folder.store.sums and name not in folder.store.sums:
        return False  # known without asking
    if (folder / name).exists():
        return True
    try:
        stated = _sums(folder, _state(folder / SUMS))
    except OSError:
        return False
    if name in stated:
        raise damaged(folder / name, "it is absent", folder)
    return False


def _state(path: Path) -> tuple[int, ...]:
    """What tells another state of a file from this one, without reading it. A file below a URL has one for each opening."""
    if is_remote(path):
        path.whole()  # FileNotFoundError where it is absent
        return ()
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _sums(folder: Path | RemotePath, state: tuple) -> dict[str, str]:
    return _kept(folder, "sums", _read_sums) if is_remote(folder) else _local_sums(folder, state)


def _sha256(path: Path | RemotePath, state: tuple) -> str:
    return _kept(path, "sha256", sha256_file) if is_remote(path) else _local_sha256(path, state)


def _kept(path: RemotePath, what: str, find):
    """find(path) of a path below a URL, kept as long as its opening. A cache of this module would keep openings that ended."""
    found = path.store.found
    if (path.inner, what) not in found:
        found[path.inner, what] = find(path)
    return found[path.inner, what]


@lru_cache(maxsize=16)
def _local_sums(folder: Path, state: tuple) -> dict[str, str]:
    return _read_sums(folder)


def _read_sums(folder: Path | RemotePath) -> dict[str, str]:
    found = read_sums(folder)
    if found is None:
        raise damaged(folder / SUMS, "a line is malformed, or the last one is not the sha256 of the others")
    return found


@lru_cache(maxsize=64)
def _local_sha256(path: Path, state: tuple) -> str:
    return sha256_file(path)


def open_table(path: Path):
    """A pyarrow ParquetFile that checks its pages. For those who know what to do about an error; others take read_rows."""
    import pyarrow.parquet as pq

    if is_remote(path):  # a table is a hundredth of its samples, and only as a whole it can be held against its sum
        import pyarrow as pa

        return pq.ParquetFile(pa.BufferReader(pa.py_buffer(path.whole())), page_checksum_verification=True)
    open_regular(path).close()
    return pq.ParquetFile(path, page_checksum_verification=True)


def schema_of(path: Path):
    """The columns of a table as a pyarrow schema. UserError where it is absent or damaged."""
    return _read(path, lambda file: file.schema_arrow)


def _read(path: Path, read):
    hold_against_sums(path.parent, path.name)
    try:
        with open_table(path) as file:
            return read(file)
    except PermissionError:
        raise UserError(f"{path}: this user may not read it. Ask its owner to give you read access") from None
    except DAMAGE as error:
        raise damaged(path, error) from None


# records.parquet --------------------------------------------------------------------------------------------------------


def row_columns(path: Path) -> list[str]:
    """Names of the columns as read_rows gives them."""
    return list(_then(schema_of(path)))


def read_rows(path: Path, names: Sequence[str] | None = None):
    """Columns of records.parquet as a pyarrow Table. Before 0.4 the donor columns were lists; they are given as they are now."""
    then = _then(schema_of(path))
    wanted = list(then) if names is None else list(names)
    table = _read(path, lambda file: file.read(list(dict.fromkeys(then[name] for name in wanted))))
    return _as_now(table, wanted, then)


def row_batches(path: Path, records: int) -> Iterator[list[dict]]:
    """The rows as dictionaries, so many at a time."""
    then = _then(schema_of(path))
    try:
        with open_table(path) as file:
            batches = file.iter_batches(records)
            while (batch := next(batches, None)) is not None:
                yield _as_now(_table_of(batch), list(then), then).to_pylist()
    except DAMAGE as error:
        raise damaged(path, error) from None


def _table_of(batch):
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _then(schema) -> dict[str, str]:
    """Column as it is given -> as it is stored."""
    import pyarrow.types as types

    then = {name: name for name in schema.names}
    return then | {blend: name for name, blend in DONOR_COLUMNS.items() if name in then and types.is_list(schema.field(name).type)}


def _as_now(table, wanted: list[str], then: dict[str, str]):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as types

    def column(name: str):
        stored = table[then[name]]
        if name in DONOR_COLUMNS and types.is_list(stored.type):
            return pc.list_element(stored, 0)
        return stored if name == then[name] else pc.list_slice(stored, 1)

    return pa.table({name: column(name) for name in wanted})


# beats.parquet ----------------------------------------------------------------------------------------------------------


def read_beats(folder: Path, records: Sequence[int]):
    """The annotations of some records as a pyarrow Table: record, sample, symbol, aux. Row groups of others are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array([int(record) for record in records], pa.int64())
    first, last = (min(records), max(records)) if len(records) else (0, -1)

    def read(file):
        groups = [index for index in range(file.num_row_groups) if _may_hold(file.metadata.row_group(index), first, last)]
        table = file.read_row_groups(groups)
        return table.filter(pc.is_in(table["record"], wanted))

    return _read(folder / BEATS, read)


def beat_columns(folder: Path, names: Sequence[str]) -> Iterator["pa.Table"]:  # noqa: F821
    """Some columns of beats.parquet of all records, a row group at a time."""
    hold_against_sums(folder, BEATS)
    try:
        with open_table(folder / BEATS) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index, list(names))
    except DAMAGE as error:
        raise damaged(folder / BEATS, error) from None


def beat_groups(folder: Path, records: np.ndarray) -> Iterator["pa.Table"]:  # noqa: F821
    """All columns of beats.parquet of these records, which ascend, a row group at a time."""
    hold_against_sums(folder, BEATS)
    try:
        with open_table(folder / BEATS) as file:
            for index in range(file.num_row_groups):
                if _may_hold(file.metadata.row_group(index), records[0], records[-1]):
                    table = file.read_row_group(index)
                    of = table["record"].to_numpy()
                    held = records[np.searchsorted(records, of).clip(max=len(records) - 1)] == of
                    yield table if held.all() else table.filter(held)
    except DAMAGE as error:
        raise damaged(folder / BEATS, error) from None


def _may_hold(group, first: int, last: int) -> bool:
    held = group.column(0).statistics  # of `record`
    return held is None or not held.has_min_max or (held.min <= last and held.max >= first)
