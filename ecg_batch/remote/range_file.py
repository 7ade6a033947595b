"""Range file: a file below a URL as Python has files, for HDF5."""

import io
from collections import OrderedDict

from ecg_batch.remote.path import RemotePath
from ecg_batch.remote.receipts import hold_bytes
from ecg_batch.remote.store import Store

BLOCK, BLOCKS = 2**16, 64  # of what is read in small pieces, as the metadata of HDF5


class RangeFile(io.RawIOBase):
    """A file that is read by ranges: small pieces through blocks that are kept, large ones as they are asked for.

    begin(): large pieces that will be asked for, fetched at once.
    """

    def __init__(self, store: Store, inner: str):
        self._store, self._inner, self._at = store, inner, 0
        self._size, self._mark = store.state(inner)
        hold_bytes(RemotePath(store, inner), self._size)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(self._at, min(self._at + len(view), self._size))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def wanted(self, start: int, stop: int) -> tuple[tuple, object]:
        """What store.begin takes, of a piece that will be read."""
        return (self._inner, start, stop), lambda: self._fetch(start, stop)

    def _fetch(self, start: int, stop: int) -> bytes:
        cache, sha256 = self._store.cache, self._store.sums.get(self._inner)
        if cache and sha256 and self._mark:
            return cache.part(sha256, f"{self._mark}.{start}-{stop}", lambda: self._store.fetch(self._inner, start, stop))
        return self._store.fetch(self._inner, start, stop)

    def _read(self, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""
        if (known := self._store.begun((self._inner, start, stop))) is not None:
            return known
        if stop - start >= BLOCK:
            return self._fetch(start, stop)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[start - first * BLOCK : stop - first * BLOCK]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            begin = number * BLOCK
            self._blocks[number] = self._fetch(begin, min(begin + BLOCK, self._size))
            while len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        return self._blocks[number]
