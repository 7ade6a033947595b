"""Read: a finished dataset as arrays and columns, nothing loaded before it is asked for."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ecg_batch.dataset.beats import WAVE_COLUMNS
from ecg_batch.dataset.layout import ECG, HDF5, HDF5_DIGITS, MANIFEST, RECEIPTS, RECORDS, SUMS, ecg_file, partial_of
from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.plan import BEATS
from ecg_batch.dataset.run import refuse_no_dataset
from ecg_batch.dataset.sums import trust_sums
from ecg_batch.dataset.tables import (
    DAMAGE,
    beat_groups,
    damaged,
    hold_against_sums,
    is_there,
    read_beats,
    read_rows,
    row_columns,
    schema_of,
)
from ecg_batch.errors import UserError
from ecg_batch.files import exists
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.reading.records import Records
from ecg_batch.remote.path import RemotePath, is_remote
from ecg_batch.remote.url import is_url, local_path, refuse_flattened
from ecg_batch.request.model import CHUNK_RECORDS, MINUTE_S


def open_dataset(path: str | Path, *, storage_options: Mapping | None = None, cache: str | Path | None = None) -> "OpenDataset":
    """Open a finished dataset, in a folder or below a URL of fsspec: s3://bucket/runs/rare, https://host/rare, and others.

    storage_options: of fsspec, for a URL: credentials, endpoint_url and the like, where the environment does not say them. cache: a
    folder for what is fetched from a URL, which may be shared. UserError where it is unfinished, none, of a newer format, visibly
    damaged, or not to be read.
    """
    if is_url(str(path)):
        from ecg_batch.remote.store import Store

        return _open_remote(RemotePath(Store(str(path), storage_options, cache)))
    if storage_options or cache:
        raise UserError(f"{path}: storage_options and cache are for URLs, and this is a folder. Leave them out")
    refuse_flattened(path)
    path = local_path(path).absolute()  # whatever folder a program goes to later
    try:
        return _open(path)
    except PermissionError as error:
        raise UserError(f"{error.filename}: this user may not read it. Ask its owner to give you read access") from None


def _open(path: Path) -> "OpenDataset":
    if path.suffix == ".partial" or (not exists(path) and partial_of(path).exists()):
        raise UserError(f"{path}: not finished yet: ecg-batch status says how far it is. Run its ecg-batch synthesize again")
    if not exists(path / MANIFEST):
        raise UserError(f"{path}: no dataset (no {MANIFEST} in it). Give the --out of a finished ecg-batch synthesize")
    manifest = read_manifest(path)
    hold_against_sums(path, MANIFEST)
    for name in (RECORDS, ecg_file(_last_file(manifest), stored_format(manifest), digits_of(path))):
        if not (path / name).exists():  # zarr would read an absent shard as zeros
            raise UserError(f"{path / name}: absent, so the dataset is damaged. ecg-batch verify names what else is")
    return OpenDataset(path, manifest)


def _open_remote(path: RemotePath) -> "OpenDataset":
    """In two rounds of requests, whatever the size."""
    store = path.store
    refuse_no_dataset(path)
    store.warm([MANIFEST, SUMS])
    trust_sums(path)
    manifest = read_manifest(path)
    hold_against_sums(path, MANIFEST)
    store.receipts = _receipts(manifest, digits_of(path))
    needed = [RECORDS, ecg_file(_last_file(manifest), stored_format(manifest), digits_of(path))]
    store.warm([f"{ECG}/ecg/zarr.json"] if stored_format(manifest) == "zarr" else [], needed)
    for name in needed:
        if not (path / name).exists():
            raise UserError(f"{path / name}: absent, so the dataset is damaged. ecg-batch verify {path} names what else is")
    return OpenDataset(path, manifest)


def _is_streamed(manifest: dict) -> bool:
    """Whether each record is a file."""
    return manifest["request"]["duration_s"] > MINUTE_S


def _last_file(manifest: dict) -> int:
    return manifest["records" if _is_streamed(manifest) else "shards"] - 1


def _receipts(manifest: dict, digits: int) -> dict[str, str]:
    """File of samples -> the receipt that states its size."""
    files_each = manifest["request"]["shard"] if _is_streamed(manifest) else 1
    return {ecg_file(index, stored_format(manifest), digits): f"{RECEIPTS}/{index // files_each}.json"
            for index in range(_last_file(manifest) + 1)}  # fmt: skip


def digits_of(path: Path | RemotePath) -> int:
    """Of names of HDF5 files: a dataset of before 0.4 has 0.h5."""
    if is_remote(path) and path.store.sums:
        return 0 if f"{HDF5}/0.h5" in path.store.sums else HDF5_DIGITS
    return 0 if (path / HDF5 / "0.h5").exists() else HDF5_DIGITS


def stored_format(manifest: dict) -> str:
    """zarr or hdf5."""
    return manifest["request"].get("format", "zarr")


def open_chunks(path: Path, manifest: dict):
    """chunks.ZarrChunks or hdf5.Hdf5Chunks of a dataset; None where records are too long for chunks of whole records."""
    if stored_format(manifest) == "zarr":
        from ecg_batch.dataset.zarr_chunks import zarr_chunks

        hold_against_sums(path, f"{ECG}/ecg/zarr.json")
        chunks = zarr_chunks(path / ECG / "ecg")
        shape = (manifest["records"], len(LEADS), manifest["request"]["duration_s"] * manifest["request"]["fs_hz"])
        if manifest["request"]["duration_s"] <= MINUTE_S and (chunks is None or chunks.shape != shape):
            stated = "another layout" if chunks is None else f"shape {chunks.shape}"
            raise damaged(path / ECG / "ecg/zarr.json", f"it says {stated}; needed chunks of whole records, shape {shape}", path)
        return chunks
    from ecg_batch.dataset.hdf5 import Hdf5Chunks

    request = manifest["request"]
    shape = (manifest["records"], len(LEADS), request["duration_s"] * request["fs_hz"])
    files = tuple(path / ecg_file(shard, "hdf5", digits_of(path)) for shard in range(manifest["shards"]))
    return Hdf5Chunks(files, shape, CHUNK_RECORDS, request["shard"])


class OpenDataset(Records):
    """A finished synthetic dataset, or a part of it. See records.Records for how to read it."""

    label_means = "what was asked"

    def __init__(self, path: Path | RemotePath, manifest: dict):
        self.path, self.manifest, self.total = path, manifest, manifest["records"]
        self.fs_hz, self.duration_s = manifest["request"]["fs_hz"], manifest["request"]["duration_s"]
        self._chunks = None
        self._zarr: tuple = (0, None)  # (process id, array)

    @property
    def records(self):
        """The rows of records.parquet, as a pyarrow Table."""
        if "_rows" not in self.__dict__:
            self._rows = self.columns()
        return self._rows

    @property
    def chunks(self):
        if not self._has_chunks():
            raise UserError(f"{self}: records of {self.duration_s} s are read in pieces, with piece() or xarray, not in chunks "
                            "of whole records; cut training examples from them")  # fmt: skip
        return self._chunks

    def begin(self, chunks: Iterable[int]) -> None:
        if is_remote(self.path):
            self.chunks.begin(chunks)

    @property
    def origin(self) -> object:
        return self.path

    def content(self) -> str:
        return self.manifest["content_root"]

    def read_table(self, names: list[str] | None):
        return read_rows(self.path / RECORDS, names)

    def column_names(self) -> list[str]:
        return row_columns(self.path / RECORDS)

    def read(self, wanted: np.ndarray) -> np.ndarray:
        if self._has_chunks():
            return super().read(wanted)
        return self._long(wanted, lambda array: array.get_orthogonal_selection((wanted,)))

    def piece(self, record: int, start: int, stop: int) -> np.ndarray:
        """int16 (lead, time) of samples start .. stop - 1 of one record of the source: a long one need never be in memory whole."""
        if self._has_chunks():
            return self.read(np.array([record]))[0, :, start:stop]
        return self._long([record], lambda array: array[record, :, start:stop])

    def _long(self, records, read):
        """What `read` gives of the array. Each record is a file, and zarr would read an absent one as zeros."""
        if is_remote(self.path):
            self.path.store.warm(there=[ecg_file(int(record)) for record in records])
        absent = [name for record in records if not (name := self.path / ecg_file(int(record))).exists()]
        if absent:
            raise UserError(f"{absent[0]}: absent, so the dataset is damaged. ecg-batch verify DIR names what else is, and "
                            "--repair has it made again")  # fmt: skip
        try:
            try:
                return read(self._array())
            except DAMAGE:
                if not is_remote(self.path):
                    raise
                self.path.store.indices.clear()
                return read(self._array())  # what came is fetched once more
        except DAMAGE as error:
            named = " or ".join(ecg_file(int(record)) for record in records[:5])
            raise UserError(f"{self.path}: {named} cannot be read ({type(error).__name__}). ecg-batch verify DIR names what "
                            "is damaged, and --repair has it made again") from None  # fmt: skip

    def window(self, record: int, start_s: float, stop_s: float) -> np.ndarray:
        """float32 mV (lead, time) from start_s to stop_s of record `record` of the dataset: a day is never in memory whole."""
        start, stop = round(start_s * self.fs_hz), round(stop_s * self.fs_hz)
        if not (0 <= record < self.total and 0 <= start <= stop <= self.duration_s * self.fs_hz):
            raise UserError(
                f"{self.path}: no {start_s:g} to {stop_s:g} s in record {record}; it has records 0 to {self.total - 1} of "
                f"{self.duration_s} s"
            )
        return self.piece(record, start, stop) * np.float32(MV_PER_UV)

    def beats(self, record: int):
        """The annotations of one record as a pyarrow Table: sample, symbol, aux, and the waves in ms from the sample. Only row
        groups with its beats are read. A dataset of before 0.5 has no waves.
        """
        self._refuse_without_beats()
        return read_beats(self.path, [record]).drop_columns("record")

    def annotations(self, records: np.ndarray) -> Iterator["pa.Table"]:  # noqa: F821
        self._refuse_without_beats()
        if not self.has_waves:
            raise UserError(f"{self.path / BEATS}: without waves, as before 0.5. Make the dataset again with this ecg-batch")
        return beat_groups(self.path, records)

    @property
    def has_waves(self) -> bool:
        """Whether beats have their waves; before 0.5 they had not."""
        return is_there(self.path, BEATS) and WAVE_COLUMNS[0] in schema_of(self.path / BEATS).names

    def _refuse_without_beats(self) -> None:
        if not is_there(self.path, BEATS):
            raise UserError(f"{self.path}: no {BEATS}: before 0.5, records of 10 s came without annotations. Make the "
                            "dataset again, or detect beats")  # fmt: skip

    def __repr__(self) -> str:
        return f"OpenDataset({str(self.path)!r}, {len(self):,} records, 12 leads, {self.fs_hz} Hz)"

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_rows"} | {"_zarr": (0, None), "_chunks": None}

    def _has_chunks(self) -> bool:
        if self._chunks is None:
            self._chunks = open_chunks(self.path, self.manifest)
        return self._chunks is not None

    def _array(self):
        """The Zarr array, opened once in each process: a forked child must not use its parent's event loop."""
        import zarr

        if self._zarr[0] != os.getpid():
            store = self.path / ECG / "ecg"
            if is_remote(store):
                from ecg_batch.remote.zarr_store import ReadStore

                store = ReadStore(store)
            self._zarr = (os.getpid(), zarr.open_array(store, mode="r", zarr_format=3))
        return self._zarr[1]
