"""Chunks: the samples of a dataset a stored chunk at a time, which is the fast way to write and to read it.

A chunk (64 records, 1.5 MB) is the least that can be decoded. zarr-python takes 2.4 times as long for one as reading its bytes,
crc32c and blosc take together (16,300 against 39,900 records/s on one core), and its event loop must not be shared with a forked
process. So where the layout is ours (write.py) it is written and read here: a file, its index at the end, and no threads. It is
Zarr v3's sharding (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): chunks one after another, each
through blosc and crc32c, then where each begins and how long it is, then a crc32c of that index.
"""

import json
import os
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import blosc

from ecg_batch.errors import UserError
from ecg_batch.files import SummedFile, open_regular, read_regular
from ecg_batch.remote.path import RemotePath, is_remote

ABSENT = 2**64 - 1  # offset and length of a chunk that holds zeros only, and is not stored
CHECKSUM_BYTES = 4
OPEN_FILES = 64

# A process that loads is one of several, and may be forked; and threads put blocks down in the order they finish
blosc.use_threads = False


class ShardFile:
    """A shard file that grows by a chunk at a time. chunk: its shape; codec: blosc as the array's zarr.json has it."""

    def __init__(self, path: Path, chunk: tuple[int, ...], codec: blosc.Blosc):
        self.path, self._file, self._codec = path, SummedFile(path), codec
        self._full = np.zeros(chunk, np.int16)
        self._index = array("Q")  # of each chunk: where, how long

    def append(self, ecg: np.ndarray) -> bytes:
        """Write the next chunk, int16 of its shape, or shorter, which is the last: filled up with 0. As it was compressed."""
        if ecg.shape != self._full.shape:
            self._full[:] = 0
            self._full[tuple(map(slice, ecg.shape))] = ecg
            ecg = self._full
        data = self._codec.encode(np.ascontiguousarray(ecg))
        self._index.extend((self._file.tell(), len(data) + CHECKSUM_BYTES))
        self._file.write(data)
        self._file.write(_crc32c(data))
        return data

    def skip(self) -> None:
        """A chunk of zeros alone, which is not stored."""
        self._index.extend((ABSENT, ABSENT))

    def close(self) -> int:
        """Write the index and its checksum. The crc32c of the whole file."""
        if not self._file.closed:
            index = np.array(self._index, dtype="<u8").tobytes()
            self._file.write(index + _crc32c(index))
            self._file.close()
        return self._file.crc32c

    def read_back(self) -> Iterator[np.ndarray]:
        """The chunks as they are in the file, int16. OSError where one is not what was written."""
        with open_regular(self.path) as file:
            for offset, length in zip(self._index[::2], self._index[1::2], strict=True):
                file.seek(offset)
                data = file.read(length)
                if _crc32c(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
                    raise OSError(f"{self.path}: the file system gave back other bytes than were written")
                yield np.frombuffer(self._codec.decode(data[:-CHECKSUM_BYTES]), "<i2").reshape(self._full.shape)


def _crc32c(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(CHECKSUM_BYTES, "little")


@dataclass(frozen=True)
class ZarrChunks:
    """Chunks of one array of write.py. shape (record, lead, time); chunk_records and shard_records in a chunk and in a file."""

    folder: Path
    shape: tuple[int, int, int]
    chunk_records: int
    shard_records: int

    def read(self, chunk: int, out: np.ndarray | None = None) -> np.ndarray:
        """int16 (record, lead, time) of a chunk, shorter at the end of the array. out: where to put it, of a whole chunk's shape.

        UserError where it is not what was written.
        """
        shard, at = divmod(chunk, self.shard_records // self.chunk_records)
        data = self._bytes(self.folder / f"c.{shard}.0.0", at)
        ecg = np.empty((self.chunk_records, *self.shape[1:]), np.int16) if out is None else out
        if data is None:
            ecg[:] = 0
        else:
            try:
                blosc.decompress(data, ecg)
            except (RuntimeError, ValueError) as error:
                raise damaged_chunk(self.folder / f"c.{shard}.0.0", at, str(error)) from None
        return ecg[: self.shape[0] - chunk * self.chunk_records]

    def _bytes(self, path: Path, at: int) -> bytes | None:
        """The compressed bytes of chunk `at` of a file, held against their crc32c; None where it is not stored."""
        try:
            with open_regular(path, buffering=0) as file:
                offset, length = (int(x) for x in _index(file.fileno(), self.shard_records // self.chunk_records)[at])
                if offset == length == ABSENT:
                    return None
                data = os.pread(file.fileno(), length, offset)
        except (OSError, ValueError) as error:
            raise damaged_chunk(path, at, str(error)) from None
        body, stated = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
        if len(data) != length or _crc32c(body) != stated:
            raise damaged_chunk(path, at, "its crc32c is not the stored one")
        return body


class RemoteZarrChunks(ZarrChunks):
    """The same of a folder below a URL: a range for each chunk, and once for each file its index. begin() fetches before read()."""

    folder: RemotePath

    def begin(self, chunks: Iterable[int]) -> None:
        """Start to fetch these chunks, and forget others. Waits for nothing."""
        places = [divmod(int(chunk), self._in_file) for chunk in chunks]
        self.folder.store.begin({place: partial(self._fetch, *place) for place in places})

    @property
    def _in_file(self) -> int:
        return self.shard_records // self.chunk_records

    def _fetch(self, shard: int, at: int) -> bytes:
        from ecg_batch.remote.shards import fetch_chunk

        return fetch_chunk(self.folder / f"c.{shard}.0.0", at, self._in_file)

    def _bytes(self, path: RemotePath, at: int) -> bytes | None:
        from ecg_batch.remote.store import NotSound

        shard = int(path.name.split(".")[1])
        try:
            begun = self.folder.store.begun((shard, at))
            return (self._fetch(shard, at) if begun is None else begun) or None
        except NotSound as error:
            raise damaged_chunk(path, at, str(error)) from None

    def __getitem__(self, key: slice) -> np.ndarray:
        """int16 of records start .. stop - 1."""
        start, stop, _ = key.indices(self.shape[0])
        first, last = start // self.chunk_records, -(-stop // self.chunk_records)
        parts = [self.read(chunk) for chunk in range(first, last)]
        return np.concatenate(parts)[start - first * self.chunk_records : stop - first * self.chunk_records]


_INDICES: OrderedDict[tuple, np.ndarray] = OrderedDict()  # of this process, by which file in which state: paths are used again


def _index(handle: int, chunks: int) -> np.ndarray:
    """(offset, length) of each chunk of an open shard file, read once for a state of it."""
    state = os.fstat(handle)
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, chunks)
    if (known := _INDICES.get(key)) is not None:
        return known
    _INDICES[key] = index = _read_index(handle, state.st_size, chunks)
    while len(_INDICES) > OPEN_FILES:
        with suppress(KeyError):  # another thread was quicker
            _INDICES.popitem(last=False)
    return index


def _read_index(handle: int, file_bytes: int, chunks: int) -> np.ndarray:
    """The last bytes of a shard file, held against their crc32c."""
    size = 16 * chunks
    data = os.pread(handle, size + CHECKSUM_BYTES, max(file_bytes - size - CHECKSUM_BYTES, 0))
    if _crc32c(data[:size]) != data[size:]:
        raise ValueError("the crc32c of its index is not the stored one")
    return np.frombuffer(data[:size], "<u8").reshape(chunks, 2)


def damaged_chunk(path: Path, at: int, why: str) -> UserError:
    mend = "copy it there again" if is_remote(path) else "--repair has it made again"
    return UserError(f"{path}: chunk {at} cannot be read: {why}. ecg-batch verify DIR names what else is damaged, and {mend}")


def zarr_chunks(folder: Path) -> ZarrChunks | None:
    """Chunks of the array in a folder, or None where its layout is another than that of 10 s records (of long ones, say)."""
    try:
        stated = json.loads(read_regular(folder / "zarr.json"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder / 'zarr.json'}: cannot be read: {str(error)[:200]}. ecg-batch verify names what else is damaged"
        ) from None
    try:
        (sharding,) = stated["codecs"]
        inner, config = sharding["configuration"]["codecs"], sharding["configuration"]
        (shard, *whole), (chunk, *also) = stated["chunk_grid"]["configuration"]["chunk_shape"], config["chunk_shape"]
        ours = (stated["data_type"], stated["chunk_key_encoding"], sharding["name"], config["index_location"]) == (
            "int16", {"name": "default", "configuration": {"separator": "."}}, "sharding_indexed", "end",
        )  # fmt: skip
        ours = ours and [codec["name"] for codec in inner] == ["bytes", "blosc", "crc32c"] and stated["fill_value"] == 0
        ours = ours and inner[0]["configuration"]["endian"] == "little" and whole == also == stated["shape"][1:]
        ours = ours and [codec["name"] for codec in config["index_codecs"]] == ["bytes", "crc32c"]
        ours = ours and all(type(size) is int and 0 < size < 2**40 for size in (shard, chunk, *stated["shape"]))
        ours = ours and shard % chunk == 0 and not stated.get("storage_transformers")
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return None
    kind = RemoteZarrChunks if is_remote(folder) else ZarrChunks
    return kind(folder, tuple(stated["shape"]), chunk, shard) if ours else None
