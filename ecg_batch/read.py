"""Read: a finished dataset as arrays and columns, nothing loaded before it is asked for."""

import os
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS, MV_PER_STEP
from ecg_batch.plan import BEATS, ECG, FORMAT, MANIFEST, RECORDS, ecg_file, partial_of
from ecg_batch.request import MINUTE_S
from ecg_batch.status import read_manifest


def open_dataset(path: str | Path) -> "OpenDataset":
    """Open a finished dataset. UserError where it is unfinished, none, of a newer format, or visibly damaged."""
    path = Path(path)
    if path.suffix == ".partial" or (not path.exists() and partial_of(path).exists()):
        raise UserError(f"{path}: not finished yet. jobs/status.py says how far it is; run its jobs/synthesize.py command again")
    if not (path / MANIFEST).exists():
        raise UserError(f"{path}: no dataset (no {MANIFEST} in it). Give the --out of a finished jobs/synthesize.py")
    manifest = read_manifest(path)
    if manifest["format"] > FORMAT:
        raise UserError(f"{path}: format {manifest['format']}; this ecg-batch reads up to {FORMAT}. Install a newer one")
    for name in (RECORDS, ecg_file(_last_file(manifest))):
        if not (path / name).exists():  # zarr would read an absent shard as zeros
            raise UserError(f"{path / name}: absent, so the dataset is damaged. jobs/verify.py names what else is")
    return OpenDataset(path, manifest)


def _last_file(manifest: dict) -> int:
    streamed = manifest["request"]["duration_s"] > MINUTE_S  # then each record is a file
    return manifest["records" if streamed else "shards"] - 1


class OpenDataset:
    """Records of a dataset, or those of them that `where` chose. len, ds[i] and ds[10:20] count within these.

    ds[key] -> float32 mV (record, lead, time), or (lead, time) for one index; ds.raw[key] -> the stored int16 steps.
    key: an index, a slice, an array of indices, or a mask. Safe to send to other processes, by fork or spawn.
    """

    leads = LEADS

    def __init__(self, path: Path, manifest: dict, chosen: np.ndarray | None = None):
        self.path, self.manifest = path, manifest
        self._chosen = chosen  # record indices, None = all
        self._open: tuple = (0, None)  # (process id, array)
        self._rows = None

    @property
    def fs_hz(self) -> int:
        return self.manifest["request"]["fs_hz"]

    @property
    def raw(self) -> "_Raw":
        return _Raw(self)

    @property
    def records(self):
        """The rows of records.parquet, as a pyarrow Table."""
        if self._rows is None:
            self._rows = self.columns()
        return self._rows

    def columns(self, names: list[str] | None = None):
        """Some columns only, as a pyarrow Table. UserError where one is unknown."""
        import pyarrow.parquet as pq

        known = pq.read_schema(self.path / RECORDS).names
        for name in names or ():
            if name not in known:
                raise UserError(f"{self.path}: no column '{name}' in {RECORDS}; columns: {', '.join(known)}")
        table = pq.read_table(self.path / RECORDS, columns=names)
        return table if self._chosen is None else table.take(self._chosen)

    def where(self, **values) -> "OpenDataset":
        """The records whose columns have these values: ds.where(label="MI", sex=1)."""
        import pyarrow.compute as pc

        table, mask = self.columns(list(values)), np.ones(len(self), bool)
        for name, value in values.items():
            mask &= pc.fill_null(pc.equal(table[name], value), False).to_numpy()
        return OpenDataset(self.path, self.manifest, self._indices()[mask])

    def _indices(self) -> np.ndarray:
        return np.arange(self.manifest["records"]) if self._chosen is None else self._chosen

    def __len__(self) -> int:
        return self.manifest["records"] if self._chosen is None else len(self._chosen)

    def __getitem__(self, key) -> np.ndarray:
        return self.raw[key] * np.float32(MV_PER_STEP)

    def window(self, record: int, start_s: float, stop_s: float) -> np.ndarray:
        """float32 mV (lead, time) from start_s to stop_s of record `record` of the dataset: a day is never in memory whole."""
        start, stop = round(start_s * self.fs_hz), round(stop_s * self.fs_hz)
        samples = self.manifest["request"]["duration_s"] * self.fs_hz
        if not (0 <= record < self.manifest["records"] and 0 <= start <= stop <= samples):
            last, duration_s = self.manifest["records"] - 1, self.manifest["request"]["duration_s"]
            raise UserError(
                f"{self.path}: no {start_s:g} to {stop_s:g} s in record {record}; it has records 0 to {last} of {duration_s} s"
            )
        return self._array()[record, :, start:stop] * np.float32(MV_PER_STEP)

    def beats(self, record: int):
        """The annotations of one long record as a pyarrow Table: sample, symbol, aux. Only its shard's rows are read."""
        import pyarrow.parquet as pq

        if not (self.path / BEATS).exists():
            raise UserError(f"{self.path}: no {BEATS}: records of 10 s come without annotations. Detect beats instead")
        return pq.read_table(self.path / BEATS, filters=[("record", "==", record)]).drop_columns("record")

    def __repr__(self) -> str:
        return f"OpenDataset({str(self.path)!r}, {len(self):,} records, 12 leads, {self.fs_hz} Hz)"

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": (0, None), "_rows": None}

    def _array(self):
        """The Zarr array, opened once in each process: a forked child must not use its parent's event loop."""
        import zarr

        if self._open[0] != os.getpid():
            self._open = (os.getpid(), zarr.open_array(self.path / ECG / "ecg", mode="r"))
        return self._open[1]


class _Raw:
    """int16 view of a dataset, in steps of 1 microvolt."""

    def __init__(self, dataset: OpenDataset):
        self._dataset = dataset

    def __getitem__(self, key) -> np.ndarray:
        array, wanted = self._dataset._array(), self._dataset._indices()[key]
        if np.ndim(wanted) == 0:
            return array[int(wanted)]
        if len(wanted) and np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
            return array[int(wanted[0]) : int(wanted[0]) + len(wanted)]
        return array.get_orthogonal_selection((wanted,))
