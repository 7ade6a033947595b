"""Write: one shard as Zarr or HDF5, and Parquet, in its own staging folder, read back before anybody else sees it.

What may go wrong between a made record and the disk: blosc, and a file system that gives back other bytes than it was given. So
each chunk is decoded in memory and compared, and each file is read once, for the sha256 that its receipt states, and its crc32c
held against that of the bytes it was given.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
from numcodecs import blosc

from ecg_batch.dataset import hdf5
from ecg_batch.dataset.coordinates import coordinates
from ecg_batch.dataset.layout import ECG, Shard
from ecg_batch.dataset.parts import write_parts
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import count_flags
from ecg_batch.dataset.zarr_chunks import ShardFile
from ecg_batch.files import sums_of_file, sync, to_json
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.request.model import CHUNK_RECORDS
from ecg_batch.zarr_layout import array_layout, group_layout

TITLE = "Synthetic 12-lead ECGs, made with ecg-batch from the beats of {} records"
# Blocks of nearly a MiB: by itself blosc takes 64 KiB at level 2, and to prepare zstd anew for each took a third of the time. Two
# fit into 2 MiB, from which on a worker's memory is mapped anew each time (synthesizer.py)
CODEC = blosc.Blosc("zstd", clevel=1, shuffle=blosc.BITSHUFFLE, blocksize=15 << 16)
MINUTE_CODEC = blosc.Blosc("zstd", clevel=2, shuffle=blosc.BITSHUFFLE)  # a minute of one record is 144 kB
COORDINATE_CODEC = blosc.Blosc("zstd", clevel=5, shuffle=blosc.BITSHUFFLE)


@dataclass(frozen=True)
class Built:
    """A shard in its staging folder. files: path inside the dataset -> {bytes, sha256}; content: the raw int16; flags: as
    receipts.count_flags has them.
    """

    files: dict[str, dict]
    content_sha256: str
    flags: dict[str, object]


def array_metadata(plan: Plan) -> dict[str, bytes]:
    """Files that follow from the plan alone, by path inside the dataset: the zarr.json files and the coordinates. None for
    HDF5, whose files describe themselves.
    """
    if plan.request.format == "hdf5":
        return {}
    shape = (plan.request.records, len(LEADS), plan.request.samples)
    return dict(_zarr_files(shape, *_layout(plan), plan.request.fs_hz, plan.source))


def _layout(plan: Plan) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Shape of a Zarr shard and of a chunk: many whole records, or one record in chunks of a minute."""
    if plan.request.is_streamed:
        minutes = -(-plan.request.samples // plan.request.minute_samples)
        return (1, len(LEADS), minutes * plan.request.minute_samples), (1, len(LEADS), plan.request.minute_samples)
    return (plan.request.shard, len(LEADS), plan.request.samples), (CHUNK_RECORDS, len(LEADS), plan.request.samples)


@lru_cache(maxsize=1)
def _zarr_files(shape: tuple, shards: tuple, chunks: tuple, fs_hz: int, source: str) -> tuple[tuple[str, bytes], ...]:
    said = {"fs_hz": fs_hz, "units": "mV", "scale_factor": MV_PER_UV, "leads": list(LEADS),
            "long_name": "12-lead electrocardiogram"}  # fmt: skip
    sizes, packed = map(list, (shape, chunks, shards)), _stated(CODEC if shards[0] > 1 else MINUTE_CODEC)
    attributes = {"title": TITLE.format("real" if source else "PTB-XL"), "Conventions": "CF-1.11"}
    files = {
        "zarr.json": group_layout(attributes | ({"source": source} if source else {})),
        "ecg/zarr.json": array_layout(*sizes, np.dtype(np.int16), packed, said, axes=["record", "lead", "time"]),
    }
    for name, (values, attributes) in coordinates(shape[2] if shards[0] > 1 else None, fs_hz).items():
        files |= _coordinate(name, values, attributes)
    return tuple((f"{ECG}/{name}", data if isinstance(data, bytes) else to_json(data)) for name, data in sorted(files.items()))


def _coordinate(name: str, values: np.ndarray, attributes: dict) -> dict[str, dict | bytes]:
    """A small array of one chunk that names one dimension, as xarray wants it. fill_value must be a value that does not occur."""
    size, data = [len(values)], COORDINATE_CODEC.encode(values)
    layout = array_layout(size, size, None, values.dtype, _stated(COORDINATE_CODEC), attributes, fill_value=-1, axes=[name])
    return {f"{name}/zarr.json": layout, f"{name}/c.0": data + google_crc32c.value(data).to_bytes(4, "little")}


def _stated(codec: blosc.Blosc) -> dict:
    """A codec as zarr.json has it."""
    return {"cname": codec.cname, "clevel": codec.clevel, "shuffle": "bitshuffle", "blocksize": codec.blocksize}


def build_shard(plan: Plan, shard: Shard, ecg: np.ndarray, rows: pa.Table, staging: Path, beats: Iterable[pa.Table] = ()) -> Built:
    """Write ecg int16 (record, lead, time), its rows and beats below staging, as they lie in the dataset; fsync; read back.

    ValueError where they are not what the plan says; OSError where a file comes back other than it was written.
    """
    _check_shape(plan, shard, ecg)
    given = (_write_hdf5 if plan.request.format == "hdf5" else _write_zarr)(plan, shard, ecg, staging)
    with ThreadPoolExecutor(1) as beside:  # the disk takes the files while rows are written and samples hashed
        synced = [beside.submit(sync, staging / name) for name in plan.ecg_files(shard)]
        given |= write_parts(plan, shard, rows, beats, staging)
        synced += [beside.submit(sync, staging / name) for name in plan.part_files(shard).values()]
        content = content_sha256(ecg)
        for one in synced:
            one.result()
    return Built(sealed_files(plan, shard, staging, given), content, count_flags(rows["flags"].to_pylist()))


def sealed_files(plan: Plan, shard: Shard, staging: Path, given: dict[str, int]) -> dict[str, dict]:
    """The files of a shard, which are on the disk by now: name -> {bytes, sha256}. given: name -> crc32c of what was written.

    OSError where a file gives back something else.
    """
    sealed = {}
    for name in plan.shard_files(shard):
        size, sha256, crc32c = sums_of_file(staging / name)
        if given.get(name, crc32c) != crc32c:
            raise OSError(f"shard {shard.index}: {name}: the file system gave back other bytes than were written")
        sealed[name] = {"bytes": size, "sha256": sha256}
    return sealed


def content_sha256(ecg: np.ndarray) -> str:
    """sha256 of the samples themselves: little-endian int16 in C order, whatever the compression."""
    return hashlib.sha256(np.ascontiguousarray(ecg, dtype="<i2")).hexdigest()


def _check_shape(plan: Plan, shard: Shard, ecg: np.ndarray) -> None:
    needed = (shard.records, len(LEADS), plan.request.samples)
    if ecg.shape != needed or ecg.dtype != np.int16:
        raise ValueError(f"shard {shard.index}: the generator gave {ecg.dtype} {ecg.shape}; needed int16 {needed}")


def _write_zarr(plan: Plan, shard: Shard, ecg: np.ndarray, staging: Path) -> dict[str, int]:
    """The shard file; its name -> its crc32c. The bytes that zarr-python would write."""
    (name,), chunk = plan.ecg_files(shard), (CHUNK_RECORDS, *ecg.shape[1:])
    (staging / name).parent.mkdir(parents=True, exist_ok=True)
    file, back = ShardFile(staging / name, chunk, CODEC), np.empty(chunk, np.int16)
    try:
        for start in range(0, plan.request.shard, CHUNK_RECORDS):
            piece = ecg[start : start + CHUNK_RECORDS]
            if not (piece[:1].any() or piece.any()):  # nor beyond the last record
                file.skip()
                continue
            blosc.decompress(file.append(piece), back)
            if not np.array_equal(back[: len(piece)], piece):
                raise OSError(f"shard {shard.index}: blosc gave back other samples than were compressed, from record {start} on")
    finally:
        given = {name: file.close()}
    return given


def _write_hdf5(plan: Plan, shard: Shard, ecg: np.ndarray, staging: Path) -> dict[str, int]:
    """The HDF5 file, read back chunk by chunk: no second copy of the shard in memory. What HDF5 writes where has no sum."""
    path = staging / plan.ecg_files(shard)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    hdf5.write(path, ecg, np.arange(shard.start, shard.stop), CHUNK_RECORDS, plan.request.fs_hz)
    chunks = hdf5.Hdf5Chunks((path,), ecg.shape, CHUNK_RECORDS, shard.records)
    for start in range(0, shard.records, CHUNK_RECORDS):
        piece = ecg[start : start + CHUNK_RECORDS]
        if not np.array_equal(chunks[start : start + len(piece)], piece):
            raise OSError(f"shard {shard.index}: the file system gave back other samples than were written at record {start}")
    return {}
