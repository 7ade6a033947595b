"""Repair: what a damaged dataset needs so that the command which made it makes just the damaged shards again.

A finished dataset becomes NAME.partial again. Until its last step the sums are there, so a repair that is killed is run
again, and a run in between refuses the damage.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from ecg_batch.dataset.layout import FOLDERS, MANIFEST, PLAN, SUMS, Shard, partial_of
from ecg_batch.dataset.plan import read_plan
from ecg_batch.dataset.receipts import read_receipts, smaller_batches
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.sums import read_sums
from ecg_batch.errors import UserError, number_of
from ecg_batch.files import read_regular, sha256_file
from ecg_batch.run.oom import keep_batch


def repair(folder: Path) -> tuple[Run, list[int]]:
    """Delete the receipts of damaged shards. Returns the run, now unfinished, and these shards.

    UserError where plan.json is damaged: it says what the data are, and nothing else does.
    """
    from ecg_batch.dataset.parts import split_parts

    plan = read_plan(folder)
    sums = (read_sums(folder) or {}) if (folder / SUMS).exists() else {}
    if sums.get(PLAN, plan_sum := sha256_file(folder / PLAN)) != plan_sum:
        raise UserError(f"{folder / PLAN}: damaged, and nothing else says what the data are. Restore it from a copy")
    smaller = _smaller_batches(Run(plan, folder), sums)
    run = _reopened(Run(plan, folder))
    split_parts(run)
    for batch, shards in smaller:  # they are to be made with that again
        for shard in shards:
            keep_batch(run, shard, batch)
    damaged = [shard.index for shard in run.shards if not _is_whole(run, shard, sums)]
    for index in damaged:
        run.receipt(index).unlink(missing_ok=True)
    (run.folder / SUMS).unlink(missing_ok=True)  # last: finalise now takes the shards by their receipts
    return run, damaged


def _reopened(run: Run) -> Run:
    """The run in NAME.partial, with the folders that finalise removed."""
    partial = partial_of(run.out)
    if run.folder != partial:
        os.rename(run.folder, partial)
    for name in FOLDERS:
        (partial / name).mkdir(exist_ok=True)
    return Run(run.plan, partial)


def _smaller_batches(run: Run, sums: dict[str, str]) -> list[tuple[int, list[int]]]:
    """(batch, shards that were made with it), where that is not the request's."""
    smaller = smaller_batches(run.plan, read_receipts(run).values())
    with suppress(OSError):
        if sums.get(MANIFEST) == sha256_file(run.folder / MANIFEST):
            smaller = json.loads(read_regular(run.folder / MANIFEST)).get("smaller_batch", {})
    return _planned(run, smaller)


def _planned(run: Run, smaller: object) -> list[tuple[int, list[int]]]:
    """Smaller batches as the manifest states them. UserError where they are no batches and shards of this run: they name files."""
    try:
        found = [(int(batch), list(shards)) for batch, shards in smaller.items()]
        if all(0 < batch < run.request.batch and all(type(shard) is int and 0 <= shard < len(run.shards) for shard in shards)
               for batch, shards in found):  # fmt: skip
            return found
    except (ValueError, TypeError, AttributeError):
        pass
    raise UserError(f"{run.folder / MANIFEST}: smaller_batch is {str(smaller)[:100]!r}; needed batches under {run.request.batch} "
                    f"with shards from 0 to {len(run.shards) - 1}. Nothing was changed; restore it from a copy")  # fmt: skip


def _is_whole(run: Run, shard: Shard, sums: dict[str, str]) -> bool:
    """Whether the files of a shard are those of its receipt, and that is the one in the sums."""
    path = run.receipt(shard.index)
    try:
        files = json.loads(path.read_bytes())["files"]
        if sums and sums.get(f"receipts/{path.name}") != sha256_file(path):
            return False
        return all(sha256_file(run.folder / name) == files[name]["sha256"] for name in run.plan.shard_files(shard))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe_repair(folder: Path) -> str:
    """Repair, told to the user."""
    run, damaged = repair(folder)
    absent = len(run.shards) - len(read_receipts(run))
    shown = f": {', '.join(map(str, damaged[:20]))}{' ...' if len(damaged) > 20 else ''}" if damaged else ""
    return (
        f"{run.folder}: {number_of(len(damaged), 'damaged shard')} given up{shown}; {absent} of {len(run.shards)} to be made. Run "
        "the command that made the dataset again; finished shards are kept"
    )
