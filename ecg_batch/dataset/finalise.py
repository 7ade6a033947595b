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
from ecg_batch.dataset.layout import CROISSANT, FAILURES, MANIFEST, PARTS, PLAN, README, STAGING, SUMS
from ecg_batch.dataset.manifest import make_manifest, sums_text
from ecg_batch.dataset.readme import readme
from ecg_batch.dataset.receipts import read_receipts
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.sums import damaged_files, read_sums
from ecg_batch.errors import UserError, number_of
from ecg_batch.files import sha256_file, sync, to_json, write_over
from ecg_batch.pool import in_threads
from ecg_batch.progress import track


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
    from ecg_batch.dataset.parts import merge_parts

    if run.is_sealed:  # a former finalise got this far, and may have removed parts already
        _refuse_damage(run.folder)
    else:
        receipts = _complete_receipts(run)
        sums = _checked_sums(run, receipts)
        yield "shards checked"
        merge_parts(run)
        yield "records merged"
        manifest = make_manifest(run.plan, receipts)
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


def _complete_receipts(run: Run) -> list[dict]:
    """Receipts of all shards in order."""
    receipts = read_receipts(run, whole=True)
    absent = [str(shard.index) for shard in run.shards if shard.index not in receipts]
    if absent:
        shown = ", ".join(absent[:20]) + (" ..." if len(absent) > 20 else "")
        raise UserError(
            f"{len(absent)} of {number_of(len(run.shards), 'shard', 'have')} no receipt: {shown}. Run the same command again; "
            "finished shards are kept"
        )
    return [receipts[shard.index] for shard in run.shards]


def _checked_sums(run: Run, receipts: list[dict]) -> dict[str, str]:
    """sha256 of the shards' files, each read again and held against its receipt."""
    sums: dict[str, str] = {}
    for of_shard in in_threads(lambda receipt: _checked(run, receipt), track(receipts, "check", "shards")):
        sums |= of_shard
    return sums


def _checked(run: Run, receipt: dict) -> dict[str, str]:
    sums = {name: sha256_file(run.folder / name) for name in receipt["files"]}
    for name, stated in receipt["files"].items():
        if sums[name] != stated["sha256"]:
            raise UserError(
                f"{run.folder / name}: damaged: its sha256 is not that of its receipt. Delete "
                f"{run.receipt(receipt['shard'])} and run the same command again; only that shard is "
                "made anew"
            )
    return sums


def _refuse_damage(folder: Path) -> None:
    sums = read_sums(folder)
    wrong = [(SUMS, "damaged")] if sums is None else list(damaged_files(folder, sums))
    if wrong:
        named = "; ".join(f"{name} {problem}" for name, problem in wrong[:5])
        raise UserError(
            f"{folder}: {named}. Delete {SUMS} and the receipts of damaged shards, and run the same command again; "
            "what is whole is kept, the rest made anew"
        )
