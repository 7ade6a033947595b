"""Status: how far a run is, from its files alone. Nothing heavy is imported, so it answers at once."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.claim import Progress, read_progress
from ecg_batch.commit import read_receipts
from ecg_batch.errors import UserError
from ecg_batch.plan import FAILURES, MANIFEST, PLAN, Plan, partial_of, read_plan


@dataclass(frozen=True)
class Status:
    """A look at an unfinished run. failed: shard -> last line of its traceback."""

    plan: Plan
    receipts: dict[int, dict]
    running: list[Progress]
    failed: dict[int, str]

    @property
    def records_done(self) -> int:
        return self.records_kept + sum(progress.done_records for progress in self.running)

    @property
    def records_kept(self) -> int:
        """Records of finished shards: what a kill would leave."""
        return sum(receipt["records"] for receipt in self.receipts.values())

    @property
    def records_per_s(self) -> float:
        """Speed of one task over all shards so far, times the tasks at work now; pauses between runs do not count."""
        records = self.records_done
        seconds = sum(receipt["seconds"] for receipt in self.receipts.values())
        seconds += sum(max(time.time() - progress.started, 0) for progress in self.running)
        return records / seconds * len(self.running) if seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        left = self.plan.request.records - self.records_done
        return left / self.records_per_s if self.records_per_s else None


def look(plan: Plan, folder: Path, known: dict[int, dict] | None = None) -> Status:
    """The status now. known: receipts of a former look, added to."""
    receipts = read_receipts(plan, folder, known)
    running = {progress.shard: progress for progress in read_progress(folder) if progress.is_fresh}
    running = [progress for shard, progress in running.items() if shard not in receipts]
    return Status(plan, receipts, running, read_failures(folder, receipts))


def read_failures(folder: Path, receipts: dict[int, dict]) -> dict[int, str]:
    """Shards that failed and were not made since -> the last line of their traceback."""
    failed = {}
    for path in (folder / FAILURES).glob("*.txt"):
        if path.stem.isdecimal() and int(path.stem) not in receipts:
            with suppress(FileNotFoundError):  # another run is clearing them away
                failed[int(path.stem)] = (path.read_text(encoding="utf-8").strip().splitlines() or ["?"])[-1]
    return dict(sorted(failed.items()))


def read_manifest(folder: Path) -> dict:
    """dataset.json of a finished dataset. UserError where it is damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        manifest["records"], manifest["shards"], manifest["content_root"], manifest["seconds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}). jobs/verify.py names what else is") from None
    return manifest


def describe(folder: Path) -> tuple[str, bool]:
    """The status in words, and whether all is well (no shard has failed)."""
    if folder.suffix != ".partial":
        return describe_finished(folder, read_manifest(folder)), True
    status = look(read_plan(folder), folder)
    return "\n".join(_lines(folder, status)), not status.failed


def describe_finished(folder: Path, manifest: dict) -> str:
    return (
        f"{folder}: finished. {manifest['records']:,} records in {manifest['shards']:,} shards, "
        f"{manifest['bytes'] / 1e6:,.1f} MB, {duration(manifest['seconds'])} of work; content root "
        f"{manifest['content_root'][:16]}"
    )


def _lines(folder: Path, status: Status) -> list[str]:
    total, shards = status.plan.request.records, len(status.plan.shards)
    absent = shards - len(status.receipts) - len(status.running) - len(status.failed)
    left = f", {duration(status.seconds_left)} left" if status.running and status.seconds_left is not None else ""
    lines = [
        f"{folder}: {len(status.receipts):,} of {shards:,} shards done, {len(status.running)} running, "
        f"{len(status.failed)} failed, {max(absent, 0):,} waiting",
        f"{status.records_done:,} of {total:,} records ({status.records_done / total:.1%}), "
        f"{status.records_per_s:,.1f} records/s{left}",
    ]
    lines += [f"shard {p.shard}: {p.done_records:,} records, {p.host} pid {p.pid}, attempt {p.attempt}" for p in status.running]
    lines += [f"shard {shard} failed: {line} ({FAILURES}/{shard}.txt)" for shard, line in status.failed.items()]
    if not status.running:
        lines.append("nobody is at work on it: run the same jobs/synthesize.py command again; finished shards are kept")
    return lines


def duration(seconds: float) -> str:
    """'42 s', '3 min 20 s', '5 h 12 min'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def describe_kept(out: Path) -> str:
    """What an interrupted run leaves, and how to carry on."""
    folder = partial_of(out)
    if not (folder / PLAN).exists():
        return "nothing was made yet"
    plan = read_plan(folder)
    done = len(read_receipts(plan, folder))
    return f"{done} of {len(plan.shards)} shards are finished and kept in {folder}; run the same command again to carry on"
