"""Zarr-python's store of a folder below a URL: by our own fetches, with their tries, sums and words. For long records."""

from asyncio import to_thread
from collections.abc import AsyncIterator, Iterable

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from ecg_batch.remote.path import RemotePath
from ecg_batch.remote.receipts import absent
from ecg_batch.remote.shards import fetch_all, fetch_sound, fetch_sound_index


class ReadStore(Store):
    """A folder below a URL as zarr-python reads it. A chunk file that is absent is an error here and not zeros."""

    supports_writes = supports_deletes = supports_listing = supports_partial_writes = False

    def __init__(self, folder: RemotePath):
        super().__init__(read_only=True)
        self._folder = folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReadStore) and other._folder == self._folder

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        data = await to_thread(self._get, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _get(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        path, is_samples = self._folder / key, key.rpartition("/")[2].startswith("c.")
        try:
            if isinstance(wanted, RangeByteRequest):
                return fetch_sound(path, wanted.start, wanted.end)  # a chunk, which ends with its crc32c
            if isinstance(wanted, SuffixByteRequest):
                return fetch_sound_index(path, wanted.suffix)  # zarr-python asks for it at each reading
            data = fetch_all(path) if is_samples else bytes(path.store.whole(path.inner))
            return data[wanted.offset :] if isinstance(wanted, OffsetByteRequest) else data
        except FileNotFoundError:
            if is_samples:
                raise absent(path) from None
            return None

    async def get_partial_values(self, prototype: BufferPrototype,
                                 key_ranges: Iterable[tuple[str, ByteRequest | None]]) -> list[Buffer | None]:  # fmt: skip
        return [await self.get(key, prototype, wanted) for key, wanted in key_ranges]

    async def exists(self, key: str) -> bool:
        return await to_thread((self._folder / key).exists)

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    async def list(self) -> AsyncIterator[str]:
        raise NotImplementedError
        yield

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError
        yield

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError
        yield
