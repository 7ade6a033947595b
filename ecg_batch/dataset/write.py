"""Write: one shard as Zarr or HDF5, and Parquet, in its own staging folder, read back before anybody else sees it.

What may go wrong between a made record and the disk: blosc, and a file system that gives back other bytes than it was given. So
each chunk is decoded in memory and compared, and each file is read once, for the sha256 that its receipt states, and its crc32c
held against that of the bytes it was given.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

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

TITLE = "Synthetic 12-lead ECGs, made with ecg-batch from the beats of {} records"
# Blocks of nearly a MiB: by itself blosc takes 64 KiB at level 2, and to prepare zstd anew for each took a third of the time. Two
# fit into 2 MiB, from which on a worker's memory is mapped anew each time (synthesizer.py)
CODEC = blosc.Blosc("zstd", clevel=1, shuffle=blosc.BITSHUFFLE, blocksize=15 << 16)
MINUTE_CODEC = blosc.Blosc("zstd", clevel=2, shuffle=blosc.BITSHUFFLE)  # a minute of one record is 144 kB


@dataclass(frozen=True)
class Built:
    """A shard in its staging folder. files: path inside the dataset -> {bytes, sha256}; content: the raw int16; flags: as
    receipts.count_flags has them.
    """

    files: dict[str, dict]
    content_sha256: str
    flags: dict[str, object]


def array_metadata(plan: Plan) -> dict[str, bytes]:
    """Files that follow from the plan alone, by path inside the dataset: the zarr.json files and the coordinates, made in memory by
    zarr. None for HDF5, whose files describe themselves.
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
    store = {}
    attributes = {"title": TITLE.format("real" if source else "PTB-XL"), "Conventions": "CF-1.11"}
    attributes |= {"source": source} if source else {}
    group = zarr.create_group(MemoryStore(store), attributes=attributes)
    group.create_array(
        "ecg",
        shape=shape,
        shards=shards,
        chunks=chunks,
        dtype="int16",
        compressors=compressors(CODEC if shards[0] > 1 else MINUTE_CODEC),
        chunk_key_encoding={"name": "default", "separator": "."},
        fill_value=0,
        dimension_names=("record", "lead", "time"),
        attributes={"fs_hz": fs_hz, "units": "mV", "scale_factor": MV_PER_UV, "leads": list(LEADS),
                    "long_name": "12-lead electrocardiogram"},
    )  # fmt: skip
    for name, (values, attributes) in coordinates(shape[2] if shards[0] > 1 else None, fs_hz).items():
        _add_coordinate(group, name, values, attributes)
    return tuple((f"{ECG}/{name}", _tidy(name, data.to_bytes())) for name, data in sorted(store.items()))


def _add_coordinate(group: zarr.Group, name: str, values: np.ndarray, attributes: dict) -> None:
    """A small array of one chunk that names one dimension, as xarray wants it. fill_value must be a value that does not occur."""
    codec = BloscCodec(typesize=values.dtype.itemsize, cname="zstd", shuffle="bitshuffle")
    array = group.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=(name,),
                               compressors=[codec, Crc32cCodec()], fill_value=-1, attributes=attributes,
                               chunk_key_encoding={"name": "default", "separator": "."})  # fmt: skip
    array[:] = values


def _tidy(name: str, data: bytes) -> bytes:
    return to_json(json.loads(data)) if name.endswith("zarr.json") else data


def compressors(codec: blosc.Blosc) -> list:
    """zarr's own of a codec of numcodecs."""
    # crc32c last: without it 57 of 60 single-bit flips came back as silently wrong data, with it none did
    stated = {"cname": codec.cname, "clevel": codec.clevel, "shuffle": "bitshuffle", "blocksize": codec.blocksize}
    return [BloscCodec(typesize=2, **stated), Crc32cCodec()]


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
