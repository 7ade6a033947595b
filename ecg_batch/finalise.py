"""Finalise: a run whose shards are all there becomes a dataset. The rename of NAME.partial to NAME is its last act.

Each step writes whole files in one move, and the sums come after everything they cover, so a rerun works from any
point at which finalise was killed, and two finalisers at once write the same bytes.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ecg_batch.batch import smaller_batches
from ecg_batch.commit import is_sealed, read_receipts, receipt_path
from ecg_batch.croissant import croissant
from ecg_batch.energy import total
from ecg_batch.errors import UserError
from ecg_batch.files import remove_tree, sha256_file, sync, to_json, write_over
from ecg_batch.plan import (
    CROISSANT,
    FAILURES,
    FORMAT,
    MANIFEST,
    PARTS,
    PLAN,
    STAGING,
    SUMS,
    Plan,
    ecg_files,
    part_files,
    partial_of,
)  # fmt: skip

SUMS_OF_SUMS = "# sha256 of the lines above: "


def finalise(plan: Plan, out: Path) -> None:
    """Turn out.partial into out. UserError naming what is missing or damaged; quiet where another was quicker."""
    folder = partial_of(out)
    try:
        with _alone(folder):
            for _ in finalise_steps(plan, folder, out):
                pass
    except (FileNotFoundError, UserError):  # the folder went away under us: another finaliser was quicker
        if folder.exists() or not (out / PLAN).exists():
            raise


def finalise_steps(plan: Plan, folder: Path, out: Path) -> Iterator[str]:
    """The steps, each named once it is done; the tests stop between any two of them."""
    from ecg_batch.parts import merge_parts

    if is_sealed(folder):  # a former finalise got this far, and may have removed parts already
        _refuse_damage(folder)
    else:
        receipts = _complete_receipts(plan, folder)
        sums = _checked_sums(folder, receipts)
        yield "shards checked"
        merge_parts(plan, folder)
        yield "records merged"
        manifest = _manifest(plan, receipts)
        write_over(folder / MANIFEST, to_json(manifest), folder / STAGING)
        yield "manifest written"
        write_over(folder / CROISSANT, to_json(croissant(plan, folder, manifest["content_root"])), folder / STAGING)
        yield "croissant written"
        write_over(folder / SUMS, _sums_text(plan, folder, sums), folder / STAGING)
        yield "sums written"
    for name in (STAGING, PARTS, FAILURES):  # staging first: without it, tasks still at work know that they are done
        remove_tree(folder / name)
        yield f"{name} removed"
    os.rename(folder, out)
    sync(out.parent)
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


def _complete_receipts(plan: Plan, folder: Path) -> list[dict]:
    """Receipts of all shards in order."""
    receipts = read_receipts(plan, folder)
    absent = [str(shard.index) for shard in plan.shards if shard.index not in receipts]
    if absent:
        shown = ", ".join(absent[:20]) + (" ..." if len(absent) > 20 else "")
        raise UserError(
            f"{len(absent)} of {len(plan.shards)} shards have no receipt: {shown}. Run the same command again; "
            "finished shards are kept"
        )
    return [receipts[shard.index] for shard in plan.shards]


def _checked_sums(folder: Path, receipts: list[dict]) -> dict[str, str]:
    """sha256 of the shards' files, each read again and held against its receipt."""
    sums = {}
    for receipt in receipts:
        for name, stated in receipt["files"].items():
            sums[name] = sha256_file(folder / name)
            if sums[name] != stated["sha256"]:
                raise UserError(
                    f"{folder / name}: damaged: its sha256 is not that of its receipt. Delete "
                    f"{receipt_path(folder, receipt['shard'])} and run the same command again; only that shard is "
                    "made anew"
                )
    return sums


def content_root(receipts: list[dict]) -> str:
    """sha256 over the shards' content_sha256, in order, a line each: equal for equal samples, whatever stored them."""
    return hashlib.sha256("".join(f"{receipt['content_sha256']}\n" for receipt in receipts).encode()).hexdigest()


def _manifest(plan: Plan, receipts: list[dict]) -> dict:
    smaller = smaller_batches(plan, receipts)
    return {
        "format": FORMAT,
        "run_id": plan.run_id,
        "records": plan.request.records,
        "shards": len(plan.shards),
        "content_root": content_root(receipts),
        "bytes": sum(receipt["bytes"] for receipt in receipts),
        "seconds": round(sum(receipt["seconds"] for receipt in receipts), 3),
        **total(receipts),
        **({"smaller_batch": smaller} if smaller else {}),
        "request": plan.request.resolved(),
        "inputs_sha256": plan.inputs,
        "versions": plan.versions,
    }


# SHA256SUMS -----------------------------------------------------------------------------------------------------------


def dataset_files(plan: Plan) -> list[str]:
    """Every file of a finished dataset but SHA256SUMS itself."""
    from ecg_batch.query_table import NAME as QUERIES
    from ecg_batch.write import array_metadata

    shards = [name for shard in plan.shards for name in (*ecg_files(plan, shard), f"receipts/{shard.index}.json")]
    table = [QUERIES] if "table" in plan.inputs else []
    merged = part_files(plan, plan.shards[0])
    return sorted([PLAN, MANIFEST, CROISSANT, *merged, *array_metadata(plan), *table, *shards])


def _sums_text(plan: Plan, folder: Path, known: dict[str, str]) -> bytes:
    lines = [f"{known.get(name) or sha256_file(folder / name)}  {name}\n" for name in dataset_files(plan)]
    text = "".join(lines).encode()
    return text + f"{SUMS_OF_SUMS}{hashlib.sha256(text).hexdigest()}\n".encode()


def read_sums(folder: Path) -> dict[str, str] | None:
    """File -> sha256 as SHA256SUMS states it, or None where it does not agree with its own last line."""
    text = (folder / SUMS).read_bytes()
    body, mark, last = text.rpartition(SUMS_OF_SUMS.encode())
    if not mark or last != f"{hashlib.sha256(body).hexdigest()}\n".encode():
        return None
    return {name: digest for digest, name in (line.split("  ", 1) for line in body.decode().splitlines())}


def damaged_files(folder: Path, sums: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) for every file that is not what SHA256SUMS says."""
    for name, stated in sums.items():
        try:
            if sha256_file(folder / name) != stated:
                yield name, "damaged: its sha256 is not that in SHA256SUMS"
        except OSError as error:
            yield name, f"cannot be read: {error.strerror}"


def _refuse_damage(folder: Path) -> None:
    sums = read_sums(folder)
    wrong = [(SUMS, "damaged")] if sums is None else list(damaged_files(folder, sums))
    if wrong:
        named = "; ".join(f"{name} {problem}" for name, problem in wrong[:5])
        raise UserError(
            f"{folder}: {named}. Delete {SUMS} and the receipts of damaged shards, and run the same command again; "
            "what is whole is kept, the rest made anew"
        )
