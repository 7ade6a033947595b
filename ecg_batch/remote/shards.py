"""Shards: files of Zarr v3 sharding below a URL. A chunk is a range of one, and its crc32c comes with it."""

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.remote.cache import CHECKSUM_BYTES, is_sound
from ecg_batch.remote.path import RemotePath
from ecg_batch.remote.store import NotSound

ABSENT = 2**64 - 1  # offset and length of a chunk that is not stored
LARGEST = 2**31  # bytes of a chunk: an index that says more is damaged


def fetch_chunk(path: RemotePath, at: int, chunks: int) -> bytes:
    """The stored bytes of chunk `at` of a shard file of so many, without their crc32c; none where it is not stored. From the cache
    where it is there. NotSound where they are not what was written, also when they are asked for again.
    """
    store, sha256 = path.store, path.store.sums.get(path.inner)
    if store.cache and sha256 and (kept := store.cache.chunk(sha256, at)) is not None:
        return kept[:-CHECKSUM_BYTES]
    try:
        offset, length = (int(x) for x in _index(path, chunks)[at])
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
        store.cache.keep_chunk(sha256, at, data)
    return data[:-CHECKSUM_BYTES]


def fetch_sound(path: RemotePath, start: int, stop: int) -> bytes:
    """Bytes of a shard file that end with their crc32c, from the cache where they are there. UserError where they are others."""
    store, sha256 = path.store, path.store.sums.get(path.inner)
    if store.cache and sha256 and (kept := store.cache.chunk(sha256, f"{start}-{stop}")) is not None:
        return kept
    try:
        data = store.fetch(path.inner, start, stop, is_sound)
    except NotSound as error:
        store.indices.clear()
        raise UserError(f"{path}: bytes {start:,} to {stop:,} cannot be read: {error}. ecg-batch verify {store.url} names what "
                        "else is damaged; copy it there again") from None  # fmt: skip
    if store.cache and sha256:
        store.cache.keep_chunk(sha256, f"{start}-{stop}", data)
    return data


def absent(path: RemotePath) -> UserError:
    return UserError(f"{path}: absent, so the dataset is damaged. ecg-batch verify {path.store.url} names what else is; copy it "
                     "there again")  # fmt: skip


def _index(path: RemotePath, chunks: int) -> np.ndarray:
    """(offset, length) of each chunk, from the end of a shard file: fetched once, by whoever asks first."""
    store = path.store
    with store.lock_of(path.inner):
        if (known := store.indices.get(path.inner)) is None:
            data = store.fetch(path.inner, -16 * chunks - CHECKSUM_BYTES, None, is_sound)
            known = store.indices[path.inner] = np.frombuffer(data[:-CHECKSUM_BYTES], "<u8").reshape(chunks, 2)
    return known
