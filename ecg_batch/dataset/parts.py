"""Parts: the rows and beats of each shard, merged into records.parquet and beats.parquet, and split again by a repair.

Writing and merging hold a row group at a time, splitting a shard, whatever the number and length of records.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecg_batch.dataset.beats import BEAT_COLUMNS, WAVE_COLUMNS
from ecg_batch.dataset.layout import ARROW, RECORDS, Shard
from ecg_batch.dataset.plan import BEATS, Plan
from ecg_batch.dataset.rows import OPTIONAL_COLUMNS, ROW_COLUMNS
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.tables import open_table
from ecg_batch.files import SummedFile, sync

# Without Arrow's own copy of the schema: it holds the names inside lists, which change when a file is read and written again
TABLE = {"compression": "zstd", "write_page_checksum": True, "store_schema": False}
# Numbers that seldom recur: a dictionary of them takes a fifth to half more time, and more bytes. Floats as streams of bytes
AS_DELTAS = ("record", "sample", "pair_id", "donor_ecg_id", "donor_patient_id", "qrs_on_ms", "qrs_end_ms")
LISTED_AS_DELTAS = ("texture_ecg_id", "texture_patient_id", "texture_fold")
AS_THEY_ARE = (*WAVE_COLUMNS, "texture_ecg_id")  # others of beats: zstd finds more in them by itself
# Parts of runs that were begun before parts were Arrow's are of these bytes, and are split into them again
FORMER = {"use_dictionary": True}
FORMER_BEATS = {"use_dictionary": ["record", "symbol", "aux", "texture_ecg_id", "beat_ecg_id"], "write_statistics": ["record"]}
# Each row group takes memory wherever the table is opened or written (50 kB: 41 columns), and time wherever it is written
ROW_GROUPS = 256
ROW_GROUP_RECORDS = 2**16  # held in memory at once, at most: 60 MB with their beats
MERGE_BUFFER = 2**20  # bytes; Parquet's pages come by a few hundred bytes, and some file systems answer each call
GROUPS_AHEAD = 4  # row groups that are checked and not merged yet
BEATS_GROUP_S = 86_400  # of signal: a day has 100,000 beats


def row_groups(plan: Plan) -> list[tuple[Shard, ...]]:
    """The shards of each row group of records.parquet, in order. One each as long as there are few, so that damage there costs one
    shard.
    """
    each = max(1, min(math.ceil(len(plan.shards) / ROW_GROUPS), ROW_GROUP_RECORDS // plan.request.shard))
    return [plan.shards[start : start + each] for start in range(0, len(plan.shards), each)]


def write_parts(plan: Plan, shard: Shard, rows: pa.Table, beats: Iterable[pa.Table], staging: Path) -> dict[str, int]:
    """The rows of a shard and its beats: tables of whole records in order, each asked for when its turn comes. The names of the
    parts, and the crc32c of the bytes that each was given.

    A batch of beats holds a shard, or where records are streamed a day of them, or one. ValueError where rows are not the shard's.
    """
    _check_rows(shard, rows)
    size = max(1, BEATS_GROUP_S // plan.request.duration_s) if plan.request.is_streamed else shard.records
    tables = {RECORDS: [rows], BEATS: _in_groups(beats, shard.start, size)}
    given = {}
    for whole, name in plan.part_files(shard).items():
        (staging / name).parent.mkdir(exist_ok=True)
        with SummedFile(staging / name) as file:
            _write_part(plan, file, tables[whole])
        given[name] = file.crc32c
    return given


def _write_part(plan: Plan, file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    """Each table as a batch of an Arrow file: a part is read once more, and Parquet's columns take their time however few rows
    they have.
    """
    if plan.parts != ARROW:
        return write_groups(file, tables, former=True)
    batches = (batch for table in tables for batch in _canonical(table).to_batches())
    if (first := next(batches, None)) is None:
        raise ValueError("a part without rows; needed one row at least")
    with pa.ipc.new_file(file, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _canonical(table: pa.Table) -> pa.Table:
    """The same rows, and the same bytes of a file, wherever they come from: a shard in the making, or records.parquet.

    Taken anew, so that no byte is left under a null, before an offset or after the last bit.
    """
    schema = pa.schema([(column.name, _kind(column.type)) for column in table.schema])
    return table.combine_chunks().cast(schema).take(pa.array(np.arange(table.num_rows)))


def _kind(kind: pa.DataType) -> pa.DataType:
    """A type with Arrow's own name for what is inside a list; Parquet has another."""
    return pa.list_(_kind(kind.value_type)) if pa.types.is_list(kind) else kind


def _check_rows(shard: Shard, rows: pa.Table) -> None:
    needed = ROW_COLUMNS + tuple(name for more in OPTIONAL_COLUMNS if more[0] in rows.column_names for name in more)
    if tuple(rows.column_names) != needed:
        raise ValueError(f"shard {shard.index}: the rows have the columns {rows.column_names}; needed {ROW_COLUMNS}")
    if not np.array_equal(rows["record"].to_numpy(), np.arange(shard.start, shard.stop)):
        raise ValueError(f"shard {shard.index}: the rows are not those of records {shard.start} to {shard.stop - 1} in order")


def _in_groups(tables: Iterable[pa.Table], first: int, size: int) -> Iterator[pa.Table]:
    """Tables of whole records, from record `first` on, as tables of so many records each, whatever batches they were made in."""
    held: list[pa.Table] = []
    for table in tables:
        if tuple(table.column_names) != BEAT_COLUMNS:
            raise ValueError(f"the beats have the columns {table.column_names}; needed {BEAT_COLUMNS}")
        while (cut := np.searchsorted(table["record"].to_numpy(), first + size)) < table.num_rows:
            yield pa.concat_tables([*held, table.slice(0, cut)])
            held, table, first = [], table.slice(cut), first + size
        held.append(table)
    if held:
        yield pa.concat_tables(held)


def write_groups(path: Path | BinaryIO, groups: Iterable[pa.Table], former: bool = False) -> None:
    """Write each table as a row group. former: as parts were written when they were Parquet."""
    with TableWriter(path, former) as writer:
        for rows in groups:
            writer.write(rows)


class TableWriter:
    """A Parquet file that gets a row group at a time. former: as in write_groups."""

    def __init__(self, path: Path | BinaryIO, former: bool = False):
        self.path, self._former = path, former
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *error) -> None:
        if self._writer:
            self._writer.close()
        elif error[0] is None:
            raise ValueError(f"{self.path}: no rows; needed one row group at least")

    def write(self, rows: pa.Table) -> None:
        """In one piece whatever pieces they came in: those would show in the pages."""
        if not self._writer:
            options = _former_options(rows.schema) if self._former else _options(rows.schema)
            self._writer = pq.ParquetWriter(self.path, rows.schema, **TABLE, **options)
        self._writer.write_table(rows.combine_chunks(), row_group_size=rows.num_rows)


def _former_options(schema: pa.Schema) -> dict:
    if WAVE_COLUMNS[0] in schema.names:
        return FORMER_BEATS
    if "sample" in schema.names:  # of before 0.5
        return {"use_dictionary": [name for name in schema.names if name != "sample"]}
    return FORMER


def _options(schema: pa.Schema) -> dict:
    """How each column is encoded. Statistics are of the record only, by which groups are found: the rest is in no order."""
    of_beats, encodings, dictionaries = "sample" in schema.names, {}, []
    for column in schema:
        listed = pa.types.is_list(column.type)
        name, kind = (f"{column.name}.list.element", column.type.value_type) if listed else (column.name, column.type)
        if pa.types.is_floating(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
        elif column.name in (LISTED_AS_DELTAS if listed else AS_DELTAS):
            encodings[name] = "DELTA_BINARY_PACKED"
        elif not (of_beats and column.name in AS_THEY_ARE):
            dictionaries.append(name)
    return {"column_encoding": encodings, "use_dictionary": dictionaries, "write_statistics": ["record"]}


def merge(run: Run, checked: Iterable[tuple[Shard, ...]]) -> dict[str, Path]:
    """Merge the parts into records.parquet and beats.parquet, which lie in staging: the name of each -> where it lies.

    checked: row_groups, each given when the files of its shards have been held against their receipts: what Arrow reads, it
    believes. The next ones are checked while it is merged.
    """
    merged = {whole: run.staging / f"merged-{uuid4().hex}" for whole in run.plan.part_files(run.shards[0])}
    with ExitStack() as open_files:
        tables, waiting = {}, deque()
        for whole, path in merged.items():
            file = open_files.enter_context(pa.output_stream(path, compression=None, buffer_size=MERGE_BUFFER))
            tables[whole] = open_files.enter_context(TableWriter(file))
        beside = ThreadPoolExecutor(1)  # one, so that row groups come in order
        open_files.callback(beside.shutdown, cancel_futures=True)
        for group in checked:
            waiting.append(beside.submit(_merge, run, group, tables))
            if len(waiting) > GROUPS_AHEAD:
                waiting.popleft().result()
        for written in waiting:
            written.result()
    for path in merged.values():
        sync(path)
    return merged


def _merge(run: Run, group: tuple[Shard, ...], tables: dict[str, TableWriter]) -> None:
    for whole, table in tables.items():
        parts = (rows for shard in group for rows in _tables_of(run.folder / run.plan.part_files(shard)[whole]))
        for rows in parts if whole == BEATS and run.request.is_streamed else [pa.concat_tables(list(parts))]:
            table.write(rows)


def _tables_of(path: Path) -> Iterator[pa.Table]:
    """What a part holds, one of its batches or row groups at a time."""
    if path.suffix == f".{ARROW}":
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])
        return
    with pq.ParquetFile(path, page_checksum_verification=True) as file:  # read_table takes three times as long for a small one
        for index in range(file.num_row_groups):
            yield file.read_row_group(index, use_threads=False)


def stated_parts(run: Run, whole: str) -> Iterator[tuple[Shard, dict]]:
    """What a receipt states of the part of each shard, as split from records.parquet or beats.parquet: its bytes and sha256. Any of
    DAMAGE where that is damaged.
    """
    with open_table(run.folder / whole) as file:
        held = [file.metadata.row_group(index).column(0).statistics for index in range(file.num_row_groups)]
        first, last = (np.array([getattr(records, end) for records in held]) for end in ("min", "max"))
        read = lru_cache(maxsize=1)(file.read_row_group)
        for shard in run.shards:
            at, part = range(np.searchsorted(last, shard.start), np.searchsorted(first, shard.stop)), _Summed()
            _write_part(run.plan, part, (_of_shard(read(index), shard) for index in at))
            yield shard, {"bytes": part.tell(), "sha256": part.sha256.hexdigest()}


class _Summed:
    """A file that keeps of what is written the size and the sha256 alone: the part of a shard of long records may be large."""

    closed = False

    def __init__(self):
        self.sha256, self._size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        pass


def split_parts(run: Run) -> None:
    """The absent parts out of records.parquet and beats.parquet again, as their tasks wrote them.

    Those of a damaged row group stay absent, or are none of their receipts.
    """
    damaged = (OSError, ValueError, KeyError, TypeError, AttributeError)  # whatever a footer with a flipped bit leads to
    for whole in run.plan.part_files(run.shards[0]):
        with suppress(*damaged), pq.ParquetFile(run.folder / whole, page_checksum_verification=True) as file:
            held = [file.metadata.row_group(index).column(0).statistics for index in range(file.num_row_groups)]
            first, last = (np.array([getattr(records, end) for records in held]) for end in ("min", "max"))
            read = lru_cache(maxsize=1)(file.read_row_group)  # many shards may share one
            for shard in run.shards:
                if not (path := run.folder / run.plan.part_files(shard)[whole]).exists():
                    with suppress(*damaged):
                        at = range(np.searchsorted(last, shard.start), np.searchsorted(first, shard.stop))
                        rows = [_of_shard(read(index), shard) for index in at]
                        with open(path, "wb") as part:
                            _write_part(run.plan, part, rows)


def _of_shard(rows: pa.Table, shard: Shard) -> pa.Table:
    first, last = np.searchsorted(rows["record"].to_numpy(), (shard.start, shard.stop))
    return rows.slice(first, last - first)
