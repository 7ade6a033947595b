"""Path: a file or folder below a URL, where readers otherwise have a pathlib.Path. Only what readers ask is there."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecg_batch.remote.store import Store


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


def is_remote(path: object) -> bool:
    return isinstance(path, RemotePath)
