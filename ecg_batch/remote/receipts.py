"""Receipts below a URL: how many bytes a file of samples has. SHA256SUMS holds the receipt, so a file of another dataset, which an
upload has not replaced yet, shows by its size before any of its samples is handed over; its sha256 would take the whole file.
"""

import hashlib
import json

from ecg_batch.errors import UserError
from ecg_batch.remote.path import RemotePath


def hold_bytes(path: RemotePath, found: int) -> None:
    """UserError where the receipt of a file of samples states another size. Silent where nothing is said of it: an export has no
    receipts, and verify, which fetches all, holds each file against its sha256.
    """
    stated = _stated(path)
    if stated is not None and stated != found:
        raise UserError(f"{path}: has {found:,} bytes, and by its receipt this dataset's has {stated:,}: it is of another dataset, "
                        "or an upload is going on. Open it again when the upload is over; if it stays so, copy the dataset there "
                        "again")  # fmt: skip


def _stated(path: RemotePath) -> int | None:
    store = path.store
    name = store.receipts.get(path.inner)
    if name not in store.sums:
        return None
    receipt = RemotePath(store, name)
    try:
        with store.lock_of(name):  # several records of a day lie in one shard
            data = store.whole(name)
    except FileNotFoundError:
        raise absent(receipt) from None
    if hashlib.sha256(data).hexdigest() != store.sums[name]:
        store.forget(name)
        raise UserError(f"{receipt}: its sha256 is not that in SHA256SUMS: it is damaged, or an upload is going on. Open the "
                        "dataset again when the upload is over; if it stays so, copy the dataset there again")  # fmt: skip
    try:
        file = json.loads(bytes(data))["files"][path.inner]
        return file["bytes"] if type(file["bytes"]) is int and file["sha256"] == store.sums[path.inner] else None
    except (ValueError, KeyError, TypeError):
        return None  # sound, and of a version that says it otherwise


def absent(path: RemotePath) -> UserError:
    return UserError(f"{path}: absent, so the dataset is damaged. ecg-batch verify {path.store.url} names what else is; copy it "
                     "there again")  # fmt: skip
