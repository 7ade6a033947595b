"""Shards: files of Zarr v3 sharding below a URL. A chunk is a range of one, and its crc32c comes with it. That says that it is
whole, and not whose it is: so the file's index is held against the bytes that the receipt states, and what is kept goes by the
index too.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.remote.cache import CHECKSUM_BYTES, is_sound
from ecg_batch.remote.path import RemotePath
from ecg_batch.remote.receipts import absent, hold_bytes
from ecg_batch.remote.store import NotSound

ABSENT = 2**64 - 1  # offset and length of a chunk that is not stored
LARGEST = 2**31  # bytes of a chunk: an index that says more is damaged
MARK = 16  # hexadecimal digits of an index' sha256 that tell files with one claimed sha256 apart


@dataclass(frozen=True)
class Index:
    """The last bytes of a shard file, with their crc32c."""

    data: bytes

    @property
    def places(self) -> np.ndarray:
        """uint64 (chunk, 2): offset and length."""
        return np.frombuffer(self.data[:-CHECKSUM_BYTES], "<u8").reshape(-1, 2)

    @property
    def mark(self) -> str:
        """Differs where a chunk has another length."""
        return hashlib.sha256(self.data).hexdigest()[:MARK]

    @property
    def file_bytes(self) -> int:
        """Of the whole file: chunks lie without gaps, and the index after them."""
        return max((int(offset) + int(length) for offset, length in self.places if offset != ABSENT), default=0) + len(self.data)


def fetch_chunk(path: RemotePath, at: int, chunks: int) -> bytes:
    """The stored bytes of chunk `at` of a shard file of so many, without their crc32c; none where it is not stored. From the cache
    where it is there. NotSound where they are not what was written, also when they are asked for again.
    """
    store, sha256 = path.store, path.store.sums.get(path.inner)
    try:
        index = fetch_index(path, 16 * chunks + CHECKSUM_BYTES)
        name = f"{index.mark}.{at}"
        if store.cache and sha256 and (kept := store.cache.chunk(sha256, name)) is not None:
            return kept[:-CHECKSUM_BYTES]
        offset, length = (int(x) for x in index.places[at])
        if offset == length == ABSENT:
            return b""
        if not CHECKSUM_BYTES < length < LARGEST:
            raise NotSound("its index names no bytes")
        data = store.fetch(path.inner, offset, offset + length, is_sound)
    except FileNotFoundError:
        raise absent(path) from None
    except NotSound:
        store.indices.pop(path.inner, None)  # of a file that was replaced, perhaps
        raise
    if store.cache and sha256:
        store.cache.keep_chunk(sha256, name, data)
    return data[:-CHECKSUM_BYTES]


def fetch_sound(path: RemotePath, start: int, stop: int) -> bytes:
    """Bytes of a shard file that end with their crc32c, from the cache where they are there. UserError where they are others."""
    store, sha256, index = path.store, path.store.sums.get(path.inner), path.store.indices.get(path.inner)
    name = f"{index.mark}.{start}-{stop}" if store.cache and sha256 and index else None
    if name and (kept := store.cache.chunk(sha256, name)) is not None:
        return kept
    try:
        data = store.fetch(path.inner, start, stop, is_sound)
    except NotSound as error:
        store.indices.pop(path.inner, None)
        raise _not_sound(path, f"bytes {start:,} to {stop:,} cannot be read", error) from None
    if name:
        store.cache.keep_chunk(sha256, name, data)
    return data


def fetch_sound_index(path: RemotePath, size: int) -> bytes:
    """The index of so many bytes, with its crc32c. UserError where it is damaged."""
    try:
        return fetch_index(path, size).data
    except NotSound as error:
        raise _not_sound(path, "its index cannot be read", error) from None


def fetch_all(path: RemotePath) -> bytes:
    """A whole file, held against its sha256. UserError where it is another."""
    try:
        return bytes(path.store.whole(path.inner, keep=False, sound=True))
    except NotSound as error:
        raise _not_sound(path, "cannot be read", error) from None


def fetch_index(path: RemotePath, size: int) -> Index:
    """Fetched once in an opening, by whoever asks first. NotSound where it is damaged; UserError where it is that of a file of
    another size than the dataset's.
    """
    store = path.store
    with store.lock_of(path.inner):
        if (known := store.indices.get(path.inner)) is None:
            known = Index(store.fetch(path.inner, -size, None, is_sound))
            hold_bytes(path, known.file_bytes)
            store.indices[path.inner] = known
    return known


def _not_sound(path: RemotePath, what: str, error: NotSound) -> UserError:
    return UserError(f"{path}: {what}: {error}. ecg-batch verify {path.store.url} names what else is damaged; copy it there "
                     "again")  # fmt: skip
