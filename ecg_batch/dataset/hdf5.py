"""HDF5: the second format of the samples, one file per shard. h5py, h5dump and MATLAB read it.

Every chunk has a fletcher32 sum beside the crc32 of its deflate stream, so a flipped bit is an error and not a wrong sample.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from ecg_batch.dataset.coordinates import coordinates
from ecg_batch.errors import UserError
from ecg_batch.files import open_regular
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.remote.path import is_remote

DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError)  # what HDF5 makes of it
DEFLATE = 1  # 5 would save 4 % and take twice as long
MOST_TIMES = 60 * 500  # samples of a record up to which there is a time for each
CACHE_BYTES = 2**24  # HDF5's own default of 1 MB is less than a chunk: each slice of a chunk would decode it anew


def create(path: Path, shape: tuple[int, int, int], chunk: tuple[int, int, int], records: np.ndarray, fs_hz: int):
    """An open h5py File with an empty `ecg`, to be filled, and `record`, the record numbers. A context manager."""
    import h5py

    # v108: what pyfive and older MATLAB know too; without locks, which some file systems refuse
    file = h5py.File(path, "w", libver=("v108", "v108"), locking=False, rdcc_nbytes=CACHE_BYTES)
    chunk = tuple(min(sizes) for sizes in zip(chunk, shape, strict=True))
    ecg = file.create_dataset("ecg", shape, "<i2", chunks=chunk, shuffle=True, compression="gzip", compression_opts=DEFLATE,
                              fletcher32=True)  # fmt: skip
    ecg.attrs["units"], ecg.attrs["scale_factor"], ecg.attrs["fs_hz"], ecg.attrs["leads"] = "mV", MV_PER_UV, fs_hz, list(LEADS)
    file["record"] = np.asarray(records, np.int64)
    for name, (values, attributes) in coordinates(shape[2] if shape[2] <= MOST_TIMES else None, fs_hz).items():
        file[name] = values
        file[name].attrs.update(attributes)
    for axis, name in enumerate(("record", "lead", "time")):
        ecg.dims[axis].label = name
        if name in file:
            file[name].make_scale(name)
            ecg.dims[axis].attach_scale(file[name])
    return file


def write(path: Path, ecg: np.ndarray, records: np.ndarray, chunk_records: int, fs_hz: int) -> None:
    """A whole shard, int16 (record, lead, time)."""
    with create(path, ecg.shape, (chunk_records, *ecg.shape[1:]), records, fs_hz) as file:
        for start in range(0, len(ecg), chunk_records):
            file["ecg"][start : start + chunk_records] = ecg[start : start + chunk_records]


def _chunk_places(ecg) -> dict[int, tuple[int, int]]:
    """First record of each chunk -> its first byte in the file, and the one after its last. ValueError unless every chunk is where
    it belongs, once, through all filters: this layout's index of chunks has no checksum, and HDF5 fills a chunk that it does not
    find with zeros.
    """
    found: list = []
    ecg.id.chunk_iter(found.append)
    planned = set(product(*(range(0, size, step) for size, step in zip(ecg.shape, ecg.chunks, strict=True))))
    if {chunk.chunk_offset for chunk in found} != planned or len(found) != len(planned) or any(one.filter_mask for one in found):
        raise ValueError("the index of its chunks is not what was written")
    ends = sorted((chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in found)
    if any(one[1] > two[0] for one, two in pairwise(ends)):
        raise ValueError("two of its chunks overlap")
    return {chunk.chunk_offset[0]: (chunk.byte_offset, chunk.byte_offset + chunk.size) for chunk in found}


@dataclass
class Hdf5Chunks:
    """Chunks of a dataset of HDF5 files, as chunks.ZarrChunks gives those of Zarr; [start:stop] gives any of its records."""

    files: tuple[Path, ...]
    shape: tuple[int, int, int]
    chunk_records: int
    shard_records: int
    _open: dict[tuple, object] = field(default_factory=dict, repr=False)  # of this process: (process id, shard) -> h5py Dataset
    _places: dict[tuple, tuple] = field(default_factory=dict, repr=False)  # the same -> (file below a URL, where its chunks lie)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}, "_places": {}}

    def read(self, chunk: int, out: np.ndarray | None = None) -> np.ndarray:
        start = chunk * self.chunk_records
        ecg = self[start : min(start + self.chunk_records, self.shape[0])]
        if out is None:
            return ecg
        out[: len(ecg)] = ecg
        return out[: len(ecg)]

    def __getitem__(self, key: slice) -> np.ndarray:
        """int16 of records start .. stop - 1, each shard's part read by itself."""
        start, stop, _ = key.indices(self.shape[0])
        parts = list(self._parts(start, stop))
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), np.int16)

    def _parts(self, start: int, stop: int) -> Iterable[np.ndarray]:
        while start < stop:
            shard, at = divmod(start, self.shard_records)
            count = min(stop - start, self.shard_records - at)
            yield self._whole(shard, slice(at, at + count))
            start += count

    def _whole(self, shard: int, key: slice = slice(0)) -> np.ndarray:
        """Records of a shard's file. UserError where they are not whole, from a URL the second time too."""
        try:
            try:
                return self._dataset(shard)[key]
            except DAMAGE:
                if not is_remote(self.files[shard]):
                    raise
                self._forget(shard)
                return self._dataset(shard)[key]
        except DAMAGE as error:
            mend = "copy it there again" if is_remote(self.files[shard]) else "--repair has it made again"
            raise UserError(f"{self.files[shard]}: cannot be read: {error}. ecg-batch verify DIR names what else is damaged, "
                            f"and {mend}") from None  # fmt: skip

    def _dataset(self, shard: int):
        """Opened once in each process: HDF5's handles must not be shared with a forked one. As a file of Python: no locks, as the
        disk may be read-only, and no quarrel with a user who has opened the same file with others.
        """
        import h5py

        key = (os.getpid(), shard)
        if key not in self._open:
            if len(self._open) >= 64:
                self._open.clear()
                self._places.clear()
            file = open_regular(self.files[shard])
            ecg = h5py.File(file, "r", rdcc_nbytes=CACHE_BYTES)["ecg"]
            records = min(self.shard_records, self.shape[0] - shard * self.shard_records)
            if ecg.shape != (records, *self.shape[1:]) or ecg.dtype != np.dtype("<i2"):
                raise ValueError(f"it holds {ecg.dtype} {ecg.shape}; needed int16 {(records, *self.shape[1:])}")
            places = _chunk_places(ecg)
            self._open[key] = ecg
            if is_remote(self.files[shard]):
                self._places[key] = (file, places)
        return self._open[key]

    def _forget(self, shard: int) -> None:
        self._open.pop((os.getpid(), shard), None)
        self._places.pop((os.getpid(), shard), None)
        path = self.files[shard]
        path.store.begin({})
        if path.store.cache and path.inner in path.store.sums:
            path.store.cache.drop(path.store.sums[path.inner])

    def begin(self, chunks: Iterable[int]) -> None:
        """Start to fetch these chunks of files below a URL, and forget others. Waits for the files that are not open yet."""
        wanted = {}
        for start in (int(chunk) * self.chunk_records for chunk in chunks):
            shard, at = divmod(start, self.shard_records)
            self._whole(shard)
            file, places = self._places[os.getpid(), shard]
            wanted |= dict([file.wanted(*places[at])])
        self.files[0].store.begin(wanted)
