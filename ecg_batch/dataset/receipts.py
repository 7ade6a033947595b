"""Receipts: the only truth about what is done. A shard is finished when its receipt is valid, and not before.

No database, no scheduler: what is missing = planned shards minus valid receipts; a resumed run asks nothing else.
"""

import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from ecg_batch.dataset.layout import RECEIPTS, Shard
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.run import Run
from ecg_batch.errors import number_of
from ecg_batch.files import read_regular
from ecg_batch.remote.path import is_remote

RECEIPT_FORMAT = 1
NOT_MEASURED = "not measured"
# what others add up and print
TOLD = ("shard", "records", "bytes", "seconds", "joules", "joules_of", "flagged", "flags", "batch", "host", "finished_unix_s")


def read_receipt(run: Run, shard_index: int, sealed: bool = False) -> dict | None:
    """The receipt of a shard if it is valid: it parses, is of this run, and its files are there with the stated sizes.

    sealed: run.is_sealed, asked once for many. Contents are not hashed here (verify and finalise do it): this is asked thousands
    of times.
    """
    try:
        path = run.receipt(shard_index) if is_remote(run.folder) else f"{run.folder}/{RECEIPTS}/{shard_index}.json"
        receipt = json.loads(read_regular(path))
        stated = (receipt["run_id"], receipt["shard"], sorted(receipt["files"]), len(receipt["content_sha256"]))
        shard = run.shards[shard_index]
        names = run.plan.shard_files(shard)
        whole = stated == (run.plan.run_id, shard_index, sorted(names), 64)
        whole = whole and _is_sane(receipt, shard)
        if is_remote(run.folder):
            return receipt if whole else None  # sizes would take a request each, and who reads these checks contents
        for name in run.plan.ecg_files(shard) if sealed else names:
            whole = whole and os.stat(f"{run.folder}/{name}").st_size == receipt["files"][name]["bytes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return receipt if whole else None


def _is_sane(receipt: dict, shard: Shard) -> bool:
    """Whether what others add up and print has the types and bounds that a worker writes."""
    joules, batch, flags = receipt.get("joules", NOT_MEASURED), receipt.get("batch"), receipt.get("flags", {})
    host, parts = receipt.get("host", "?"), receipt.get("joules_of", [])
    files = receipt["files"].values()
    return (
        is_count(receipt["format"]) and receipt["format"] == RECEIPT_FORMAT
        and is_count(receipt["records"]) and receipt["records"] == shard.records
        and is_amount(receipt["seconds"]) and is_count(receipt["bytes"])
        and isinstance(host, str) and host.isprintable() and len(host) < 256
        and (joules == NOT_MEASURED or (is_amount(joules) and bool(parts)))
        and isinstance(parts, list) and all(isinstance(part, str) for part in parts)
        and (batch is None or (is_count(batch) and batch > 0))
        and is_count(receipt.get("flagged", 0)) and isinstance(flags, dict) and all(map(is_count, flags.values()))
        and all(set(stated) == {"bytes", "sha256"} for stated in files)
        and all(is_count(stated["bytes"]) and isinstance(stated["sha256"], str) for stated in files)
        and isinstance(receipt["content_sha256"], str)
    )  # fmt: skip


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**63


def read_receipts(run: Run, known: dict[int, dict] | None = None, whole: bool = False) -> dict[int, dict]:
    """All valid receipts by shard. Those in `known` are not read again, so that polling a large run stays cheap.

    whole: with the sums of files and samples, which are three quarters of the memory; otherwise what TOLD says.
    """
    receipts = {} if known is None else known
    for index, receipt in _valid(run, receipts):
        receipts[index] = receipt if whole else told(receipt)
    return receipts


def told(receipt: dict) -> dict:
    """What TOLD says of a receipt: a tenth of its memory."""
    return {name: receipt[name] for name in TOLD if name in receipt}


def _valid(run: Run, known: Container[int] = ()) -> Iterator[tuple[int, dict]]:
    """Shard and whole receipt of each that is valid and not among those known, one at a time."""
    sealed = run.is_sealed
    for name in [f"{shard.index}.json" for shard in run.shards] if is_remote(run.folder) else _names(run.receipts):
        stem = name.removesuffix(".json")
        index = int(stem) if stem.isascii() and stem.isdecimal() else -1
        if index not in known and 0 <= index < len(run.shards) and (receipt := read_receipt(run, index, sealed)):
            yield index, receipt


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def missing(run: Run, only: frozenset[int] | None = None) -> list[Shard]:
    """Planned shards without a valid receipt; only: among these."""
    finished = {index for index, _ in _valid(run)}
    return [shard for shard in run.shards if shard.index not in finished and (only is None or shard.index in only)]


def smaller_batches(plan: Plan, receipts: Iterable[dict]) -> dict[str, list[int]]:
    """Batch -> the shards made with it, where that is not the request's."""
    found: dict[str, list[int]] = {}
    for receipt in receipts:
        if (batch := receipt.get("batch", plan.request.batch)) != plan.request.batch:
            found.setdefault(str(batch), []).append(receipt["shard"])
    return found


def stated_energy(joules: dict[str, float]) -> dict[str, object]:
    """Energy as receipts and the manifest state it, from energy.Meter: joules in all, and of which parts."""
    if not joules:
        return {"joules": NOT_MEASURED}
    return {"joules": round(sum(joules.values()), 3), "joules_of": sorted(joules)}


def count_flags(flags: Iterable[str]) -> dict[str, object]:
    """How many of these records have a flag, and of each kind. flags: as records.parquet has them."""
    flagged = [text.split(",") for text in flags if text]
    return {"flagged": len(flagged), "flags": dict(sorted(Counter(kind for each in flagged for kind in each).items()))}


class Totals:
    """What receipts state, added up one at a time: energy and flags as the manifest states them."""

    def __init__(self, receipts: Iterable[dict] = ()):
        self.bytes, self.seconds = 0, 0.0
        self._joules, self._joules_of, self._measured = 0.0, set(), 0
        self._flagged, self._flags, self._counted = 0, Counter(), True
        for receipt in receipts:
            self.add(receipt)

    def add(self, receipt: dict) -> None:
        self.bytes += receipt.get("bytes", 0)
        self.seconds += receipt.get("seconds", 0.0)
        if isinstance(receipt.get("joules"), (int, float)):
            self._joules += receipt["joules"]
            self._joules_of.update(receipt["joules_of"])
            self._measured += 1
        self._counted &= "flagged" in receipt  # False where one was made before they were counted
        self._flagged += receipt.get("flagged", 0)
        self._flags.update(receipt.get("flags", {}))

    @property
    def energy(self) -> dict[str, object]:
        """With the number of shards where some were not measured."""
        if not self._measured:
            return {"joules": NOT_MEASURED}
        return {"joules": round(self._joules, 3), "joules_of": sorted(self._joules_of), "joules_shards": self._measured}

    @property
    def flags(self) -> dict[str, object]:
        """How many records have a flag, and of each kind. Empty where a receipt does not say."""
        return {"flagged": self._flagged, "flags": dict(sorted(self._flags.items()))} if self._counted else {}


def total_energy(receipts: Iterable[dict]) -> dict[str, object]:
    return Totals(receipts).energy


def total_flags(receipts: Iterable[dict]) -> dict[str, object]:
    return Totals(receipts).flags


def flags_in_words(stated: dict, records: int) -> str:
    """'3 of 540 records are flagged: flat 1, heart_rate 2'; "" where it was not counted."""
    if "flagged" not in stated:
        return ""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(stated.get("flags", {}).items()))
    flagged = stated["flagged"]
    return f"{flagged:,} of {number_of(records, 'record', 'are')} flagged: {kinds}" if flagged else "no record is flagged"
