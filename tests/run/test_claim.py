"""Who is at work on a shard is told by what changes, and by processes that are surely meant; odd heartbeats are nobody's."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
from places import ROOT, TESTS

from ecg_batch.request.parse import load_request
from ecg_batch.run import claim as claims
from ecg_batch.run.claim import HEARTBEAT, STALE_S, claim_shard, make_stale, read_progress
from ecg_batch.run.folder import open_run
from ecg_batch.run.identity import is_gone, own_process
from ecg_batch.run.planning import make_plan
from ecg_batch.run.status import describe


@pytest.fixture
def run(make_run):
    return make_run()


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds) lets the reader's own clock go on."""
    passed = [0.0]
    monotonic = time.monotonic
    monkeypatch.setattr(claims.time, "monotonic", lambda: monotonic() + passed[0])
    return lambda seconds: passed.__setitem__(0, passed[0] + seconds)


def of_another_host(claim) -> None:
    path = claim.staging / HEARTBEAT
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "node7"}))


def set_clock_of_maker(claim, ahead_s: float) -> None:
    when = time.time() + ahead_s
    os.utime(claim.staging / HEARTBEAT, (when, when))


# Two clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [0, 60, 3600, 10**8])
def test_a_dead_nodes_claim_is_taken_over_after_the_same_time_however_its_clock_went(run, clock, ahead_s):
    claim = claim_shard(run, run.shards[0])
    of_another_host(claim)
    set_clock_of_maker(claim, ahead_s)
    assert claim_shard(run, run.shards[0]) is None, "it may live: nobody has watched it yet"
    clock(STALE_S - 1)
    assert claim_shard(run, run.shards[0]) is None
    clock(2)
    assert claim_shard(run, run.shards[0]).attempt == 2


@pytest.mark.parametrize("ahead_s", [-7200, -3600, 3600])
def test_a_maker_that_beats_is_alive_however_its_clock_goes(run, clock, ahead_s):
    claim = claim_shard(run, run.shards[0])
    of_another_host(claim)
    set_clock_of_maker(claim, max(ahead_s, 0))
    for beat in range(4):
        assert claim_shard(run, run.shards[0]) is None
        clock(STALE_S - 1)
        claim.beat(beat)
        of_another_host(claim)
        set_clock_of_maker(claim, ahead_s + beat)
    assert read_progress(run)[0].is_fresh


def test_what_was_left_long_ago_is_taken_over_at_once(run):
    claim = claim_shard(run, run.shards[0])
    of_another_host(claim)
    set_clock_of_maker(claim, -STALE_S - 1)
    assert claim_shard(run, run.shards[0]).attempt == 2


def test_status_shows_no_negative_age(run):
    claim = claim_shard(run, run.shards[0])
    set_clock_of_maker(claim, 3600)
    assert read_progress(run)[0].age_s >= 0 and "-" not in describe(run.folder)[0].split("shard 0:")[1]


def test_what_is_watched_is_forgotten_with_the_claim(run):
    claim = claim_shard(run, run.shards[0])
    read_progress(run)
    assert any(str(run.staging) in path for path in claims._watched)
    claim.release()
    read_progress(run)
    assert not any(str(run.staging) in path for path in claims._watched)


# Which process --------------------------------------------------------------------------------------------------------

OTHERS = {
    "another boot": {"boot": "6f7c2d1e"},
    "another PID namespace": {"pid_namespace": 4026599999},
    "another host": {"host": "node7"},
    "nothing but host and pid": {"boot": None, "pid_namespace": None, "start_ticks": None},
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_process_that_cannot_be_looked_at_from_here_is_not_gone(case):
    assert not is_gone({**own_process(), "pid": 2**22 + 1, **OTHERS[case]})


def test_a_process_is_its_start():
    own = own_process()
    assert not is_gone(own) and is_gone({**own, "start_ticks": own["start_ticks"] - 1}) and is_gone({**own, "pid": 2**22 + 1})
    assert is_gone({**own, "pid": 2**70}), "no number of a process"


def test_a_zombie_is_gone():
    child = multiprocessing.get_context("fork").Process(target=os._exit, args=(0,))
    child.start()
    deadline = time.monotonic() + 60
    while not is_gone({**own_process(), "pid": child.pid, "start_ticks": None}):
        assert time.monotonic() < deadline
    child.join()


CONTAINER = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from ecg_batch.dataset.run import read_run
from ecg_batch.run.claim import claim_shard
run = read_run(Path({folder!r}))
claim = claim_shard(run, run.shards[0])
print("claimed" if claim else "left alone", flush=True)
time.sleep({rest_s})
"""


def in_container(run, rest_s: float, forks: int = 0) -> subprocess.Popen:
    """A process in a PID namespace of its own, on this host by name. forks: processes there before it, so that ids differ."""
    script = CONTAINER.format(path=[str(ROOT), str(TESTS)], folder=str(run.folder), rest_s=rest_s)
    before = f'for i in $(seq {forks}); do /bin/true; done; "$0" "$@"; exit $?'
    words = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", before, sys.executable, "-c", script]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_containers_on_a_host_leave_each_others_shard_alone(run):
    first = in_container(run, 60)
    if (line := first.stdout.readline()) == "":
        pytest.skip(f"no namespaces here: {first.communicate()[1]}")
    try:
        assert line == "claimed\n"
        second = in_container(run, 0, forks=40)
        assert second.communicate(timeout=60)[0] == "left alone\n"
        assert [progress.attempt for progress in read_progress(run)] == [1]
        assert claim_shard(run, run.shards[0]) is None, "from outside neither"
    finally:
        first.kill()
        first.wait()


# Colleagues -----------------------------------------------------------------------------------------------------------


def test_a_colleague_makes_a_claim_stale_that_is_not_his_file(make_run, open_folder, write_request):
    """Of the same group: may write the folder, and yet may not set the time of another's file."""
    run = open_run(*make_plan(load_request(write_request())), open_folder / "run")
    claim = claim_shard(run, run.shards[0])
    for path in (run.folder, run.staging, claim.staging):
        os.chmod(path, 0o777)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setuid(54321)
            with pytest.raises(PermissionError):
                os.utime(claim.staging / HEARTBEAT, (0, 0))
            make_stale(run, read_progress(run)[0])
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert read_progress(run)[0].is_freed and not read_progress(run)[0].is_fresh
    claim.beat(64)
    assert read_progress(run)[0].is_fresh, "a maker that lives after all goes on"


# Odd heartbeats -------------------------------------------------------------------------------------------------------

SOUND = {"done_records": 3, "host": "node7", "pid": 7, "started": 1.7e9, "job": "17.0", "batch": 64}
ODD_VALUES = [None, True, "3", [], {}, -1, 1e400, float("nan"), 10**30, "\x1b[2J", "a\nb", "x" * 10_000]
ODD_BEATS = [
    *(json.dumps({**SOUND, key: value}) for key in SOUND for value in ODD_VALUES),
    *(json.dumps({name: value for name, value in SOUND.items() if name != key}) for key in SOUND),
    *("", "{", "[]", "null", "3", "[" * 100_000, "1" * 10_000, "\x00", '{"done_records": ' + "9" * 5000 + "}"),
]


def test_odd_heartbeats_show_no_traceback_and_keep_nobody_away(run):
    staging = run.staging / "0.1"
    for text in ODD_BEATS:
        staging.mkdir(parents=True, exist_ok=True)
        (staging / HEARTBEAT).write_text(text)
        said, _ = describe(run.folder)
        assert "\x1b" not in said and len(said) < 2000, text[:100]
        read = read_progress(run, 0)[0]
        assert 0 <= read.done_records < 2**53 and read.pid >= 0 and len(read.host) <= 200, text[:100]
    claim = claim_shard(run, run.shards[0])
    assert claim is not None and claim.attempt == 2


def test_a_heartbeat_that_says_more_than_its_shard_holds_counts_as_the_shard(run):
    claim = claim_shard(run, run.shards[4])  # 28 records
    claim.beat(10**12)
    assert "28 of 540 records" in describe(run.folder)[0]


@pytest.mark.parametrize("name", ["999.1", "5.1", "٣.1", "0.1x", "00.1"])
def test_claims_of_no_planned_shard_are_not_shown(run, name):
    (run.staging / name).mkdir()
    (run.staging / name / HEARTBEAT).write_text(json.dumps({**SOUND, **own_process()}))
    assert name == "00.1" or "0 running" in describe(run.folder)[0]
