"""Claim: who is at work on which shard, so that two tasks seldom make the same one.

A claim is a staging folder `staging/<shard>.<attempt>` with a heartbeat in it. It only saves work: where it is wrong
(a node thought dead, clocks apart), a shard is made twice with the same bytes and the first receipt wins.
"""

import errno
import json
import math
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.run import Run
from ecg_batch.files import remove_tree, to_json
from ecg_batch.run.identity import is_gone, own_process
from ecg_batch.run.slurm.queue import job_attempt

STALE_S = 120.0  # far above the time of a batch or of writing a shard; a dead process on this host is noticed at once
HEARTBEAT = "progress.json"
FREED_S = 0.5  # modification times up to here, s since 1970, say that the maker was found to be gone
HOST_LENGTH = 200  # characters; a host's name has 64


@dataclass(frozen=True)
class Claim:
    """One attempt at one shard. staging: its folder; started: Unix time, s; batch: records in one model call."""

    shard: Shard
    attempt: int
    staging: Path
    started: float
    batch: int = 0

    def beat(self, done_records: float) -> None:
        """Say how far the shard is. FileNotFoundError where another task has taken it over, or the run is over."""
        _write_heartbeat(self.staging, self, done_records)

    def release(self) -> None:
        remove_tree(self.staging)


@dataclass(frozen=True)
class Progress:
    """A heartbeat as others read it. age_s: how long it has not changed, by the reader's own clock where that has watched it."""

    shard: int
    attempt: int
    done_records: float  # of long records also parts
    host: str
    pid: int
    started: float
    age_s: float
    job: str = ""  # slurm.job_attempt() of its maker
    batch: int = 0
    is_freed: bool = False  # its maker was found to be gone (`make_stale`). Its job's id may since be another's: a controller that
    # lost its last seconds in a crash gives ids away again
    process: dict = field(default_factory=dict)  # identity.own_process() of its maker
    looks_fresh: bool = False  # to whoever sees it for the first time, and so by its time alone

    @property
    def is_fresh(self) -> bool:
        """Whether somebody is likely still at it."""
        return not self.is_freed and self.age_s < STALE_S and not is_gone(self.process)


def claim_shard(run: Run, shard: Shard, batch: int = 0) -> Claim | None:
    """Claim a shard, or None where somebody is freshly at work on it. Stale attempts are cleared away.

    The heartbeat is written first and the folder renamed into place, which fails on a claim that is there already: of
    two tasks one wins, and no claim is ever without a heartbeat.
    """
    former = read_progress(run, shard.index)
    if any(progress.is_fresh for progress in former):
        return None
    attempt = max((progress.attempt for progress in former), default=0) + 1
    claim = Claim(shard, attempt, run.staging / f"{shard.index}.{attempt}", time.time(), batch)
    tmp = run.staging / f"claim-{uuid4().hex}"
    tmp.mkdir()
    try:
        _write_heartbeat(tmp, claim, 0)
        os.rename(tmp, claim.staging)
    except OSError as error:
        remove_tree(tmp)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    for progress in former:
        remove_tree(run.staging / f"{progress.shard}.{progress.attempt}")
    return claim


def make_stale(run: Run, progress: Progress, freed: bool = True) -> None:
    """Make a claim stale whose maker is known to be gone, so that the next task takes it over at once. A maker that lives
    after all (split brain) beats again and goes on. freed=False: it is only known to be silent.

    Its heartbeat is replaced by another, since only its owner may set a file's time, and that may be a colleague.
    """
    heartbeat = run.staging / f"{progress.shard}.{progress.attempt}" / HEARTBEAT
    aside = heartbeat.with_name(f"{HEARTBEAT}.{uuid4().hex}")
    with suppress(FileNotFoundError):  # released or taken over meanwhile
        data = heartbeat.read_bytes()
        try:
            aside.write_bytes(data)
            os.utime(aside, (0, 0) if freed else (time.time() - 10 * STALE_S,) * 2)
            state = aside.stat()
            os.replace(aside, heartbeat)
            _watched[str(heartbeat)] = Watched(
                (state.st_ino, state.st_mtime_ns), time.monotonic() - STALE_S
            )  # no beat of its maker
        finally:
            aside.unlink(missing_ok=True)


# Heartbeats -----------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A heartbeat as this process saw it last: which file, changed when by the own clock, whether it was seen to change at all."""

    file: tuple[int, int]  # inode, modification time in ns
    since: float  # time.monotonic()
    beats: bool = False


_watched: dict[str, Watched] = {}  # by path


def read_progress(run: Run, shard_index: int | None = None) -> list[Progress]:
    """All attempts under staging, fresh or stale; of one shard, without reading the others' heartbeats."""
    try:
        names = os.listdir(run.staging)
    except FileNotFoundError:
        return []
    wanted = "[0-9]+" if shard_index is None else str(shard_index)
    found = [_read_heartbeat(run.staging / name) for name in names if re.fullmatch(rf"{wanted}\.[0-9]+", name)]
    if shard_index is None:
        for path in [path for path in _watched if os.path.dirname(os.path.dirname(path)) == str(run.staging)]:
            if os.path.basename(os.path.dirname(path)) not in names:
                del _watched[path]
    return sorted((progress for progress in found if progress), key=lambda progress: (progress.shard, progress.attempt))


def _read_heartbeat(staging: Path) -> Progress | None:
    shard, attempt = map(int, staging.name.split("."))
    path = staging / HEARTBEAT
    try:
        state = path.stat()
        stated = _checked(json.loads(path.read_bytes()))
    except FileNotFoundError:
        # Released this moment, or half removed. Listed as stale, so that its number is not given away twice.
        return Progress(shard, attempt, 0, "", 0, 0.0, STALE_S) if staging.exists() else None
    except (OSError, ValueError, RecursionError):  # cut off by a full disk, or no heartbeat of ours
        return Progress(shard, attempt, 0, "", 0, 0.0, STALE_S)
    fresh = time.time() - state.st_mtime < STALE_S
    return Progress(shard, attempt, age_s=_age_s(path, state), is_freed=state.st_mtime <= FREED_S, looks_fresh=fresh, **stated)


def _age_s(path: Path, state: os.stat_result) -> float:
    """How long a heartbeat has not changed. Its time is by another clock, perhaps an hour ahead; so from the second look on it is
    watched by the own one. A time in the past is believed until a change is seen, so that what was left long ago is taken over.
    """
    now, file = time.monotonic(), (state.st_ino, state.st_mtime_ns)
    seen = _watched.get(str(path))
    if seen is None:
        seen = _watched[str(path)] = Watched(file, now)
    elif file != seen.file:
        beats = file[0] != seen.file[0] or file[1] > seen.file[1]  # each beat is a new file; a clock may be set back
        seen = _watched[str(path)] = Watched(file, now, beats)
    watched_s = now - seen.since
    return watched_s if seen.beats else max(watched_s, time.time() - state.st_mtime)


def _checked(beat: object) -> dict:
    """The fields of a heartbeat. ValueError where it is none: other types, or numbers that nobody counts to."""
    if not isinstance(beat, dict):
        raise ValueError("no heartbeat")
    done, started, pid, batch = (beat.get(name) for name in ("done_records", "started", "pid", "batch"))
    host, job = beat.get("host"), beat.get("job", "")
    batch = 0 if batch is None else batch
    numbers = all(_is_number(value) and 0 <= value < 2**53 for value in (done, started, pid, batch))
    if not numbers or not isinstance(pid, int) or not isinstance(batch, int) or pid < 1:
        raise ValueError("no heartbeat")
    if not all(isinstance(word, str) and len(word) <= HOST_LENGTH and word.isprintable() for word in (host, job)):
        raise ValueError("no heartbeat")
    process = {name: beat[name] for name in ("host", "pid", "boot", "pid_namespace", "start_ticks") if name in beat}
    return {"done_records": done, "started": started, "pid": pid, "batch": batch, "host": host, "job": job, "process": process}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _write_heartbeat(staging: Path, claim: Claim, done_records: float) -> None:
    beat = {"done_records": done_records, **own_process(), "started": claim.started}
    beat |= {"job": job_attempt(), "batch": claim.batch}
    tmp = staging / f"{HEARTBEAT}.new"
    tmp.write_bytes(to_json(beat))
    os.replace(tmp, staging / HEARTBEAT)
