"""Batch: how many records one model call decodes, and what becomes of a shard that it is too large for.

Bytes depend on the batch, so it belongs to the request and is never changed in secret. Only where the request says
`batch_on_oom: halve` is a shard that ran out of memory made with half of it. Its batch is then part of the truth: decided in a
file of the run's folder, only ever downwards; stated in the shard's receipt; named in dataset.json. Each record of such a shard
is what a request with that batch makes of it.
"""

import errno
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ecg_batch.files import to_json, write_over
from ecg_batch.plan import FAILURES, STAGING, Plan

SAID = ("out of memory", "can't allocate memory")  # in a RuntimeError: of CUDA, and of torch on a CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of this machine or its GPU did not suffice. (torch need not be imported to know its errors.)"""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in SAID)
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or getattr(error, "errno", None) == errno.ENOMEM or said


def batch_path(folder: Path, shard_index: int) -> Path:
    return folder / FAILURES / f"{shard_index}.batch.json"


def batch_of(plan: Plan, folder: Path, shard_index: int) -> int:
    """The batch that a shard is to be made with as things stand."""
    if plan.request.batch_on_oom == "halve":
        try:
            return json.loads(batch_path(folder, shard_index).read_bytes())["batch"]
        except FileNotFoundError:
            pass
    return plan.request.batch


def halve(plan: Plan, folder: Path, shard_index: int, batch: int) -> bool:
    """Decide that a shard which ran out of memory with this batch is made with half of it. False where the request does not
    allow that, or there is no half. Whoever sees the same end decides the same, so it may be seen more than once.
    """
    if plan.request.batch_on_oom != "halve" or batch % 2:
        return False
    if batch_of(plan, folder, shard_index) >= batch:
        keep_batch(folder, shard_index, batch // 2)
    return True


def keep_batch(folder: Path, shard_index: int, batch: int) -> None:
    write_over(batch_path(folder, shard_index), to_json({"batch": batch}), folder / STAGING)


def with_batch(plan: Plan, batch: int) -> Plan:
    """The plan as the generator of a shard with this batch is to see it."""
    return plan if batch == plan.request.batch else replace(plan, request=replace(plan.request, batch=batch))


def smaller_batches(plan: Plan, receipts: Iterable[dict]) -> dict[str, list[int]]:
    """Batch -> the shards made with it, where that is not the request's."""
    found: dict[str, list[int]] = {}
    for receipt in receipts:
        if (batch := receipt.get("batch", plan.request.batch)) != plan.request.batch:
            found.setdefault(str(batch), []).append(receipt["shard"])
    return found
