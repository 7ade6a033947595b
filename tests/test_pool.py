"""Pools: their processes end with whoever began them, and there is one place that begins them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from places import ROOT

PARENT = """
import os, sys, time
from ecg_batch.pool import pool_of

def number(_):
    time.sleep(0.2)
    return os.getpid()

if __name__ == "__main__":
    with pool_of(2) as pool:
        print(*sorted(set(pool.map(number, range(8)))), flush=True)
        if sys.argv[1] == "at work":
            pool.submit(time.sleep, 600)
        time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["at work", "idle"])
def test_the_processes_of_a_pool_end_with_a_parent_that_is_killed(tmp_path, doing):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", doing], stdout=subprocess.PIPE, text=True, env=environment)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers and all(map(is_alive, workers))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    until = time.monotonic() + 60
    while alive := [pid for pid in workers if is_alive(pid)]:
        assert time.monotonic() < until, alive
        time.sleep(0.05)


def test_every_pool_is_begun_in_one_place():
    """Export and evaluation once had pools of their own, whose processes outlived them."""
    files = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "ecg_batch").rglob("*.py")}
    words = ("ProcessPoolExecutor(", "multiprocessing.Pool", "import Pool")
    assert {name for name, text in files.items() if any(word in text for word in words)} == {"ecg_batch/pool.py"}
