"""The arrays of a bank read without zarr, which takes 0.12 s to import and twice as long to read one.

Only what is laid out exactly as bank.write_groups lays it out is read here, and only where its list of sums has been held against
it. Whatever is otherwise is left to zarr, which knows more layouts, and has the words for what is wrong.
"""

import json
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import blosc

from ecg_batch.pool import in_threads
from ecg_batch.zarr_layout import array_layout, group_layout

ENTRY, CHECKSUM = 16, 4  # bytes: of a chunk's offset and length in a shard's index, of a crc32c
TYPES = ("int8", "uint8", "int16", "int32", "int64", "float32", "float64")


@dataclass(frozen=True)
class StoredArray:
    """An array in a folder. chunks: shape of what is compressed by itself; shards: of a file, None where that is a chunk."""

    folder: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None

    def files(self) -> list[str]:
        """The names of its chunk files, in order."""
        grid = product(*(range(-(-length // part)) for length, part in zip(self.shape, self.shards or self.chunks, strict=True)))
        return [".".join(["c", *map(str, at)]) for at in grid]

    def __getitem__(self, key) -> np.ndarray:
        """As zarr has it, of [...] and of one [row], for which only its chunk is unpacked. ValueError or RuntimeError where it is
        damaged.
        """
        size = self.chunks[0]
        first, stop = (0, self.shape[0]) if key is ... else (key // size * size, key + 1)
        each = list(zip(self._parts(), range(0, self.shape[0], size), strict=True))[first // size : -(-stop // size)]
        rows = np.empty((len(each) * size, *self.shape[1:]), self.dtype)
        if len(each) == 1:
            _unpack(each[0][0], rows)
        else:
            list(in_threads(lambda one: _unpack(one[0], rows[one[1] : one[1] + size]), each))  # all ended before anybody forks
        return rows[: self.shape[0]] if key is ... else rows[key - first]

    def _parts(self) -> list[memoryview]:
        """The compressed chunks, each with its crc32c."""
        return [part for name in self.files() for part in self._parts_of((self.folder / name).read_bytes())]

    def _parts_of(self, data: bytes) -> list[memoryview]:
        data = memoryview(data)
        if self.shards is None:
            return [data]
        size = ENTRY * (self.shards[0] // self.chunks[0]) + CHECKSUM
        index = np.frombuffer(_sound(data[-size:]), "<u8").reshape(-1, 2)
        return [data[start : start + length] for start, length in index.tolist() if start != 2**64 - 1]


def _sound(data: memoryview) -> bytes:
    """Bytes without the crc32c at their end, held against it."""
    body = bytes(data[:-CHECKSUM])
    if google_crc32c.value(body).to_bytes(CHECKSUM, "little") != data[-CHECKSUM:]:
        raise ValueError("a crc32c is not the stored one")
    return body


def _unpack(part: memoryview, out: np.ndarray) -> None:
    body = _sound(part)
    if int.from_bytes(body[4:8], "little") != out.nbytes:  # blosc's header: bytes when unpacked
        raise ValueError("a chunk is of another size")
    blosc.decompress(body, out)


@dataclass(frozen=True)
class StoredGroup:
    """The arrays of a group by name, and its attributes."""

    arrays: dict[str, StoredArray]
    attrs: dict

    def __getitem__(self, name: str) -> StoredArray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays


def stored_group(path: Path) -> StoredGroup | None:
    """The group in a folder, or None where anything of it is not as bank.write_groups lays it out."""
    try:
        stated = json.loads((path / "zarr.json").read_bytes())
        attributes = stated["attributes"]
        folders = [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
        arrays = {name: _stored_array(path / name) for name in folders}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return StoredGroup(arrays, attributes) if _is(stated, group_layout(attributes)) and isinstance(attributes, dict) else None


def _stored_array(folder: Path) -> StoredArray:
    """ValueError, among others, where its layout is another."""
    stated = json.loads((folder / "zarr.json").read_bytes())
    shape, kind, grid = stated["shape"], stated["data_type"], stated["chunk_grid"]["configuration"]["chunk_shape"]
    sharded = stated["codecs"][0]["name"] == "sharding_indexed"
    inner = stated["codecs"][0]["configuration"] if sharded else {"codecs": stated["codecs"], "chunk_shape": grid}
    if kind not in TYPES or not all(type(length) is int and length > 0 for length in (*shape, *grid, *inner["chunk_shape"])):
        raise ValueError("a type or a size is none of ours")
    blosc_says = inner["codecs"][1]["configuration"]
    packed = {name: blosc_says[name] for name in ("cname", "clevel", "shuffle")} | {"blocksize": 0}
    dtype, chunks = np.dtype(kind).newbyteorder("<"), inner["chunk_shape"]
    ours = array_layout(shape, chunks, grid if sharded else None, dtype, packed, {})
    rows_alone = grid[1:] == chunks[1:] == shape[1:] and grid[0] % chunks[0] == 0 and (sharded or grid == shape)
    array = StoredArray(folder, tuple(shape), dtype, tuple(chunks), tuple(grid) if sharded else None)
    if not (rows_alone and _is(stated, ours) and {*os.listdir(folder)} == {"zarr.json", *array.files()}):
        raise ValueError("another layout")
    return array


def _is(found, ours) -> bool:
    """Whether JSON says the same: in it 1 is neither true nor 1.0."""
    return json.dumps(found, sort_keys=True) == json.dumps(ours, sort_keys=True)
