"""Write: one shard as Zarr or HDF5, and Parquet, in its own staging folder, read back before anybody else sees it."""

import hashlib
from collections.abc import Callable, Iterable
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
from ecg_batch.files import sha256_file, sync, to_json
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.request.model import CHUNK_RECORDS
from ecg_batch.zarr_layout import array_layout, group_layout

TITLE = "Synthetic 12-lead ECGs, made with ecg-batch from the beats of {} records"

# crc32c comes last: without it 57 of 60 single-bit flips came back as silently wrong data, with it none did
PACKED = {"cname": "zstd", "clevel": 2, "shuffle": "bitshuffle", "blocksize": 0}

blosc.use_threads = False  # its threads put blocks down in the order they finish: other bytes each time


@dataclass(frozen=True)
class Built:
    """A shard in its staging folder. files: path inside the dataset -> {bytes, sha256}; content: the raw int16."""

    files: dict[str, dict]
    content_sha256: str


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
    axes = ["record", "lead", "time"]
    attributes = {"title": TITLE.format("real" if source else "PTB-XL"), "Conventions": "CF-1.11"}
    ecg = array_layout(list(shape), np.dtype(np.int16), list(chunks), list(shards), PACKED, said, dimension_names=axes)
    files = {"zarr.json": group_layout(attributes | ({"source": source} if source else {})), "ecg/zarr.json": ecg}
    for name, (values, attributes) in coordinates(shape[2] if shards[0] > 1 else None, fs_hz).items():
        files |= _coordinate(name, values, attributes)
    return tuple((f"{ECG}/{name}", data if isinstance(data, bytes) else to_json(data)) for name, data in sorted(files.items()))


def _coordinate(name: str, values: np.ndarray, attributes: dict) -> dict[str, dict | bytes]:
    """A small array of one chunk that names one dimension, as xarray wants it. fill_value must be a value that does not occur."""
    layout = array_layout([len(values)], values.dtype, [len(values)], None, PACKED | {"clevel": 5}, attributes, -1, [name])
    data = blosc.compress(values, b"zstd", 5, blosc.BITSHUFFLE)
    return {f"{name}/zarr.json": layout, f"{name}/c.0": data + google_crc32c.value(data).to_bytes(4, "little")}


def build_shard(plan: Plan, shard: Shard, ecg: np.ndarray, rows: pa.Table, staging: Path, beats: Iterable[pa.Table] = ()) -> Built:
    """Write ecg int16 (record, lead, time), its rows and beats below staging, as they lie in the dataset; read back; fsync.

    ValueError where they are not what the plan says; OSError where a file comes back other than it was written.
    """
    _check_shape(plan, shard, ecg)
    _write_ecg(plan, shard, ecg, staging)
    write_parts(plan, shard, rows, beats, staging)
    return Built(sealed_files(plan, shard, staging), content_sha256(ecg))


def sealed_files(plan: Plan, shard: Shard, staging: Path) -> dict[str, dict]:
    """The files of a shard, brought to the disk: name -> {bytes, sha256}."""
    for name in plan.shard_files(shard):
        sync(staging / name)
    return {
        name: {"bytes": (staging / name).stat().st_size, "sha256": sha256_file(staging / name)} for name in plan.shard_files(shard)
    }


def content_sha256(ecg: np.ndarray) -> str:
    """sha256 of the samples themselves: little-endian int16 in C order, whatever the compression."""
    return hashlib.sha256(np.ascontiguousarray(ecg, dtype="<i2")).hexdigest()


def _check_shape(plan: Plan, shard: Shard, ecg: np.ndarray) -> None:
    needed = (shard.records, len(LEADS), plan.request.samples)
    if ecg.shape != needed or ecg.dtype != np.int16:
        raise ValueError(f"shard {shard.index}: the generator gave {ecg.dtype} {ecg.shape}; needed int16 {needed}")


def _write_ecg(plan: Plan, shard: Shard, ecg: np.ndarray, staging: Path) -> None:
    if plan.request.format == "hdf5":
        path = staging / plan.ecg_files(shard)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        hdf5.write(path, ecg, np.arange(shard.start, shard.stop), CHUNK_RECORDS, plan.request.fs_hz)
        chunks = hdf5.Hdf5Chunks((path,), ecg.shape, CHUNK_RECORDS, shard.records)
        _read_back(shard, ecg, lambda start, stop: chunks[start:stop])
    else:
        array = open_staged_array(plan, staging)
        array[shard.start : shard.stop] = ecg  # in one call: piece by piece, a shard would be read and rewritten for each piece
        _read_back(shard, ecg, lambda start, stop: array[shard.start + start : shard.start + stop])


def open_staged_array(plan: Plan, staging: Path) -> "zarr.Array":  # noqa: F821
    """The dataset's array in a staging folder, made there of its metadata alone."""
    import zarr

    for name, data in array_metadata(plan).items():
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(data)
    return zarr.open_array(staging / ECG / "ecg", mode="r+")


def _read_back(shard: Shard, ecg: np.ndarray, read: Callable[[int, int], np.ndarray]) -> None:
    for start in range(0, shard.records, CHUNK_RECORDS):  # by chunk: no second copy of the shard in memory
        piece = ecg[start : start + CHUNK_RECORDS]
        if not np.array_equal(read(start, start + len(piece)), piece):
            raise OSError(f"shard {shard.index}: the file system gave back other samples than were written at record {start}")
