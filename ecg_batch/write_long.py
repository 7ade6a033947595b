"""Write long records minute by minute: each is a Zarr shard file of its own, whatever its length held a minute at a time.

zarr-python writes a shard only whole: 24 hours would be 207 MB for each record of a batch. So the file is put together here, as
the sharding codec lays it down (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/): chunks one after
another, encoded by zarr's own codecs, then where each begins and how long it is, then a crc32c of that index. Afterwards it is
read back through zarr-python and held against what was written.
"""

import hashlib
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from zarr.storage import MemoryStore

from ecg_batch.leads import LEADS
from ecg_batch.plan import Plan, Shard, ecg_files
from ecg_batch.write import Built, compressors, open_staged_array, sealed_files, write_parts


class ShardFile:
    """A Zarr shard file (1, 12, time) that grows by a chunk at a time."""

    def __init__(self, path: Path, chunk_samples: int):
        self._file = open(path, "wb")
        self._store: dict = {}
        shape = (1, len(LEADS), chunk_samples)
        self._chunk = zarr.create_array(MemoryStore(self._store), shape=shape, chunks=shape, dtype="int16", fill_value=0,
                                        compressors=compressors(), config={"write_empty_chunks": True})  # fmt: skip
        self._index: list[tuple[int, int]] = []
        self.digests: list[bytes] = []

    def append(self, steps: np.ndarray) -> bytes:
        """Write the next chunk, int16 (12, time); a shorter one, which is the last, is filled up with 0. Returns its raw bytes."""
        full = np.zeros(self._chunk.shape, np.int16)
        full[0, :, : steps.shape[1]] = steps
        self._chunk[...] = full
        data = self._store["c/0/0/0"].to_bytes()
        self._index.append((self._file.tell(), len(data)))
        self._file.write(data)
        raw = np.ascontiguousarray(steps, dtype="<i2").tobytes()
        self.digests.append(hashlib.sha256(raw).digest())
        return raw

    def close(self) -> None:
        """Write the index and its checksum."""
        if not self._file.closed:
            index = np.array(self._index, dtype="<u8").tobytes()
            self._file.write(index + google_crc32c.value(index).to_bytes(4, "little"))
            self._file.close()


def build_streamed(plan: Plan, shard: Shard, made, staging: Path) -> Built:
    """Write a long.LongShard below staging, as it lies in the dataset, while it is made; read back; fsync.

    ValueError where it is not what the plan says; OSError where a file comes back other than it was written.
    """
    array = open_staged_array(plan, staging)
    files = [ShardFile(staging / name, plan.minute_samples) for name in ecg_files(plan, shard)]
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
    if done != plan.time_samples:
        raise ValueError(f"shard {shard.index}: the generator gave {done} samples; needed {plan.time_samples}")
    rows, beats = made.tables()
    write_parts(plan, shard, rows, beats, staging)
    return Built(sealed_files(plan, shard, staging), _read_back(plan, shard, array, files))


def _check_block(plan: Plan, shard: Shard, block: np.ndarray, done: int) -> None:
    needed = (shard.records, len(LEADS), min(plan.minute_samples, plan.time_samples - done))
    if block.shape != needed or block.dtype != np.int16:
        raise ValueError(f"shard {shard.index}: the generator gave {block.dtype} {block.shape}; needed int16 {needed}")


def _read_back(plan: Plan, shard: Shard, array, files: list[ShardFile]) -> str:
    """sha256 of the samples as they came back: of each record minute by minute, little-endian int16 (12, time)."""
    content = hashlib.sha256()
    for record, file in zip(range(shard.start, shard.stop), files, strict=True):
        for minute, digest in enumerate(file.digests):
            start = minute * plan.minute_samples
            raw = array[record, :, start : start + plan.minute_samples].astype("<i2", copy=False).tobytes()
            if hashlib.sha256(raw).digest() != digest:
                raise OSError(f"shard {shard.index}: the file system gave back other samples than were written, record {record}")
            content.update(raw)
    return content.hexdigest()
