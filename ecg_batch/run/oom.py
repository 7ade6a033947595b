"""Out of memory: what becomes of a shard whose batch, the records that one model call decodes, is too large.

Bytes depend on the batch, so it belongs to the request and is never changed in secret. Only where the request says
`batch_on_oom: halve` is a shard that ran out of memory made with half of it. Its batch is then part of the truth: decided in a
file of the run's folder, only ever downwards; stated in the shard's receipt; named in dataset.json. Each record of such a shard
is what a request with that batch makes of it.
"""

import errno
import json
from pathlib import Path

from ecg_batch.dataset.run import Run
from ecg_batch.errors import UserError
from ecg_batch.files import to_json, write_over

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in a RuntimeError: of CUDA, and of torch on a CPU


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of this machine or its GPU did not suffice. (torch need not be imported to know its errors.)"""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    by_words = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or getattr(error, "errno", None) == errno.ENOMEM or by_words


def batch_path(run: Run, shard_index: int) -> Path:
    return run.failures / f"{shard_index}.batch.json"


def batch_of(run: Run, shard_index: int) -> int:
    """The batch that a shard is to be made with as things stand."""
    if run.request.batch_on_oom == "halve":
        try:
            batch = json.loads(batch_path(run, shard_index).read_bytes())["batch"]
        except FileNotFoundError:
            return run.request.batch
        except (ValueError, KeyError, TypeError, RecursionError):
            batch = None
        if not isinstance(batch, int) or isinstance(batch, bool) or not 0 < batch <= run.request.batch:
            raise UserError(
                f"{batch_path(run, shard_index)}: damaged: it names no batch up to {run.request.batch}. Delete it and run the same "
                "command again; the shard is begun with the request's batch"
            )
        return batch
    return run.request.batch


def halve(run: Run, shard_index: int, batch: int) -> bool:
    """Decide that a shard which ran out of memory with this batch is made with half of it. False where the request does not
    allow that, or there is no half. Whoever sees the same end decides the same, so it may be seen more than once.
    """
    if run.request.batch_on_oom != "halve" or batch % 2:
        return False
    if batch_of(run, shard_index) >= batch:
        keep_batch(run, shard_index, batch // 2)
    return True


def keep_batch(run: Run, shard_index: int, batch: int) -> None:
    write_over(batch_path(run, shard_index), to_json({"batch": batch}), run.staging)
