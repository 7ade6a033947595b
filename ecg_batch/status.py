"""Status: how far a run is, from its files alone. Nothing heavy is imported, so it answers at once."""

import json
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.claim import Progress, read_progress
from ecg_batch.commit import read_receipts
from ecg_batch.energy import NOT_MEASURED, total
from ecg_batch.errors import UserError
from ecg_batch.plan import FAILURES, MANIFEST, PLAN, Plan, partial_of, read_plan

SHOWN = 20  # lines of one kind: nodes, shards under way
SLOW = 3.0  # times the median shard: a straggler
SILENT_S = 60.0  # since a heartbeat: a straggler too


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
    def stragglers(self) -> dict[int, str]:
        """Shards under way that are far behind the others, or silent -> why."""
        seconds = sorted(receipt["seconds"] for receipt in self.receipts.values())
        median_s = seconds[len(seconds) // 2] if seconds else float("inf")
        slow = {}
        for progress in self.running:
            took_s = time.time() - progress.started
            if progress.age_s > SILENT_S:
                slow[progress.shard] = f"silent for {duration(progress.age_s)}"
            elif took_s > SLOW * median_s:
                slow[progress.shard] = f"at it for {duration(took_s)}, the median is {duration(median_s)}"
        return slow

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
    smaller = sum(map(len, manifest.get("smaller_batch", {}).values()))
    return (
        f"{folder}: finished. {manifest['records']:,} records in {manifest['shards']:,} shards, "
        f"{manifest['bytes'] / 1e6:,.1f} MB, {duration(manifest['seconds'])} of work; energy {_energy(manifest)}; content root "
        f"{manifest['content_root'][:16]}"
        + f"; {smaller:,} shards made with a smaller batch, for want of memory: {MANIFEST} names them"
        * bool(smaller)
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
    lines += _energy_lines(status) + _node_lines(status) + _running_lines(status)
    lines += [f"shard {shard} failed: {line} ({FAILURES}/{shard}.txt)" for shard, line in status.failed.items()]
    if not status.running:
        lines.append("nobody is at work on it: run the same jobs/synthesize.py command again; finished shards are kept")
    return lines


def _energy(manifest: dict) -> str:
    joules = manifest.get("joules", NOT_MEASURED)
    return joules if joules == NOT_MEASURED else f"{joules:,.0f} J"


def _energy_lines(status: Status) -> list[str]:
    energy = total(status.receipts.values())
    if energy["joules"] == NOT_MEASURED:
        return [f"energy: {NOT_MEASURED}"] if status.receipts else []
    return [f"energy: {energy['joules']:,.0f} J ({', '.join(energy['joules_of'])}) for {energy['joules_shards']:,} shards"]


def _node_lines(status: Status) -> list[str]:
    """What each node did and does; the busiest first."""
    done, running = defaultdict(list), Counter(progress.host for progress in status.running)
    for receipt in status.receipts.values():
        done[receipt.get("host", "?")].append(receipt)
    nodes = sorted({*done, *running}, key=lambda node: (-running[node], -len(done[node]), node))
    lines = [_node_line(node, done[node], running[node]) for node in nodes[:SHOWN]]
    return lines + ([f"and {len(nodes) - SHOWN:,} nodes more"] if len(nodes) > SHOWN else [])


def _node_line(node: str, receipts: list[dict], running: int) -> str:
    seconds = sum(receipt["seconds"] for receipt in receipts)
    speed = f", {sum(receipt['records'] for receipt in receipts) / seconds:,.1f} records/s a task" if seconds else ""
    return f"node {node}: {len(receipts):,} shards done, {running} running{speed}"


def _running_lines(status: Status) -> list[str]:
    """Shards under way, stragglers first."""
    slow = status.stragglers
    claims = sorted(status.running, key=lambda progress: (progress.shard not in slow, progress.shard))
    lines = [
        f"shard {p.shard}: {p.done_records:,} records, {p.host} {f'job {p.job}' if p.job else f'pid {p.pid}'}, attempt {p.attempt}"
        + (f"; straggler: {slow[p.shard]}" if p.shard in slow else "")
        for p in claims[:SHOWN]
    ]
    return lines + ([f"and {len(claims) - SHOWN:,} shards more under way"] if len(claims) > SHOWN else [])


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
