"""Claim: who is at work on which shard, so that two tasks seldom make the same one.

A claim is a staging folder `staging/<shard>.<attempt>` with a heartbeat in it. It only saves work: where it is wrong
(a node thought dead, clocks apart), a shard is made twice with the same bytes and the first receipt wins.
"""

import errno
import json
import os
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from ecg_batch.files import remove_tree, to_json
from ecg_batch.plan import STAGING, Shard
from ecg_batch.slurm import incarnation

STALE_S = 120.0  # far above the time of a batch or of writing a shard; a dead process on this host is noticed at once
HEARTBEAT = "progress.json"


@dataclass(frozen=True)
class Claim:
    """One attempt at one shard. staging: its folder; started: Unix time, s; batch: records in one model call."""

    shard: Shard
    attempt: int
    staging: Path
    started: float
    batch: int = 0

    def beat(self, done_records: int) -> None:
        """Say how far the shard is. FileNotFoundError where another task has taken it over, or the run is over."""
        _write_heartbeat(self.staging, self, done_records)

    def release(self) -> None:
        remove_tree(self.staging)


@dataclass(frozen=True)
class Progress:
    """A heartbeat as others read it. age_s: since it was written."""

    shard: int
    attempt: int
    done_records: int
    host: str
    pid: int
    started: float
    age_s: float
    job: str = ""  # slurm.incarnation() of its maker
    batch: int = 0

    @property
    def is_fresh(self) -> bool:
        """Whether somebody is likely still at it."""
        return self.age_s < STALE_S and (self.host != node_name() or _is_alive(self.pid))

    @property
    def is_freed(self) -> bool:
        """Whether its maker was found to be gone (`age`). Its job's id may since be another's: a controller that lost its last
        seconds in a crash gives ids away again.
        """
        return self.age_s > time.time() - 0.5


def node_name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def claim_shard(folder: Path, shard: Shard, batch: int = 0) -> Claim | None:
    """Claim a shard, or None where somebody is freshly at work on it. Stale attempts are cleared away.

    The heartbeat is written first and the folder renamed into place, which fails on a claim that is there already: of
    two tasks one wins, and no claim is ever without a heartbeat.
    """
    former = read_progress(folder, shard.index)
    if any(progress.is_fresh for progress in former):
        return None
    attempt = max((progress.attempt for progress in former), default=0) + 1
    claim = Claim(shard, attempt, folder / STAGING / f"{shard.index}.{attempt}", time.time(), batch)
    aside = folder / STAGING / f"claim-{uuid4().hex}"
    aside.mkdir()
    try:
        _write_heartbeat(aside, claim, 0)
        os.rename(aside, claim.staging)
    except OSError as error:
        remove_tree(aside)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return None
        raise
    for progress in former:
        remove_tree(folder / STAGING / f"{progress.shard}.{progress.attempt}")
    return claim


def age(folder: Path, progress: Progress) -> None:
    """Make a claim stale whose maker is known to be gone, so that the next task takes it over at once. A maker that lives
    after all (split brain) beats again and goes on.
    """
    with suppress(FileNotFoundError):  # released or taken over meanwhile
        os.utime(folder / STAGING / f"{progress.shard}.{progress.attempt}" / HEARTBEAT, (0, 0))


def read_progress(folder: Path, shard_index: int | None = None) -> list[Progress]:
    """All attempts under staging, fresh or stale; of one shard, without reading the others' heartbeats."""
    try:
        names = os.listdir(folder / STAGING)
    except FileNotFoundError:
        return []
    wanted = r"\d+" if shard_index is None else str(shard_index)
    found = (_read_heartbeat(folder / STAGING / name) for name in names if re.fullmatch(rf"{wanted}\.\d+", name))
    return sorted((progress for progress in found if progress), key=lambda progress: (progress.shard, progress.attempt))


def _read_heartbeat(staging: Path) -> Progress | None:
    shard, attempt = map(int, staging.name.split("."))
    path = staging / HEARTBEAT
    try:
        age_s = time.time() - path.stat().st_mtime
        return Progress(shard, attempt, age_s=age_s, **json.loads(path.read_bytes()))
    except FileNotFoundError:
        # Released this moment, or half removed. Listed as stale, so that its number is not given away twice.
        return Progress(shard, attempt, 0, "", 0, 0.0, STALE_S) if staging.exists() else None
    except (ValueError, TypeError):  # cut off by a full disk
        return Progress(shard, attempt, 0, "", 0, 0.0, STALE_S)


def _write_heartbeat(staging: Path, claim: Claim, done_records: int) -> None:
    beat = {"done_records": done_records, "host": node_name(), "pid": os.getpid(), "started": claim.started}
    beat |= {"job": incarnation(), "batch": claim.batch}
    aside = staging / f"{HEARTBEAT}.new"
    aside.write_bytes(to_json(beat))
    os.replace(aside, staging / HEARTBEAT)


def _is_alive(pid: int) -> bool:
    """Whether a process of this host runs. A zombie (killed, not yet waited for) does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except (PermissionError, FileNotFoundError):  # somebody else's; or no /proc (macOS)
        return True
