"""Path: a file or folder below a URL, where readers otherwise have a pathlib.Path. Only what readers ask is there."""

import io
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecg_batch.remote.store import Store

BLOCK, BLOCKS = 2**16, 64  # of what is read in small pieces, as the metadata of HDF5


class RemotePath:
    """Names as pathlib has them; equal to another only where the store is the same object, so nothing is kept beyond an opening."""

    __slots__ = ("store", "inner")

    def __init__(self, store: "Store", inner: str = ""):
        self.store, self.inner = store, inner

    def __reduce__(self):
        return RemotePath, (self.store, self.inner)

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(self.store, f"{self.inner}/{name}".lstrip("/"))

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return f".{self.name.rpartition('.')[2]}" if "." in self.name else ""

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.store, self.inner.rpartition("/")[0])

    def __str__(self) -> str:
        return self.store.at(self.inner)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and (self.store, self.inner) == (other.store, other.inner)

    def __hash__(self) -> int:
        return hash((id(self.store), self.inner))

    def exists(self) -> bool:
        return self.store.has(self.inner)

    def read_bytes(self) -> bytes:
        return bytes(self.whole())

    def whole(self) -> memoryview:
        return self.store.whole(self.inner)

    def open(self) -> "RangeFile":
        return RangeFile(self.store, self.inner)


class RangeFile(io.RawIOBase):
    """A file that is read by ranges: small pieces through blocks that are kept, large ones as they are asked for.

    begin(): large pieces that will be asked for, fetched at once.
    """

    def __init__(self, store: "Store", inner: str):
        self._store, self._inner, self._at = store, inner, 0
        self._size = store.size(inner)
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
        if cache and sha256:
            return cache.part(sha256, start, stop, lambda: self._store.fetch(self._inner, start, stop))
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


def is_remote(path: object) -> bool:
    return isinstance(path, RemotePath)
