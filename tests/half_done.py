"""kill -9 in the middle of the work, with proof that it was the middle.

A process that is killed by the clock may have done nothing yet, or all. Here it is stopped first, and looked at while it stands
still: what is seen then is what the kill finds.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.dataset.receipts import missing
from ecg_batch.dataset.run import Run, read_run
from ecg_batch.run.claim import HEARTBEAT, Progress, read_progress


@dataclass(frozen=True)
class HalfDone:
    """What a kill found. finished: shards with a receipt, of so many planned; begun: what its processes were at, none of it with a
    receipt; staged: bytes below the staging folders of these, beside their heartbeats.
    """

    finished: int
    planned: int
    begun: list[Progress]
    staged: int


def kill_half_done(process: subprocess.Popen, folder: Path, share: float = 0.0, finished: int = 1, struck: str = "all") -> HalfDone:
    """kill -9 once a run has so many finished shards, not all, and is inside another of which this share is made.

    struck: all its processes, as by a power cut; its driver alone, whose workers go on to notice it; or one worker, the first of
    those begun.
    """

    def look() -> HalfDone | None:
        return _look(process.pid, folder, share, finished)

    wait_for(lambda: process.poll() is not None or look(), 120)
    while True:
        assert process.poll() is None, f"it ended before it was seen half done: {process.communicate()}"
        workers = {each.pid for each in read_progress(Run(None, folder)) if is_child(each.pid, process.pid)}
        pids = [process.pid, *workers - {process.pid}]
        if look() and (found := _while_stopped(pids, look)):
            hit = {"all": pids, "driver": pids[:1], "worker": [found.begun[0].pid]}[struck]
            for pid in hit:
                os.kill(pid, signal.SIGKILL)
            for pid in pids:
                _signal(pid, signal.SIGCONT)
            if process.pid in hit:
                process.communicate()
            return found
        time.sleep(0.002)


def _while_stopped(pids: list[int], look: Callable[[], HalfDone | None]) -> HalfDone | None:
    """What is seen while these stand still. Where that is nothing they go on."""
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    wait_for(lambda: all(state(pid) in "TZX" for pid in pids))
    found = look()
    if not found:
        for pid in pids:
            _signal(pid, signal.SIGCONT)
    return found


def _look(driver: int, folder: Path, share: float, finished: int) -> HalfDone | None:
    """None where it is not half done, or moved while it was looked at."""
    try:
        run = read_run(folder)
        left = {shard.index: shard for shard in missing(run)}
        begun = [each for each in read_progress(run) if each.shard in left and is_child(each.pid, driver)
                 and each.done_records > 0 and each.done_records >= share * left[each.shard].records]  # fmt: skip
        if not begun or not finished <= len(run.shards) - len(left) < len(run.shards):
            return None
        staging = [run.staging / f"{each.shard}.{each.attempt}" for each in begun]
        files = [path for one in staging for path in one.rglob("*") if path.is_file() and not path.name.startswith(HEARTBEAT)]
        return HalfDone(len(run.shards) - len(left), len(run.shards), begun, sum(path.stat().st_size for path in files))
    except FileNotFoundError:
        return None


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def state(pid: int) -> str:
    """As in /proc/PID/stat: R runs, S sleeps, T is stopped, Z has ended; X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_child(pid: int, of: int) -> bool:
    """Whether a process is another one, or one of those that it started, or they."""
    try:
        while pid > 1 and pid != of:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return False
    return pid == of


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
