"""Manifest: dataset.json, what a finished dataset says of itself, and the text of SHA256SUMS, the digest of each of its files."""

import hashlib
import json
from pathlib import Path

from ecg_batch.dataset.layout import CROISSANT, FORMAT, FORMAT_FOLDERS, MANIFEST, PLAN, README
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.receipts import NOT_MEASURED, Totals, is_amount, is_count, smaller_batches
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.sums import SUMS_OF_SUMS
from ecg_batch.errors import UserError
from ecg_batch.files import read_regular, sha256_file


def content_root(receipts: list[dict]) -> str:
    """sha256 over the shards' content_sha256, in order, a line each: equal for equal samples, whatever stored them."""
    return hashlib.sha256(b"".join(map(_content_line, receipts))).hexdigest()


def _content_line(receipt: dict) -> bytes:
    return f"{receipt['content_sha256']}\n".encode()


class Shards(Totals):
    """What the manifest says of all shards, whose whole receipts are given one at a time, in order."""

    def __init__(self, plan: Plan):
        super().__init__()
        self._plan, self._content = plan, hashlib.sha256()
        self.smaller: dict[str, list[int]] = {}

    def add(self, receipt: dict) -> None:
        super().add(receipt)
        self._content.update(_content_line(receipt))
        for batch, shards in smaller_batches(self._plan, [receipt]).items():
            self.smaller.setdefault(batch, []).extend(shards)

    @property
    def content_root(self) -> str:
        return self._content.hexdigest()


def make_manifest(plan: Plan, shards: Shards) -> dict:
    return {
        "format": FORMAT,
        "run_id": plan.run_id,
        "records": plan.request.records,
        "shards": len(plan.shards),
        "content_root": shards.content_root,
        "bytes": shards.bytes,
        "seconds": round(shards.seconds, 3),
        **shards.energy,
        **shards.flags,
        **({"smaller_batch": shards.smaller} if shards.smaller else {}),
        "request": plan.request.resolved(),
        "inputs_sha256": plan.inputs,
        "versions": plan.versions,
    }


def read_manifest(folder: Path) -> dict:
    """dataset.json of a finished dataset. UserError where it is damaged, or of a newer format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(read_regular(path))
        if type(manifest["format"]) is int and manifest["format"] > FORMAT:
            raise UserError(f"{path}: format {manifest['format']}; this ecg-batch reads up to {FORMAT}. Install a newer one")
        _check(manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise UserError(f"{path}: damaged ({why}). ecg-batch verify names what else is") from None
    return manifest


def _check(manifest: dict) -> None:
    """ValueError, KeyError or TypeError where a manifest does not hold what readers take from it."""
    counts = {"format": manifest["format"], "records": manifest["records"], "shards": manifest["shards"]}
    request = manifest["request"]
    counts |= {name: request[name] for name in ("fs_hz", "duration_s", "shard")}
    for name, value in counts.items():
        if type(value) is not int or not 0 < value < 2**40:
            raise ValueError(f"{name} is {str(value)[:40]!r}; needed a whole number from 1")
    for name in ("run_id", "content_root"):
        if not isinstance(manifest[name], str):
            raise ValueError(f"{name} is {str(manifest[name])[:40]!r}; needed a digest")
    if request.get("format", "zarr") not in FORMAT_FOLDERS:
        raise ValueError(f"format of samples {str(request['format'])[:40]!r}; needed {' or '.join(FORMAT_FOLDERS)}")
    if counts["shards"] != -(-counts["records"] // counts["shard"]):
        raise ValueError(f"{counts['records']} records in shards of {counts['shard']} are not {counts['shards']} shards")
    joules = manifest.get("joules", NOT_MEASURED)
    sound = {
        "bytes": is_count(manifest["bytes"]),
        "seconds": is_amount(manifest["seconds"]),
        "joules": joules == NOT_MEASURED or is_amount(joules),
        "smaller_batch": all(isinstance(shards, list) for shards in manifest.get("smaller_batch", {}).values()),
        "flagged": is_count(manifest.get("flagged", 0)),
        "flags": all(map(is_count, manifest.get("flags", {}).values())),
    }
    if odd := next((name for name, is_sound in sound.items() if not is_sound), None):
        raise ValueError(f"{odd} is {str(manifest[odd])[:100]}")


# SHA256SUMS -----------------------------------------------------------------------------------------------------------


def dataset_files(plan: Plan) -> list[str]:
    """Every file of a finished dataset but SHA256SUMS itself."""
    from ecg_batch.dataset.write import array_metadata
    from ecg_batch.request.query_table import NAME as QUERIES

    shards = [name for shard in plan.shards for name in (*plan.ecg_files(shard), f"receipts/{shard.index}.json")]
    table = [QUERIES] if "table" in plan.inputs else []
    merged = plan.part_files(plan.shards[0])
    return sorted([PLAN, MANIFEST, CROISSANT, README, *merged, *array_metadata(plan), *table, *shards])


def sums_text(run: Run, known: dict[str, str]) -> bytearray:
    text = bytearray()  # 100 bytes a file, and no list of lines beside it
    for name in dataset_files(run.plan):
        text += f"{known.get(name) or sha256_file(run.folder / name)}  {name}\n".encode()
    return text + f"{SUMS_OF_SUMS}{hashlib.sha256(text).hexdigest()}\n".encode()
