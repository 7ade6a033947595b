"""Write long records minute by minute: each is a Zarr shard file of its own, whatever its length held a minute at a time.

zarr-python writes a shard only whole: 24 hours would be 207 MB for each record of a batch. So the file is put together here, as
the sharding codec lays it down (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): chunks one after
another, each through the codecs of write.compressors (blosc, crc32c), then where each begins and how long it is, then a crc32c of
that index. Afterwards the file is read back and held against what was written. tests/test_holter.py compares with zarr-python's.
"""

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import blosc

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.parts import write_parts
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.write import Built, open_staged_array, sealed_files
from ecg_batch.leads import LEADS

CODEC = blosc.Blosc(cname="zstd", clevel=2, shuffle=blosc.BITSHUFFLE)  # as write.compressors says, without zarr's 2 ms a chunk
CHECKSUM_BYTES = 4


class ShardFile:
    """A Zarr shard file (1, 12, time) that grows by a chunk at a time."""

    def __init__(self, path: Path, chunk_samples: int):
        self.path, self._file = path, open(path, "wb")
        self._full = np.zeros((len(LEADS), chunk_samples), np.int16)
        self._index, self.digests = array("Q"), bytearray()  # of each chunk: where, how long; sha256 of what it holds

    def append(self, steps: np.ndarray) -> None:
        """Write the next chunk, int16 (12, time); a shorter one, which is the last, is filled up with 0."""
        self._full[:, : steps.shape[1]], self._full[:, steps.shape[1] :] = steps, 0
        data = CODEC.encode(self._full)
        self._index.extend((self._file.tell(), len(data) + CHECKSUM_BYTES))
        self._file.write(data + _crc32c(data))
        self.digests += _sha256(steps)

    def close(self) -> None:
        """Write the index and its checksum."""
        if not self._file.closed:
            index = np.array(self._index, dtype="<u8").tobytes()
            self._file.write(index + _crc32c(index))
            self._file.close()

    def read_back(self) -> Iterator[np.ndarray]:
        """The chunks as they are in the file, int16 (12, time). OSError where one is not what its crc32c says."""
        size = 8 * len(self._index)
        with open(self.path, "rb") as file:
            file.seek(-size - CHECKSUM_BYTES, 2)
            index = _checked(self.path, file.read())
            for offset, length in np.frombuffer(index, "<u8").reshape(-1, 2).tolist():
                file.seek(offset)
                yield np.frombuffer(CODEC.decode(_checked(self.path, file.read(length))), "<i2").reshape(self._full.shape)


def _sha256(steps: np.ndarray) -> bytes:
    return hashlib.sha256(_raw(steps)).digest()


def _raw(steps: np.ndarray) -> bytes:
    return np.ascontiguousarray(steps, dtype="<i2").tobytes()


def _crc32c(data: bytes) -> bytes:
    return google_crc32c.value(data).to_bytes(CHECKSUM_BYTES, "little")


def _checked(path: Path, data: bytes) -> bytes:
    if _crc32c(data[:-CHECKSUM_BYTES]) != data[-CHECKSUM_BYTES:]:
        raise OSError(f"{path}: the file system gave back other bytes than were written")
    return data[:-CHECKSUM_BYTES]


def build_streamed(plan: Plan, shard: Shard, made, staging: Path) -> Built:
    """Write a long.LongShard below staging, as it lies in the dataset, while it is made; read back; fsync.

    ValueError where it is not what the plan says; OSError where a file comes back other than it was written.
    """
    open_staged_array(plan, staging)
    files = [ShardFile(staging / name, plan.request.minute_samples) for name in plan.ecg_files(shard)]
    try:
        done = 0
        for block in made.blocks:  # int16 (record, 12, time)
            _check_block(plan, shard, block, done)
            for file, steps in zip(files, block, strict=True):
                file.append(steps)
            done += block.shape[-1]
    finally:
        for file in files:
            file.close()
    if done != plan.request.samples:
        raise ValueError(f"shard {shard.index}: the generator gave {done} samples; needed {plan.request.samples}")
    rows, beats = made.tables()
    write_parts(plan, shard, rows, beats, staging)
    return Built(sealed_files(plan, shard, staging), _read_back(plan, shard, files))


def _check_block(plan: Plan, shard: Shard, block: np.ndarray, done: int) -> None:
    needed = (shard.records, len(LEADS), min(plan.request.minute_samples, plan.request.samples - done))
    if block.shape != needed or block.dtype != np.int16:
        raise ValueError(f"shard {shard.index}: the generator gave {block.dtype} {block.shape}; needed int16 {needed}")


def _read_back(plan: Plan, shard: Shard, files: list[ShardFile]) -> str:
    """sha256 of the samples as they came back: of each record minute by minute, little-endian int16 (12, time)."""
    content = hashlib.sha256()
    for record, file in zip(range(shard.start, shard.stop), files, strict=True):
        digests = bytearray()
        for minute, steps in enumerate(file.read_back()):
            steps = steps[:, : plan.request.samples - minute * plan.request.minute_samples]
            digests += _sha256(steps)
            content.update(_raw(steps))
        if digests != file.digests:
            raise OSError(f"shard {shard.index}: the file system gave back other samples than were written, record {record}")
    return content.hexdigest()
