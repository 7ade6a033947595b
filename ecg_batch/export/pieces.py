"""What every export format needs of a dataset: where its units begin, its samples piece by piece, its rows."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import RECORDS
from ecg_batch.dataset.tables import schema_of
from ecg_batch.reading.synthetic import OpenDataset

UNIT_SAMPLES = 256 * 1000  # about as many samples a lead are one unit: 256 records of 10 s at 100 Hz, or one long one


def even_units(dataset: OpenDataset) -> list[tuple[int, int]]:
    each = max(1, UNIT_SAMPLES // (dataset.duration_s * dataset.fs_hz))
    return [(first, min(first + each, len(dataset))) for first in range(0, len(dataset), each)]


def pieces(dataset: OpenDataset, record: int, minutes: int = 10) -> Iterator[np.ndarray]:
    """One record of the source as int16 (lead, time) of so many minutes each: a day of it is never in memory at once."""
    samples, step = dataset.duration_s * dataset.fs_hz, minutes * 60 * dataset.fs_hz
    for start in range(0, samples, step):
        yield dataset.piece(record, start, min(start + step, samples))


def write_rows(dataset: OpenDataset, folder: Path) -> None:
    """records.parquet: the very file where all records are exported, the chosen rows otherwise."""
    import pyarrow.parquet as pq

    if dataset.chosen is None:
        schema_of(dataset.path / RECORDS)  # held against its sums
        shutil.copyfile(dataset.path / RECORDS, folder / RECORDS)
    else:
        pq.write_table(dataset.records, folder / RECORDS, compression="zstd", write_page_checksum=True)
