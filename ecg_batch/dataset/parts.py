"""Parts: the rows and beats of each shard, merged into records.parquet and beats.parquet, and split again by a repair.

Writing and merging hold a row group at a time, splitting a shard, whatever the number and length of records.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BytesIO
from itertools import chain, takewhile
from pathlib import Path
from threading import Event
from typing import BinaryIO
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecg_batch.dataset.beats import BEAT_COLUMNS, WAVE_COLUMNS
from ecg_batch.dataset.layout import RECORDS, Shard
from ecg_batch.dataset.plan import BEATS, Plan
from ecg_batch.dataset.rows import OPTIONAL_COLUMNS, ROW_COLUMNS
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.tables import open_table
from ecg_batch.files import SummedFile, sync

# Without Arrow's own copy of the schema: it holds the names inside lists, which change when a file is read and written
# again, and a repaired dataset splits records.parquet into the very bytes of its parts.
PARQUET = {"compression": "zstd", "write_page_checksum": True, "store_schema": False}
# Numbers of beats by themselves, and statistics of the record only, by which groups are found: 20 % less time to write, 1 % smaller
BEATS_PARQUET = {"use_dictionary": ["record", "symbol", "aux", "texture_ecg_id", "beat_ecg_id"], "write_statistics": ["record"]}
# Each row group of records.parquet takes memory wherever the file is opened (38 kB: 21 columns), and time wherever it is written
ROW_GROUPS = 1024
ROW_GROUP_RECORDS = 2**18  # held in memory at once, at most
MERGE_BUFFER = 2**20  # bytes; Parquet's pages come by a few hundred bytes, and some file systems answer each call
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

    A row group of beats.parquet holds a shard, or where records are streamed a day of them, or one. ValueError where rows are not
    the shard's.
    """
    _check_rows(shard, rows)
    size = max(1, BEATS_GROUP_S // plan.request.duration_s) if plan.request.is_streamed else shard.records
    tables = {RECORDS: [rows], BEATS: _in_groups(beats, shard.start, size)}
    given = {}
    for whole, name in plan.part_files(shard).items():
        (staging / name).parent.mkdir(exist_ok=True)
        with SummedFile(staging / name) as file:
            write_groups(file, tables[whole])
        given[name] = file.crc32c
    return given


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


def write_groups(path: Path | BinaryIO, groups: Iterable[pa.Table]) -> None:
    """Write each table as a row group. In one piece whatever pieces they came in: those would show in the pages."""
    groups = iter(groups)
    first, options = next(groups, None), PARQUET
    if first is None:
        raise ValueError(f"{path}: no rows; needed one row group at least")
    if WAVE_COLUMNS[0] in first.column_names:
        options = PARQUET | BEATS_PARQUET
    elif "sample" in first.column_names:  # of before 0.5: a dictionary of samples would take 40 MB for three days
        options = PARQUET | {"use_dictionary": [name for name in first.column_names if name != "sample"]}
    with pq.ParquetWriter(path, first.schema, **options) as writer:
        for rows in chain([first], groups):
            writer.write_table(rows.combine_chunks(), row_group_size=rows.num_rows)


@contextmanager
def merging(run: Run) -> Iterator[Callable[[], None]]:
    """Merge the parts into records.parquet and beats.parquet, side by side, while something else is done. What is given moves both
    to their places, each whole, and raises what was found in merging.
    """
    given_up = Event()

    def merge(whole: str) -> Path:
        tmp = run.staging / f"merged-{uuid4().hex}"
        with pa.output_stream(tmp, compression=None, buffer_size=MERGE_BUFFER) as file:
            write_groups(file, takewhile(lambda _: not given_up.is_set(), _merged(run, whole)))
        sync(tmp)
        return tmp

    def place() -> None:
        for whole, merged in waiting.items():
            os.replace(merged.result(), run.folder / whole)
        sync(run.folder)

    with ThreadPoolExecutor(2) as pool:
        waiting = {whole: pool.submit(merge, whole) for whole in run.plan.part_files(run.shards[0])}
        try:
            yield place
        finally:
            given_up.set()


def _merged(run: Run, whole: str) -> Iterator[pa.Table]:
    for group in row_groups(run.plan):
        parts = (rows for shard in group for rows in _groups_of(run.folder / run.plan.part_files(shard)[whole]))
        if whole == BEATS and run.request.is_streamed:
            yield from parts
        else:
            yield pa.concat_tables(list(parts))


def _groups_of(path: Path) -> Iterator[pa.Table]:
    """The row groups of a part. Without read_table, whose general machinery takes three times as long for a small file."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
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
            at, sink = range(np.searchsorted(last, shard.start), np.searchsorted(first, shard.stop)), BytesIO()
            write_groups(sink, [_of_shard(read(index), shard) for index in at])
            yield shard, {"bytes": len(sink.getbuffer()), "sha256": hashlib.sha256(sink.getbuffer()).hexdigest()}


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
                        write_groups(path, [_of_shard(read(index), shard) for index in at])


def _of_shard(rows: pa.Table, shard: Shard) -> pa.Table:
    first, last = np.searchsorted(rows["record"].to_numpy(), (shard.start, shard.stop))
    return rows.slice(first, last - first)
