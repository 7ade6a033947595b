"""Status: how far a run is, from its files alone. Nothing heavy is imported, so it answers at once."""

import re
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.dataset.layout import FAILURES, MANIFEST, PLAN, partial_of
from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.receipts import NOT_MEASURED, flags_in_words, read_receipts, total_energy, total_flags
from ecg_batch.dataset.run import Run, read_run
from ecg_batch.errors import number_of
from ecg_batch.progress import amount, duration
from ecg_batch.run.claim import Progress, read_progress

SHOWN = 20  # lines of one kind: nodes, shards under way
SLOW = 3.0  # times the median shard: a straggler
SILENT_S = 60.0  # since a heartbeat: a straggler too


@dataclass(frozen=True)
class Status:
    """A look at an unfinished run. failed: shard -> last line of its traceback."""

    run: Run
    receipts: dict[int, dict]
    running: list[Progress]
    failed: dict[int, str]

    @property
    def records_done(self) -> float:
        """Also of shards under way; a heartbeat that says more than its shard holds counts as the shard."""
        shards = self.run.shards
        return self.records_kept + sum(min(progress.done_records, shards[progress.shard].records) for progress in self.running)

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
        left = self.run.request.records - self.records_done
        return left / self.records_per_s if self.records_per_s else None


def look(run: Run, known: dict[int, dict] | None = None) -> Status:
    """The status now. known: receipts of a former look, added to."""
    receipts = read_receipts(run, known)
    running = {
        progress.shard: progress for progress in read_progress(run) if progress.is_fresh and progress.shard < len(run.shards)
    }
    running = [progress for shard, progress in running.items() if shard not in receipts]
    return Status(run, receipts, running, read_failures(run, receipts))


def read_failures(run: Run, receipts: dict[int, dict]) -> dict[int, str]:
    """Shards that failed and were not made since -> the last line of their traceback."""
    failed = {}
    for path in run.failures.glob("*.txt"):
        shard = int(path.stem) if re.fullmatch("[0-9]{1,12}", path.stem) else -1
        if 0 <= shard < len(run.shards) and shard not in receipts:
            with suppress(FileNotFoundError):  # another run is clearing them away
                failed[shard] = (path.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["?"])[-1][:2000]
    return dict(sorted(failed.items()))


def describe(folder: Path) -> tuple[str, bool]:
    """The status in words, and whether all is well (no shard has failed)."""
    if folder.suffix != ".partial":
        return describe_finished(folder, read_manifest(folder)), True
    status = look(read_run(folder))
    return "\n".join(_lines(status)), not status.failed


def describe_finished(folder: Path, manifest: dict) -> str:
    smaller = sum(map(len, manifest.get("smaller_batch", {}).values()))
    return (
        f"{folder}: finished. {number_of(manifest['records'], 'record')} in {number_of(manifest['shards'], 'shard')}, "
        f"{manifest['bytes'] / 1e6:,.1f} MB, {duration(manifest['seconds'])} of work; energy {_energy(manifest)}; content root "
        f"{manifest['content_root'][:16]}"
        + (f"; {words}" if (words := flags_in_words(manifest, manifest["records"])) else "")
        + f"; {number_of(smaller, 'shard')} made with a smaller batch, for want of memory: {MANIFEST} names them" * bool(smaller)
    )


def _lines(status: Status) -> list[str]:
    total, shards = status.run.request.records, len(status.run.shards)
    absent = shards - len(status.receipts) - len(status.running) - len(status.failed)
    left = f", {duration(status.seconds_left)} left" if status.running and status.seconds_left is not None else ""
    lines = [
        f"{status.run.folder}: {len(status.receipts):,} of {number_of(shards, 'shard')} done, {len(status.running)} running, "
        f"{len(status.failed)} failed, {max(absent, 0):,} waiting",
        f"{amount(status.records_done)} of {number_of(total, 'record')} ({status.records_done / total:.1%}), "
        f"{_speed(status)}{left}",
    ]
    words = flags_in_words(total_flags(status.receipts.values()), status.records_kept)
    lines += [words] if words and status.receipts else []
    lines += _energy_lines(status) + _node_lines(status) + _running_lines(status)
    lines += [f"shard {shard} failed: {line} ({FAILURES}/{shard}.txt)" for shard, line in status.failed.items()]
    if not status.running:
        lines.append("nobody is at work on it: run the same ecg-batch synthesize command again; finished shards are kept")
    return lines


def _energy(manifest: dict) -> str:
    joules = manifest.get("joules", NOT_MEASURED)
    return joules if joules == NOT_MEASURED else f"{joules:,.0f} J"


def _energy_lines(status: Status) -> list[str]:
    energy = total_energy(status.receipts.values())
    if energy["joules"] == NOT_MEASURED:
        return [f"energy: {NOT_MEASURED}"] if status.receipts else []
    shards = number_of(energy["joules_shards"], "shard")
    return [f"energy: {energy['joules']:,.0f} J ({', '.join(energy['joules_of'])}) for {shards}"]


def _node_lines(status: Status) -> list[str]:
    """What each node did and does; the busiest first."""
    done, running = defaultdict(list), Counter(progress.host for progress in status.running)
    for receipt in status.receipts.values():
        done[receipt.get("host", "?")].append(receipt)
    nodes = sorted({*done, *running}, key=lambda node: (-running[node], -len(done[node]), node))
    lines = [_node_line(node, done[node], running[node]) for node in nodes[:SHOWN]]
    return lines + ([f"and {number_of(len(nodes) - SHOWN, 'node')} more"] if len(nodes) > SHOWN else [])


def _node_line(node: str, receipts: list[dict], running: int) -> str:
    seconds = sum(receipt["seconds"] for receipt in receipts)
    speed = f", {sum(receipt['records'] for receipt in receipts) / seconds:,.1f} records/s a task" if seconds else ""
    return f"node {node}: {number_of(len(receipts), 'shard')} done, {running} running{speed}"


def _running_lines(status: Status) -> list[str]:
    """Shards under way, stragglers first."""
    slow = status.stragglers
    claims = sorted(status.running, key=lambda progress: (progress.shard not in slow, progress.shard))
    lines = [
        f"shard {p.shard}: {amount(p.done_records)} records, {p.host} "
        f"{f'job {p.job}' if p.job else f'pid {p.pid}'}, attempt {p.attempt}"
        + (f"; straggler: {slow[p.shard]}" if p.shard in slow else "")
        for p in claims[:SHOWN]
    ]
    return lines + ([f"and {number_of(len(claims) - SHOWN, 'shard')} more under way"] if len(claims) > SHOWN else [])


def _speed(status: Status) -> str:
    request = status.run.request
    if request.is_long:
        return f"{status.records_per_s * request.duration_s:,.0f} s of signal/s"
    return f"{status.records_per_s:,.1f} records/s"


def describe_kept(out: Path) -> str:
    """What an interrupted run leaves, and how to carry on."""
    folder = partial_of(out)
    if not (folder / PLAN).exists():
        return "nothing was made yet"
    run = read_run(folder)
    done, shards = len(read_receipts(run)), number_of(len(run.shards), "shard", "are")
    return f"{done} of {shards} finished and kept in {folder}; run the same command again to carry on"
