"""Export to HDF5: ecg.hdf5/SHARD.h5, one file per shard of the dataset, as `format: hdf5` writes them, and records.parquet."""

from pathlib import Path

import numpy as np

from ecg_batch.dataset import hdf5
from ecg_batch.dataset.layout import HDF5, ecg_file
from ecg_batch.export.pieces import pieces, write_rows
from ecg_batch.leads import LEADS
from ecg_batch.reading.synthetic import OpenDataset
from ecg_batch.request.model import CHUNK_RECORDS

CHUNK_S = 60  # of records that are longer


def units(dataset: OpenDataset) -> list[tuple[int, int]]:
    """The chosen records of each shard."""
    ends = np.flatnonzero(np.diff(_shard(dataset, dataset.indices), append=-1)) + 1
    return [(int(first), int(stop)) for first, stop in zip(np.append(0, ends[:-1]), ends, strict=True)]


def _shard(dataset: OpenDataset, records: np.ndarray) -> np.ndarray:
    return records // dataset.manifest["request"]["shard"]


def names(dataset: OpenDataset, first: int, stop: int) -> tuple[set[str], set[str]]:
    return {ecg_file(int(_shard(dataset, dataset.indices[first])), "hdf5")}, set()


def begin(dataset: OpenDataset, folder: Path) -> None:
    (folder / HDF5).mkdir(exist_ok=True)


def unit(dataset: OpenDataset, folder: Path, first: int, stop: int) -> list[str]:
    records = dataset.indices[first:stop]
    name = ecg_file(int(_shard(dataset, records[0])), "hdf5")
    samples, fs_hz = dataset.duration_s * dataset.fs_hz, dataset.fs_hz
    if dataset.duration_s <= CHUNK_S:
        hdf5.write(folder / name, dataset.raw[first:stop], records, CHUNK_RECORDS, fs_hz)
        return [name]
    shape, chunk = (len(records), len(LEADS), samples), (1, len(LEADS), CHUNK_S * fs_hz)
    with hdf5.create(folder / name, shape, chunk, records, fs_hz) as file:
        for at, record in enumerate(records):
            start = 0
            for piece in pieces(dataset, int(record)):
                file["ecg"][at, :, start : start + piece.shape[1]] = piece
                start += piece.shape[1]
    return [name]


def end(dataset: OpenDataset, folder: Path) -> None:
    write_rows(dataset, folder)
