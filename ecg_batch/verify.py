"""Verify: is a dataset what it says it is? Every file against its sum, every record against the lead identities."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ecg_batch.batch import smaller_batches
from ecg_batch.commit import read_receipts
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.finalise import content_root, damaged_files, dataset_files, read_sums
from ecg_batch.leads import LEADS, identity_residual
from ecg_batch.plan import BEATS, ECG, FOLDERS, MANIFEST, PARTS, PLAN, RECORDS, SUMS, Plan, Shard, ecg_file, ecg_files, read_plan
from ecg_batch.request import CHUNK_RECORDS

LISTED = 5  # records or shards named in one line


def verify(folder: Path) -> Iterator[str]:
    """Each problem of a run's folder, finished or not, in words that name the file, shard or record. None = all is
    well.

    A file that is named once is not looked into again, so that one damage is one line.
    """
    finished = folder.suffix != ".partial"
    sums = read_sums(folder) if finished and (folder / SUMS).exists() else {}
    wrong = dict(_against_sums(folder, sums)) if finished else {}
    if PLAN not in wrong:
        try:
            plan = read_plan(folder)
        except UserError as error:
            yield str(error)
            return
        if not finished:
            wrong |= dict(_zarr_metadata(plan, folder, wrong))
    yield from (f"{name}: {problem}" for name, problem in wrong.items())
    if PLAN in wrong:
        return
    yield from _strays(plan, folder, finished)
    receipts = read_receipts(plan, folder)
    yield from _without_receipt(plan, receipts, wrong)
    yield from _shards(plan, folder, receipts, sums or {}, wrong)
    if finished:
        yield from _manifest(plan, folder, receipts, wrong)
        yield from _records(plan, folder, wrong)


def _against_sums(folder: Path, sums: dict[str, str] | None) -> Iterator[tuple[str, str]]:
    if sums is None:
        yield SUMS, "damaged: its last line is not the sha256 of the others. Compare with a copy, or make the run anew"
    elif not sums:
        yield SUMS, "absent, so nothing says what the files were"
    else:
        yield from damaged_files(folder, sums)


def _zarr_metadata(plan: Plan, folder: Path, wrong: dict[str, str]) -> Iterator[tuple[str, str]]:
    """These follow from the plan, so they can be checked where there are no sums yet. Where there are, a newer ecg-batch would
    write others (with coordinates, say), and what counts is what this dataset was finished with.
    """
    from ecg_batch.write import array_metadata

    for name, data in array_metadata(plan).items():
        if name not in wrong and (not (folder / name).exists() or (folder / name).read_bytes() != data):
            yield name, "damaged: not what the plan says"


def _strays(plan: Plan, folder: Path, finished: bool) -> Iterator[str]:
    known = {SUMS, *dataset_files(plan)}
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.relpath(os.path.join(parent, name), folder)
            if path not in known and (finished or path.split(os.sep)[0] not in FOLDERS):
                yield f"{path}: stray: no part of the dataset. Remove it"


def _without_receipt(plan: Plan, receipts: dict[int, dict], wrong: dict[str, str]) -> Iterator[str]:
    unread = [shard.index for shard in plan.shards if shard.index not in receipts]
    absent = [str(index) for index in unread if not {f"receipts/{index}.json", *ecg_files(plan, plan.shards[index])} & set(wrong)]
    if absent:
        yield f"{len(absent)} of {len(plan.shards)} shards have no valid receipt: {_some(absent)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def _shards(plan: Plan, folder: Path, receipts: dict, sums: dict[str, str], wrong: dict[str, str]) -> Iterator[str]:
    """Files of each shard against its receipt; then the samples in them."""
    readable = not any(name.endswith("zarr.json") for name in wrong)
    array = _open_samples(plan, folder) if readable else None
    for shard in plan.shards:
        receipt = receipts.get(shard.index)
        if receipt is None or f"receipts/{shard.index}.json" in wrong:
            continue
        problems = list(_shard_files(folder, receipt, sums, wrong))
        yield from problems
        if not problems and readable and not set(receipt["files"]) & set(wrong):
            yield from _samples(plan, array, shard, receipt["content_sha256"])


def _open_samples(plan: Plan, folder: Path):
    """[start:stop] gives records of it, from files that may still be absent."""
    if plan.request.format == "zarr":
        import zarr

        return zarr.open_array(folder / ECG / "ecg", mode="r")
    from ecg_batch.hdf5 import Hdf5Chunks

    files = tuple(folder / ecg_file(shard.index, "hdf5") for shard in plan.shards)
    return Hdf5Chunks(files, (plan.request.records, len(LEADS), plan.time_samples), CHUNK_RECORDS, plan.request.shard)


def _shard_files(folder: Path, receipt: dict, sums: dict[str, str], wrong: dict[str, str]) -> Iterator[str]:
    for name, stated in receipt["files"].items():
        merged = name.startswith(PARTS) and not (folder / name).exists()
        if name not in wrong and not merged and (sums.get(name) or sha256_file(folder / name)) != stated["sha256"]:
            yield f"{name}: damaged: its sha256 is not that of its receipt"


def _samples(plan: Plan, array, shard: Shard, stated_sha256: str) -> Iterator[str]:
    """Content digest and lead identities of a shard, a chunk at a time."""
    digest, broken = hashlib.sha256(), []
    try:
        for start, ecg in _chunks(plan, array, shard):  # ecg (record, 12, time), steps
            digest.update(ecg.astype("<i2", copy=False).tobytes())
            # half a step: the halves in aVR, aVL and aVF are rounded to whole steps
            broken += [str(start + row) for row in np.flatnonzero(identity_residual(ecg) > 0.5)]
    except (ValueError, RuntimeError, OSError, UserError) as error:
        yield f"shard {shard.index}: cannot be decoded: {error}"
        return
    if digest.hexdigest() != stated_sha256:
        yield f"shard {shard.index}: its samples are not those of its receipt"
    if broken:
        broken = list(dict.fromkeys(broken))  # a long record comes once a minute
        yield f"shard {shard.index}: the lead identities do not hold in {len(broken):,} records: {_some(broken)}"


def _chunks(plan: Plan, array, shard: Shard) -> Iterator[tuple[int, np.ndarray]]:
    """(first record, samples) of each chunk, in the order in which a shard's content is hashed."""
    if plan.request.is_streamed:
        for record in range(shard.start, shard.stop):
            for start in range(0, plan.time_samples, plan.minute_samples):
                yield record, array[record : record + 1, :, start : start + plan.minute_samples]
        return
    for start in range(shard.start, shard.stop, CHUNK_RECORDS):
        yield start, array[start : min(start + CHUNK_RECORDS, shard.stop)]


def _manifest(plan: Plan, folder: Path, receipts: dict[int, dict], wrong: dict[str, str]) -> Iterator[str]:
    if MANIFEST in wrong:
        return
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        stated = (manifest["run_id"], manifest["records"], manifest["shards"], manifest["content_root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{MANIFEST}: cannot be read: {error}"
        return
    if stated[:3] != (plan.run_id, plan.request.records, len(plan.shards)):
        yield f"{MANIFEST}: run id, records or shards are not those of {PLAN}"
    complete = len(receipts) == len(plan.shards) and not any(name.startswith("receipts/") for name in wrong)
    if complete and stated[3] != content_root([receipts[shard.index] for shard in plan.shards]):
        yield f"{MANIFEST}: its content root is not that of the receipts"
    smaller = smaller_batches(plan, [receipts[shard.index] for shard in plan.shards]) if complete else {}
    if complete and (manifest.get("smaller_batch", {}) != smaller or (smaller and plan.request.batch_on_oom != "halve")):
        yield f"{MANIFEST}: shards made with a smaller batch are not as the receipts say, or not allowed by the request"


def _records(plan: Plan, folder: Path, wrong: dict[str, str]) -> Iterator[str]:
    """records.parquet holds each record once, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if plan.request.is_long and BEATS not in wrong:
        yield from _beats(plan, folder)
    if RECORDS in wrong:
        return
    try:
        with pq.ParquetFile(folder / RECORDS) as file:
            start = 0
            for index in range(file.num_row_groups):
                found = file.read_row_group(index, columns=["record"])["record"].to_numpy()
                if not np.array_equal(found, np.arange(start, start + len(found))):
                    yield f"{RECORDS}: row group {index} does not hold the next {len(found):,} records from {start:,} on in order"
                start += len(found)
            if start != plan.request.records:
                yield f"{RECORDS}: {start:,} rows; needed {plan.request.records:,}"
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        yield f"{RECORDS}: cannot be read: {error}"


def _beats(plan: Plan, folder: Path) -> Iterator[str]:
    """beats.parquet holds annotations of each record, in order, inside the record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(folder / BEATS) as file:
            before, last = -1, 0  # record that was last, and its sample counted from the dataset's beginning
            for index in range(file.num_row_groups):
                rows = file.read_row_group(index, columns=["record", "sample"])
                record, sample = rows["record"].to_numpy(), rows["sample"].to_numpy()
                if not len(record):
                    yield f"{BEATS}: row group {index} is empty"
                    continue
                at = np.append(last, record * plan.time_samples + sample)
                inside = (sample >= 0) & (sample < plan.time_samples)
                if not inside.all() or (np.diff(at) < 0).any() or (np.diff(record, prepend=before) > 1).any():
                    yield f"{BEATS}: row group {index} does not hold the beats of its records in order"
                before, last = record[-1], at[-1]
            if before != plan.request.records - 1:
                yield f"{BEATS}: ends with record {before:,} of {plan.request.records:,}"
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        yield f"{BEATS}: cannot be read: {error}"
