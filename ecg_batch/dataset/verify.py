"""Verify: is a dataset what it says it is? Every file against its sum, every record against the lead identities."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import BEATS, ECG, FOLDERS, FORMAT, HDF5, MANIFEST, PARTS, PLAN, README, RECORDS, SUMS, Shard
from ecg_batch.dataset.manifest import content_root, dataset_files, read_manifest
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import read_receipts, smaller_batches
from ecg_batch.dataset.run import Run, read_run
from ecg_batch.dataset.sums import damaged_files, parse_sums
from ecg_batch.dataset.tables import DAMAGE, open_table
from ecg_batch.dataset.zarr_chunks import zarr_chunks
from ecg_batch.errors import UserError, clipped, number_of
from ecg_batch.files import link_or_odd, read_regular, sha256_file
from ecg_batch.leads import LEADS, identity_residual
from ecg_batch.progress import track
from ecg_batch.remote.path import RemotePath, is_remote
from ecg_batch.request.model import CHUNK_RECORDS

LONGEST = 600  # characters of a problem; names and errors of others are in it
LISTED = 5  # records or shards named in one line
ZARR_KEYS = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs",
             "dimension_names", "storage_transformers")  # fmt: skip
ZARR_ATTRIBUTES = ("fs_hz", "units", "scale_factor", "leads")
# what file systems and desktops leave anywhere: NFS for a file that is removed while open, macOS, Windows, FUSE
OF_THE_SYSTEM, OF_THE_SYSTEM_BEGIN = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory"), (".nfs", "._", ".fuse_hidden")


def verify(folder: Path) -> Iterator[str]:
    """Each problem of a run's folder, finished or not, in words that name the file, shard or record. None = all is
    well.

    A file that is named once is not looked into again, so that one damage is one line.
    """
    yield from (clipped(problem, LONGEST) for problem in _problems(folder))


def _problems(folder: Path) -> Iterator[str]:
    finished = folder.suffix != ".partial"
    sums, malformed = _sums(folder) if finished else ({}, [])
    yield from (f"{SUMS}: {problem}" for problem in malformed)
    wrong = dict(damaged_files(folder, _first(folder, sums)))
    if PLAN not in wrong:
        try:
            run = read_run(folder)
        except UserError as error:
            yield str(error)
            return
        wrong |= dict(_foreign(run, sums)) if sums else {}
        wrong |= dict(_zarr_meaning(run, wrong) if finished else _zarr_metadata(run, wrong))
    yield from (f"{name}: {problem}" for name, problem in wrong.items())
    if PLAN in wrong:
        return
    yield from _strays(run)
    receipts = read_receipts(run, whole=True)
    yield from _without_receipt(run.plan, receipts, wrong)
    yield from _shards(run, receipts, sums, wrong)
    if finished:
        yield from _manifest(run, receipts, wrong)
        yield from _readme(run, wrong)
        found = list(_records(run, wrong))
        yield from found
        if not found:
            yield from _parts(run, receipts, wrong)


def _first(folder: Path | RemotePath, sums: dict[str, str]) -> dict[str, str]:
    """What is held against its sum first: below a URL all but samples, which come shard by shard, so that each is fetched once."""
    if not is_remote(folder):
        return sums
    folder.store.trust(sums)
    small = {name: sha256 for name, sha256 in sums.items() if not _is_sample(name)}
    folder.store.warm(name for name in small if not link_or_odd(folder, name))
    return small


def _is_sample(name: str) -> bool:
    return name.startswith((f"{ECG}/ecg/c.", f"{HDF5}/"))


def _sums(folder: Path) -> tuple[dict[str, str], list[str]]:
    """(file -> sha256, what is wrong with SHA256SUMS itself)."""
    try:
        sums, problems = parse_sums(read_regular(folder / SUMS))
    except FileNotFoundError:
        return {}, ["absent, so nothing says what the files were"]
    except OSError as error:
        return {}, [f"cannot be read: {error.strerror}"]
    return sums, problems or ([] if sums else ["it names no file, so nothing says what the files were"])


def _foreign(run: Run, sums: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Names in SHA256SUMS that are no files of this dataset, and files that it does not name."""
    planned = set(dataset_files(run.plan))
    for name in sums.keys() - planned:
        yield name, f"named in {SUMS}, and no part of the dataset"
    for name in sorted(planned - sums.keys()):
        if (run.folder / name).exists() if is_remote(run.folder) else os.path.lexists(run.folder / name):
            yield name, f"not named in {SUMS}, so nothing says what it was"


def _zarr_meaning(run: Run, wrong: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Whether what zarr.json says of the samples is what the plan says: shape, type, codecs, leads, scale. Its other words may be
    those of another ecg-batch.
    """
    from ecg_batch.dataset.write import array_metadata

    name = f"{ECG}/ecg/zarr.json"
    planned = array_metadata(run.plan)
    if name not in planned or name in wrong:
        return
    try:
        stated, needed = json.loads(read_regular(run.folder / name)), json.loads(planned[name])
        differing = [key for key in ZARR_KEYS if _meant(stated.get(key)) != _meant(needed[key])]
        differing += [key for key in ZARR_ATTRIBUTES if stated["attributes"].get(key) != needed["attributes"][key]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield name, f"cannot be read: {str(error)[:100]}"
        return
    if differing:
        yield name, f"damaged: {', '.join(differing)} not what the plan says"


def _meant(value: object) -> object:
    """What zarr.json says, without how hard blosc tried, which each chunk says of itself and other versions do otherwise."""
    if isinstance(value, dict):
        return {name: _meant(inner) for name, inner in value.items() if name not in ("clevel", "blocksize")}
    return [_meant(inner) for inner in value] if isinstance(value, list) else value


def _zarr_metadata(run: Run, wrong: dict[str, str]) -> Iterator[tuple[str, str]]:
    """These follow from the plan, so they can be checked where there are no sums yet. Where there are, a newer ecg-batch would
    write others (with coordinates, say), and what counts is what this dataset was finished with.
    """
    from ecg_batch.dataset.write import array_metadata

    for name, data in array_metadata(run.plan).items():
        if name not in wrong and (not (run.folder / name).exists() or (run.folder / name).read_bytes() != data):
            yield name, "damaged: not what the plan says"


def _strays(run: Run) -> Iterator[str]:
    known = {SUMS, *dataset_files(run.plan)}
    if is_remote(run.folder):
        names = run.folder.store.names() or ()  # http has no lists
        ours = (one for one in names if not one.rpartition("/")[2].startswith(OF_THE_SYSTEM_BEGIN + OF_THE_SYSTEM))
        yield from (f"{name}: stray: no part of the dataset. Remove it" for name in sorted(set(ours) - known))
        return
    for parent, folders, names in sorted(os.walk(run.folder)):
        for name in sorted([*names, *(one for one in folders if os.path.islink(os.path.join(parent, one)))]):
            path = os.path.relpath(os.path.join(parent, name), run.folder)
            if name in OF_THE_SYSTEM or name.startswith(OF_THE_SYSTEM_BEGIN):
                continue
            if path not in known and (run.is_finished or path.split(os.sep)[0] not in FOLDERS):
                yield f"{path}: stray: no part of the dataset. Remove it"


def _without_receipt(plan: Plan, receipts: dict[int, dict], wrong: dict[str, str]) -> Iterator[str]:
    unread = [shard.index for shard in plan.shards if shard.index not in receipts]
    absent = [str(index) for index in unread if not {f"receipts/{index}.json", *plan.ecg_files(plan.shards[index])} & set(wrong)]
    if absent:
        yield f"not finished: {len(absent)} of {number_of(len(plan.shards), 'shard', 'have')} no valid receipt: {_some(absent)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def _shards(run: Run, receipts: dict, sums: dict[str, str], wrong: dict[str, str]) -> Iterator[str]:
    """Files of each shard against its receipt; then the samples in them."""
    readable = not any(name.endswith("zarr.json") for name in wrong)
    try:
        array = _open_samples(run) if readable else None
    except DAMAGE as error:  # its zarr.json is absent, say
        yield f"{ECG}/ecg: cannot be opened: {' '.join(str(error).split())[:200]}"
        readable, array = False, None
    for shard in track(run.shards, "verify", "shards"):
        receipt, names = receipts.get(shard.index), run.plan.ecg_files(shard)
        if is_remote(run.folder):
            here = dict(damaged_files(run.folder, {name: sums[name] for name in names if name in sums}, quiet=True))
            yield from (f"{name}: {problem}" for name, problem in here.items())
            wrong |= here
        if receipt is None or f"receipts/{shard.index}.json" in wrong:
            continue
        problems = list(_shard_files(run.folder, receipt, sums, wrong))
        yield from problems
        if not problems and readable and not set(receipt["files"]) & set(wrong):
            yield from _samples(run.plan, array, shard, receipt["content_sha256"])
        if is_remote(run.folder):
            for name in names:
                run.folder.store.forget(name)


def _open_samples(run: Run):
    """[start:stop] gives records of it, from files that may still be absent."""
    if run.request.format == "zarr":
        import zarr

        folder = run.folder / ECG / "ecg"
        if is_remote(folder):
            from ecg_batch.remote.zarr_store import ReadStore

            return zarr_chunks(folder) or zarr.open_array(ReadStore(folder), mode="r", zarr_format=3)
        return zarr.open_array(folder, mode="r", zarr_format=3)
    from ecg_batch.dataset.hdf5 import Hdf5Chunks

    files = tuple(run.folder / run.plan.ecg_files(shard)[0] for shard in run.shards)
    return Hdf5Chunks(files, (run.request.records, len(LEADS), run.request.samples), CHUNK_RECORDS, run.request.shard)


def _shard_files(folder: Path, receipt: dict, sums: dict[str, str], wrong: dict[str, str]) -> Iterator[str]:
    for name, stated in receipt["files"].items():
        merged = name.startswith(PARTS) and (is_remote(folder) or not (folder / name).exists())
        if name in wrong or merged:
            continue
        if odd := link_or_odd(folder, name):
            yield f"{name}: not checked: {odd}"
        elif (sums.get(name) or sha256_file(folder / name)) != stated["sha256"]:
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
        yield f"shard {shard.index}: the lead identities do not hold in {number_of(len(broken), 'record')}: {_some(broken)}"


def _chunks(plan: Plan, array, shard: Shard) -> Iterator[tuple[int, np.ndarray]]:
    """(first record, samples) of each chunk, in the order in which a shard's content is hashed."""
    if plan.request.is_streamed:
        for record in range(shard.start, shard.stop):
            for start in range(0, plan.request.samples, plan.request.minute_samples):
                yield record, array[record : record + 1, :, start : start + plan.request.minute_samples]
        return
    for start in range(shard.start, shard.stop, CHUNK_RECORDS):
        yield start, array[start : min(start + CHUNK_RECORDS, shard.stop)]


def _manifest(run: Run, receipts: dict[int, dict], wrong: dict[str, str]) -> Iterator[str]:
    if MANIFEST in wrong:
        return
    try:
        manifest = read_manifest(run.folder)
    except UserError as error:
        yield str(error).removeprefix(f"{run.folder}/")
        return
    planned = {"format": FORMAT, "run_id": run.plan.run_id, "records": run.request.records, "shards": len(run.shards),
               "request": run.request.resolved(), "inputs_sha256": run.plan.inputs, "versions": run.plan.versions}  # fmt: skip
    planned = json.loads(json.dumps(planned))  # tuples are lists there
    if differing := [key for key, value in planned.items() if manifest.get(key) != value]:
        yield f"{MANIFEST}: {', '.join(differing)} not what {PLAN} says"
    complete = len(receipts) == len(run.shards) and not any(name.startswith("receipts/") for name in wrong)
    if complete and manifest.get("content_root") != content_root([receipts[shard.index] for shard in run.shards]):
        yield f"{MANIFEST}: its content root is not that of the receipts"
    smaller = smaller_batches(run.plan, [receipts[shard.index] for shard in run.shards]) if complete else {}
    if complete and (manifest.get("smaller_batch", {}) != smaller or (smaller and run.request.batch_on_oom != "halve")):
        yield f"{MANIFEST}: shards made with a smaller batch are not as the receipts say, or not allowed by the request"


def _readme(run: Run, wrong: dict[str, str]) -> Iterator[str]:
    """README.md names licence and source, which plan.json states and nothing else does. Held against what this version writes."""
    from ecg_batch.dataset.plan import software_versions
    from ecg_batch.dataset.readme import TABLES, readme

    if README in wrong or software_versions()["ecg-batch"] != run.plan.versions.get("ecg-batch"):
        return
    if any(name in wrong for name in TABLES):  # it lists those that are there
        return
    try:
        found = read_regular(run.folder / README)
    except OSError as error:
        yield f"{README}: cannot be read: {error.strerror}"
        return
    if found != readme(run).encode():
        yield f"{README}: not what {PLAN} says: of another source, or changed"


def _parts(run: Run, receipts: dict[int, dict], wrong: dict[str, str]) -> Iterator[str]:
    """Rows and beats of each shard, written again as its task wrote them, against its receipt: who signs another table must sign
    other receipts too. Only where pyarrow is the one that wrote them, since the bytes of Parquet are its own.
    """
    from ecg_batch.dataset.plan import software_versions

    if software_versions()["pyarrow"] != run.plan.versions.get("pyarrow") or not receipts:
        return
    from ecg_batch.dataset.parts import stated_parts

    for whole in run.plan.part_files(run.shards[0]):
        if whole in wrong:
            continue
        try:
            for shard, found in stated_parts(run, whole):
                stated = receipts.get(shard.index, {}).get("files", {}).get(run.plan.part_files(shard)[whole])
                if stated and f"receipts/{shard.index}.json" not in wrong and stated != found:
                    yield f"{whole}: records {shard.start:,} to {shard.stop - 1:,} are not those of shard {shard.index}'s receipt"
        except DAMAGE as error:
            yield f"{whole}: cannot be read: {' '.join(str(error).split())[:200]}"


def _records(run: Run, wrong: dict[str, str]) -> Iterator[str]:
    """records.parquet holds each record once, in order."""
    if run.plan.has_beats and BEATS not in wrong:
        yield from _beats(run)
    if RECORDS in wrong:
        return
    try:
        with open_table(run.folder / RECORDS) as file:
            start = 0
            for index in range(file.num_row_groups):
                found = file.read_row_group(index, columns=["record"])["record"].to_numpy()
                if not np.array_equal(found, np.arange(start, start + len(found))):
                    yield f"{RECORDS}: row group {index} does not hold the next {len(found):,} records from {start:,} on in order"
                start += len(found)
            if start != run.request.records:
                yield f"{RECORDS}: {number_of(start, 'row')}; needed {run.request.records:,}"
    except DAMAGE as error:
        yield f"{RECORDS}: cannot be read: {error}"


def _beats(run: Run) -> Iterator[str]:
    """beats.parquet holds annotations of each record, in order, inside the record, and the waves of a beat in theirs."""
    from ecg_batch.dataset.beats import BEAT_COLUMNS, WAVE_COLUMNS, in_order, waves_ms

    try:
        with open_table(run.folder / BEATS) as file:
            waves = WAVE_COLUMNS if run.plan.annotated else ()
            if run.plan.annotated and file.schema_arrow.names != list(BEAT_COLUMNS):
                yield f"{BEATS}: its columns are {', '.join(file.schema_arrow.names)}; needed {', '.join(BEAT_COLUMNS)}"
                return
            before, last = -1, 0  # record that was last, and its sample counted from the dataset's beginning
            for index in range(file.num_row_groups):
                rows = file.read_row_group(index, columns=["record", "sample", *waves])
                record, sample = rows["record"].to_numpy(), rows["sample"].to_numpy()
                if not len(record):
                    yield f"{BEATS}: row group {index} is empty"
                    continue
                at = np.append(last, record * run.request.samples + sample)
                inside = (sample >= 0) & (sample < run.request.samples)
                if not inside.all() or (np.diff(at) < 0).any() or (np.diff(record, prepend=before) > 1).any():
                    yield f"{BEATS}: row group {index} does not hold the beats of its records in order"
                if waves and not in_order(waves_ms(rows)):
                    yield f"{BEATS}: row group {index} holds a beat whose waves are not in order"
                before, last = record[-1], at[-1]
            if before != run.request.records - 1:
                yield f"{BEATS}: ends with record {before:,} of {run.request.records:,}"
    except DAMAGE as error:
        yield f"{BEATS}: cannot be read: {error}"
