"""Finalise: a run whose shards are all there becomes a dataset. The rename of NAME.partial to NAME is its last act.

Each step writes whole files in one move, and the sums come after everything they cover, so a rerun works from any
point at which finalise was killed, and two finalisers at once write the same bytes.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ecg_batch.dataset.clearing import clear
from ecg_batch.dataset.croissant import croissant
from ecg_batch.dataset.layout import CROISSANT, FAILURES, MANIFEST, PARTS, PLAN, README, STAGING, SUMS, Shard
from ecg_batch.dataset.manifest import Shards, make_manifest, sums_text
from ecg_batch.dataset.readme import readme
from ecg_batch.dataset.receipts import missing, read_receipt
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.sums import damaged_files, read_sums
from ecg_batch.errors import UserError, number_of
from ecg_batch.files import sha256_file, sync, to_json, write_over
from ecg_batch.pool import in_threads
from ecg_batch.progress import progress


def finalise(run: Run) -> None:
    """Turn NAME.partial into NAME. UserError naming what is missing or damaged; quiet where another was quicker."""
    try:
        with _alone(run.folder):
            for _ in finalise_steps(run):
                pass
    except (FileNotFoundError, UserError):  # the folder went away under us: another finaliser was quicker
        if run.folder.exists() or not (run.out / PLAN).exists():
            raise


def finalise_steps(run: Run) -> Iterator[str]:
    """The steps, each named once it is done; the tests stop between any two of them."""
    from ecg_batch.dataset.parts import merge

    if run.is_sealed:  # a former finalise got this far, and may have removed parts already
        _refuse_damage(run.folder)
    else:
        _refuse_gaps(run)
        shards, sums = Shards(run.plan), {}
        merged = merge(run, _checked_groups(run, shards, sums))
        yield "shards checked"
        for name, path in merged.items():
            os.replace(path, run.folder / name)
        sync(run.folder)
        yield "records merged"
        manifest = make_manifest(run.plan, shards)
        write_over(run.folder / MANIFEST, to_json(manifest), run.staging)
        yield "manifest written"
        write_over(run.folder / CROISSANT, to_json(croissant(run, manifest["content_root"])), run.staging)
        write_over(run.folder / README, readme(run).encode(), run.staging)
        yield "croissant written"
        write_over(run.folder / SUMS, sums_text(run, sums), run.staging)
        yield "sums written"
    for name in (STAGING, PARTS, FAILURES):  # staging first: without it, tasks still at work know that they are done
        clear(run, name)
        yield f"{name} removed"
    os.rename(run.folder, run.out)
    sync(run.out.parent)
    yield "renamed"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One finaliser at a time where the file system knows locks. Where it does not, two do the same work twice."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _refuse_gaps(run: Run) -> None:
    if absent := missing(run):
        shown = ", ".join(str(shard.index) for shard in absent[:20]) + (" ..." if len(absent) > 20 else "")
        raise UserError(
            f"{len(absent)} of {number_of(len(run.shards), 'shard', 'have')} no receipt: {shown}. Run the same command again; "
            "finished shards are kept"
        )


def _checked_groups(run: Run, shards: Shards, sums: dict[str, str]) -> Iterator[tuple[Shard, ...]]:
    """The shards of each row group, in order, once every file of them was read again and held against its receipt. What the
    manifest states of them is added up, and the sha256 of the files that stay are noted: whole receipts take 3 kB each.

    By groups, since threads that look into small files wait for each other.
    """
    from ecg_batch.dataset.parts import row_groups

    with progress(len(run.shards), "check", "shards") as state:
        groups = row_groups(run.plan)
        checked = in_threads(lambda group: [_checked(run, shard) for shard in group], groups)
        for group, receipts in zip(groups, checked, strict=True):
            for shard, receipt in zip(group, receipts, strict=True):
                shards.add(receipt)
                sums |= {name: receipt["files"][name]["sha256"] for name in run.plan.ecg_files(shard)}
            state.update(len(group))
            yield group


def _checked(run: Run, shard: Shard) -> dict:
    if (receipt := read_receipt(run, shard.index)) is None:
        raise UserError(f"{run.receipt(shard.index)}: gone or damaged since this run was looked at. Run the same command again")
    for name, stated in receipt["files"].items():
        if sha256_file(run.folder / name) != stated["sha256"]:
            raise UserError(
                f"{run.folder / name}: damaged: its sha256 is not that of its receipt. Delete "
                f"{run.receipt(shard.index)} and run the same command again; only that shard is "
                "made anew"
            )
    return receipt


def _refuse_damage(folder: Path) -> None:
    sums = read_sums(folder)
    wrong = [(SUMS, "damaged")] if sums is None else list(damaged_files(folder, sums))
    if wrong:
        named = "; ".join(f"{name} {problem}" for name, problem in wrong[:5])
        raise UserError(
            f"{folder}: {named}. Delete {SUMS} and the receipts of damaged shards, and run the same command again; "
            "what is whole is kept, the rest made anew"
        )
