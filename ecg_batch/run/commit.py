"""Commit: a built shard becomes part of the dataset, its receipt last. Receipts are the truth about what is done.

No database, no scheduler: what is missing = planned shards minus valid receipts; a resumed run asks nothing else.
"""

import os
import time
from typing import TYPE_CHECKING

from ecg_batch.dataset.receipts import RECEIPT_FORMAT, read_receipt, stated_energy
from ecg_batch.dataset.run import Run
from ecg_batch.files import sync, to_json, write_new, write_over
from ecg_batch.run.claim import Claim
from ecg_batch.run.identity import node_name

if TYPE_CHECKING:
    from ecg_batch.dataset.write import Built


def commit_shard(run: Run, claim: Claim, built: "Built", joules: dict[str, float] | None = None) -> None:
    """Move the staged files into the dataset, then create the receipt. Killed before that, the shard is just missing.

    Two owners of one shard (a node thought dead that goes on) write the same bytes, and the first receipt stays.
    joules: energy by part, as energy.Meter gives it.
    """
    if read_receipt(run, claim.shard.index):
        return
    for name in built.files:
        os.replace(claim.staging / name, run.folder / name)
    for folder in {(run.folder / name).parent for name in built.files}:
        sync(folder)
    receipt = to_json(_receipt(run, claim, built, joules or {}))
    path = run.receipt(claim.shard.index)
    if not write_new(path, receipt, claim.staging) and not read_receipt(run, claim.shard.index):
        write_over(path, receipt, claim.staging)  # a truncated receipt, or one whose files are gone


def _receipt(run: Run, claim: Claim, built: "Built", joules: dict[str, float]) -> dict:
    return {
        "format": RECEIPT_FORMAT,
        "run_id": run.plan.run_id,
        "shard": claim.shard.index,
        "records": claim.shard.records,
        "files": built.files,
        "batch": claim.batch or run.request.batch,
        "content_sha256": built.content_sha256,
        "bytes": sum(stated["bytes"] for stated in built.files.values()),
        "seconds": round(time.time() - claim.started, 3),
        **stated_energy(joules),
        **built.flags,
        "host": node_name(),
        "attempt": claim.attempt,
        "finished_unix_s": round(time.time(), 3),
    }
