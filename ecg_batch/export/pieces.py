"""What every export format needs of a dataset: where its units begin, its samples piece by piece, its rows."""

import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import BEATS, RECORDS
from ecg_batch.dataset.tables import is_there, read_beats, schema_of
from ecg_batch.reading.synthetic import OpenDataset
from ecg_batch.remote.path import is_remote

UNIT_SAMPLES = 256 * 1000  # about as many samples a lead are one unit: 256 records of 10 s at 100 Hz, or one long one
BEATS_UNITS = 16  # whose beats are in memory at once


def even_units(dataset: OpenDataset) -> list[tuple[int, int]]:
    each = max(1, UNIT_SAMPLES // (dataset.duration_s * dataset.fs_hz))
    return [(first, min(first + each, len(dataset))) for first in range(0, len(dataset), each)]


def pieces(dataset: OpenDataset, record: int, minutes: int = 10) -> Iterator[np.ndarray]:
    """One record of the source as int16 (lead, time) of so many minutes each: a day of it is never in memory at once."""
    samples, step = dataset.duration_s * dataset.fs_hz, minutes * 60 * dataset.fs_hz
    for start in range(0, samples, step):
        yield dataset.piece(record, start, min(start + step, samples))


def write_rows(dataset: OpenDataset, folder: Path) -> None:
    """records.parquet and, where there is one, beats.parquet: the very files where all records are exported, the chosen rows
    otherwise.
    """
    tables = [RECORDS, *([BEATS] if is_there(dataset.path, BEATS) else [])]
    if dataset.chosen is None:
        for name in tables:
            schema_of(dataset.path / name)  # held against its sums
            if is_remote(dataset.path):
                (folder / name).write_bytes((dataset.path / name).whole())
            else:
                shutil.copyfile(dataset.path / name, folder / name)
        return
    _write(folder / RECORDS, [dataset.records])
    if BEATS in tables:
        each, records = even_units(dataset)[0][1] * BEATS_UNITS, np.unique(dataset.indices)
        _write(folder / BEATS, (read_beats(dataset.path, records[at : at + each]) for at in range(0, len(records), each)))


def _write(path: Path, tables: Iterable["pa.Table"]) -> None:  # noqa: F821
    import pyarrow.parquet as pq

    tables = iter(tables)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="zstd", write_page_checksum=True) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
