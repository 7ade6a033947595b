"""Write long records minute by minute: each is a Zarr shard file of its own, whatever its length held a minute at a time.

zarr-python writes a shard only whole: 24 hours would be 207 MB for each record of a batch. Afterwards the file is read back and
held against what was written. tests/synthesis/long/test_holter.py compares with zarr-python's.
"""

import hashlib
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.parts import write_parts
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import count_flags
from ecg_batch.dataset.write import MINUTE_CODEC, Built, sealed_files
from ecg_batch.dataset.zarr_chunks import ShardFile
from ecg_batch.files import sync
from ecg_batch.leads import LEADS


def build_streamed(plan: Plan, shard: Shard, made, staging: Path) -> Built:
    """Write a long.LongShard below staging, as it lies in the dataset, while it is made; fsync; read back.

    ValueError where it is not what the plan says; OSError where a file comes back other than it was written.
    """
    names = plan.ecg_files(shard)
    (staging / names[0]).parent.mkdir(parents=True, exist_ok=True)
    files = [ShardFile(staging / name, (len(LEADS), plan.request.minute_samples), MINUTE_CODEC) for name in names]
    digests, done = [bytearray() for _ in files], 0  # of each record: sha256 of each minute
    try:
        for block in made.blocks:  # int16 (record, 12, time)
            _check_block(plan, shard, block, done)
            for file, digest, steps in zip(files, digests, block, strict=True):
                file.append(steps)
                digest += hashlib.sha256(_raw(steps)).digest()
            done += block.shape[-1]
    finally:
        given = {name: file.close() for name, file in zip(names, files, strict=True)}
    if done != plan.request.samples:
        raise ValueError(f"shard {shard.index}: the generator gave {done} samples; needed {plan.request.samples}")
    rows, beats = made.tables()
    given |= write_parts(plan, shard, rows, beats, staging)
    for name in plan.shard_files(shard):
        sync(staging / name)
    sealed = sealed_files(plan, shard, staging, given)
    return Built(sealed, _read_back(plan, shard, files, digests), count_flags(rows["flags"].to_pylist()))


def _raw(steps: np.ndarray) -> bytes:
    return np.ascontiguousarray(steps, dtype="<i2").tobytes()


def _check_block(plan: Plan, shard: Shard, block: np.ndarray, done: int) -> None:
    needed = (shard.records, len(LEADS), min(plan.request.minute_samples, plan.request.samples - done))
    if block.shape != needed or block.dtype != np.int16:
        raise ValueError(f"shard {shard.index}: the generator gave {block.dtype} {block.shape}; needed int16 {needed}")


def _read_back(plan: Plan, shard: Shard, files: list[ShardFile], digests: list[bytearray]) -> str:
    """sha256 of the samples as they came back: of each record minute by minute, little-endian int16 (12, time)."""
    content = hashlib.sha256()
    for record, file, written in zip(range(shard.start, shard.stop), files, digests, strict=True):
        found = bytearray()
        for minute, steps in enumerate(file.read_back()):
            raw = _raw(steps[:, : plan.request.samples - minute * plan.request.minute_samples])
            found += hashlib.sha256(raw).digest()
            content.update(raw)
        if found != written:
            raise OSError(f"shard {shard.index}: the file system gave back other samples than were written, record {record}")
    return content.hexdigest()
