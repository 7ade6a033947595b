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
from ecg_batch.dataset.manifest import make_manifest, sums_text
from ecg_batch.dataset.readme import readme
from ecg_batch.dataset.receipts import missing, read_receipt, told
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
    from ecg_batch.dataset.parts import merging

    if run.is_sealed:  # a former finalise got this far, and may have removed parts already
        _refuse_damage(run.folder)
    else:
        _refuse_gaps(run)
        with merging(run) as place:
            receipts, sums = _checked_shards(run)
            yield "shards checked"
            place()
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


def _refuse_gaps(run: Run) -> None:
    if absent := missing(run):
        shown = ", ".join(str(shard.index) for shard in absent[:20]) + (" ..." if len(absent) > 20 else "")
        raise UserError(
            f"{len(absent)} of {number_of(len(run.shards), 'shard', 'have')} no receipt: {shown}. Run the same command again; "
            "finished shards are kept"
        )


def _checked_shards(run: Run) -> tuple[list[dict], dict[str, str]]:
    """What the manifest needs of each receipt, in order, and the sha256 of the files that stay. Every file is read again and held
    against its receipt. Receipts are read one at a time, for there may be many: a whole one takes 3 kB.
    """
    kept: list[dict] = []
    sums: dict[str, str] = {}
    for shard, receipt in in_threads(lambda shard: _checked(run, shard), track(run.shards, "check", "shards")):
        kept.append(told(receipt, "content_sha256"))
        sums |= {name: receipt["files"][name]["sha256"] for name in run.plan.ecg_files(shard)}
    return kept, sums


def _checked(run: Run, shard: Shard) -> tuple[Shard, dict]:
    if (receipt := read_receipt(run, shard.index)) is None:
        raise UserError(f"{run.receipt(shard.index)}: gone or damaged since this run was looked at. Run the same command again")
    for name, stated in receipt["files"].items():
        if sha256_file(run.folder / name) != stated["sha256"]:
            raise UserError(
                f"{run.folder / name}: damaged: its sha256 is not that of its receipt. Delete "
                f"{run.receipt(shard.index)} and run the same command again; only that shard is "
                "made anew"
            )
    return shard, receipt


def _refuse_damage(folder: Path) -> None:
    sums = read_sums(folder)
    wrong = [(SUMS, "damaged")] if sums is None else list(damaged_files(folder, sums))
    if wrong:
        named = "; ".join(f"{name} {problem}" for name, problem in wrong[:5])
        raise UserError(
            f"{folder}: {named}. Delete {SUMS} and the receipts of damaged shards, and run the same command again; "
            "what is whole is kept, the rest made anew"
        )
