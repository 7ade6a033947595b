"""Export to NumPy, for small cuts: ecg.npy int16 (record, lead, time), records.parquet, and ecg.json with units and leads."""

from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.export.pieces import even_units, pieces, write_rows
from ecg_batch.files import to_json
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.reading.synthetic import OpenDataset

ECG_FILE = "ecg.npy"
MOST_BYTES = 2**33

units = even_units


def names(dataset: OpenDataset, first: int, stop: int) -> tuple[set[str], set[str]]:
    return {ECG_FILE}, set()


def begin(dataset: OpenDataset, folder: Path) -> None:
    """The whole file, still without samples: units write their own records into it."""
    shape = (len(dataset), len(LEADS), dataset.duration_s * dataset.fs_hz)
    size = 2 * int(np.prod(shape))
    if size > MOST_BYTES:
        raise UserError(f"{dataset}: {size / 2**30:.0f} GiB as one .npy, which is for cuts up to {MOST_BYTES // 2**30}. Choose "
                        "fewer records with --where or --records, or use --format hdf5")  # fmt: skip
    if not (folder / ECG_FILE).exists():
        np.lib.format.open_memmap(folder / ECG_FILE, "w+", np.int16, shape)


def unit(dataset: OpenDataset, folder: Path, first: int, stop: int) -> list[str]:
    ecg = np.load(folder / ECG_FILE, mmap_mode="r+")
    if dataset.duration_s <= 60:
        ecg[first:stop] = dataset.raw[first:stop]
    else:
        for at, record in enumerate(dataset.indices[first:stop], first):
            start = 0
            for piece in pieces(dataset, int(record)):
                ecg[at, :, start : start + piece.shape[1]] = piece
                start += piece.shape[1]
    ecg.flush()
    return [ECG_FILE]


def end(dataset: OpenDataset, folder: Path) -> None:
    write_rows(dataset, folder)
    stated = {"axes": ["record", "lead", "time"], "leads": list(LEADS), "units": "mV", "scale_factor": MV_PER_UV,
              "fs_hz": dataset.fs_hz, "run_id": dataset.manifest["run_id"]}  # fmt: skip
    (folder / "ecg.json").write_bytes(to_json(stated))
