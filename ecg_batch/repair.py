"""Repair: what a damaged dataset needs so that the command which made it makes just the damaged shards again.

A finished dataset becomes NAME.partial again. Until its last step the sums are there, so a repair that is killed is run
again, and a run in between refuses the damage.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from ecg_batch.batch import keep_batch, smaller_batches
from ecg_batch.commit import read_receipts, receipt_path
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.finalise import read_sums
from ecg_batch.plan import (
    FOLDERS,
    MANIFEST,
    PLAN,
    SUMS,
    Plan,
    Shard,
    final_name,
    partial_of,
    read_plan,
    shard_files,
)  # fmt: skip


def repair(folder: Path) -> tuple[Path, list[int]]:
    """Delete the receipts of damaged shards. Returns the folder of the run, now unfinished, and these shards.

    UserError where plan.json is damaged: it says what the data are, and nothing else does.
    """
    from ecg_batch.parts import split_parts

    plan = read_plan(folder)
    sums = (read_sums(folder) or {}) if (folder / SUMS).exists() else {}
    if sums.get(PLAN, plan_sum := sha256_file(folder / PLAN)) != plan_sum:
        raise UserError(f"{folder / PLAN}: damaged, and nothing else says what the data are. Restore it from a copy")
    folder = _reopen(folder)
    split_parts(plan, folder)
    _keep_batches(plan, folder, sums)
    damaged = [shard.index for shard in plan.shards if not _is_whole(plan, folder, shard, sums)]
    for index in damaged:
        receipt_path(folder, index).unlink(missing_ok=True)
    (folder / SUMS).unlink(missing_ok=True)  # last: finalise now takes the shards by their receipts
    return folder, damaged


def _reopen(folder: Path) -> Path:
    """NAME.partial of a run, with the folders that finalise removed."""
    partial = partial_of(final_name(folder))
    if folder != partial:
        os.rename(folder, partial)
    for name in FOLDERS:
        (partial / name).mkdir(exist_ok=True)
    return partial


def _keep_batches(plan: Plan, folder: Path, sums: dict[str, str]) -> None:
    """Shards that were made with a smaller batch are to be made with that again."""
    smaller = smaller_batches(plan, read_receipts(plan, folder).values())
    with suppress(OSError):
        if sums.get(MANIFEST) == sha256_file(folder / MANIFEST):
            smaller = json.loads((folder / MANIFEST).read_bytes()).get("smaller_batch", {})
    for batch, shards in smaller.items():
        for shard in shards:
            keep_batch(folder, shard, int(batch))


def _is_whole(plan: Plan, folder: Path, shard: Shard, sums: dict[str, str]) -> bool:
    """Whether the files of a shard are those of its receipt, and that is the one in the sums."""
    path = receipt_path(folder, shard.index)
    try:
        files = json.loads(path.read_bytes())["files"]
        if sums and sums.get(f"receipts/{path.name}") != sha256_file(path):
            return False
        return all(sha256_file(folder / name) == files[name]["sha256"] for name in shard_files(plan, shard))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe_repair(folder: Path) -> str:
    """Repair, told to the user."""
    folder, damaged = repair(folder)
    plan = read_plan(folder)
    absent = len(plan.shards) - len(read_receipts(plan, folder))
    shown = f": {', '.join(map(str, damaged[:20]))}{' ...' if len(damaged) > 20 else ''}" if damaged else ""
    return (
        f"{folder}: {len(damaged)} damaged shards given up{shown}; {absent} of {len(plan.shards)} are to be made. Run the "
        "command that made the dataset again; finished shards are kept"
    )
