"""Commit: a built shard becomes part of the dataset, its receipt last. Receipts are the truth about what is done.

No database, no scheduler: what is missing = planned shards minus valid receipts; a resumed run asks nothing else.
"""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_batch.claim import Claim, node_name
from ecg_batch.energy import stated
from ecg_batch.files import sync, to_json, write_new, write_over
from ecg_batch.plan import RECEIPTS, SUMS, Plan, Shard, ecg_file, part_file

if TYPE_CHECKING:
    from ecg_batch.write import Built


def receipt_path(folder: Path, shard_index: int) -> Path:
    return folder / RECEIPTS / f"{shard_index}.json"


def is_sealed(folder: Path) -> bool:
    """Whether finalise has written its sums: from then on the parts may be gone, merged into records.parquet."""
    return (folder / SUMS).exists()


def read_receipt(plan: Plan, folder: Path, shard_index: int, sealed: bool = False) -> dict | None:
    """The receipt of a shard if it is valid: it parses, is of this run, and its files are there with the stated sizes.

    Contents are not hashed here (verify and finalise do): this is asked thousands of times.
    """
    try:
        receipt = json.loads(receipt_path(folder, shard_index).read_bytes())
        stated = (receipt["run_id"], receipt["shard"], sorted(receipt["files"]), len(receipt["content_sha256"]))
        names = [ecg_file(shard_index, plan.request.format), part_file(shard_index)]
        whole = stated == (plan.run_id, shard_index, names, 64)
        for name in names[:1] if sealed else names:
            whole = whole and os.stat(f"{folder}/{name}").st_size == receipt["files"][name]["bytes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return receipt if whole else None


def read_receipts(plan: Plan, folder: Path, known: dict[int, dict] | None = None) -> dict[int, dict]:
    """All valid receipts by shard. Those in `known` are not read again, so that polling a large run stays cheap."""
    receipts = {} if known is None else known
    sealed = is_sealed(folder)
    for name in _names(folder / RECEIPTS):
        index = int(name.removesuffix(".json")) if name.removesuffix(".json").isdecimal() else -1
        if index in receipts or not 0 <= index < len(plan.shards):
            continue
        if receipt := read_receipt(plan, folder, index, sealed):
            receipts[index] = receipt
    return receipts


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def missing(plan: Plan, folder: Path, only: frozenset[int] | None = None) -> list[Shard]:
    """Planned shards without a valid receipt; only: among these."""
    receipts = read_receipts(plan, folder)
    return [shard for shard in plan.shards if shard.index not in receipts and (only is None or shard.index in only)]


def commit_shard(plan: Plan, folder: Path, claim: Claim, built: "Built", joules: dict[str, float] | None = None) -> None:
    """Move the staged files into the dataset, then create the receipt. Killed before that, the shard is just missing.

    Two owners of one shard (a node thought dead that goes on) write the same bytes, and the first receipt stays.
    joules: energy by part, as energy.Meter gives it.
    """
    if read_receipt(plan, folder, claim.shard.index):
        return
    for name in built.files:
        os.replace(claim.staging / name, folder / name)
        sync((folder / name).parent)
    receipt = to_json(_receipt(plan, claim, built, joules or {}))
    path = receipt_path(folder, claim.shard.index)
    if not write_new(path, receipt, claim.staging) and not read_receipt(plan, folder, claim.shard.index):
        write_over(path, receipt, claim.staging)  # a truncated receipt, or one whose files are gone


def _receipt(plan: Plan, claim: Claim, built: "Built", joules: dict[str, float]) -> dict:
    return {
        "format": 1,
        "run_id": plan.run_id,
        "shard": claim.shard.index,
        "records": claim.shard.records,
        "files": built.files,
        "batch": plan.request.batch,
        "content_sha256": built.content_sha256,
        "bytes": sum(stated["bytes"] for stated in built.files.values()),
        "seconds": round(time.time() - claim.started, 3),
        **stated(joules),
        "host": node_name(),
        "attempt": claim.attempt,
        "finished_unix_s": round(time.time(), 3),
    }
