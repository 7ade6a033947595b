"""Status says from files alone what is done, running, failed and waiting."""

import json
import subprocess
import sys
import time

import pytest
from fakes import fake
from places import TESTS

from ecg_batch.dataset.layout import FAILURES
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import claim_shard
from ecg_batch.run.local import ShardsFailed, run_missing, synthesize
from ecg_batch.run.status import describe, duration, look


def test_a_run_half_way(make_run):
    run = make_run()
    try:
        run_missing(run, 1, fake(poisoned=(130,)))
    except ShardsFailed:
        pass
    run.receipt(4).unlink()
    run.receipt(3).unlink()
    claim = claim_shard(run, run.shards[3])
    claim.beat(64)
    status = look(run)
    assert sorted(status.receipts) == [0, 2] and [progress.shard for progress in status.running] == [3]
    assert status.failed == {1: "RuntimeError: record 130 is poisoned"}
    assert status.records_kept == 256 and status.records_done == 320
    text, well = describe(run.folder)
    assert not well
    assert "2 of 5 shards done, 1 running, 1 failed, 1 waiting" in text
    assert "320 of 540 records (59.3%)" in text and " left" in text
    assert "shard 3: 64 records" in text and f"{FAILURES}/1.txt" in text


@pytest.mark.slow
def test_the_job(make_run, make_dataset):
    def job(path):
        command = [sys.executable, str(TESTS.parent / "jobs/status.py"), str(path)]
        return subprocess.run(command, capture_output=True, text=True)

    run = make_run()
    assert (
        job(run.out).returncode == 0 and "0 of 5 shards done" in job(run.out).stdout and "nobody is at work" in job(run.out).stdout
    )
    assert "finished. 540 records in 5 shards" in job(make_dataset()).stdout
    assert job(run.folder.parent / "nothing").returncode == 2


def test_nodes_energy_and_stragglers(make_run, monkeypatch):
    run = make_run()
    for node, only in (("node1", {0, 1}), ("node2", {2})):
        monkeypatch.setenv("SLURMD_NODENAME", node)
        run_missing(run, 1, fake(), frozenset(only))
    claim = claim_shard(run, run.shards[3])
    heartbeat = claim.staging / "progress.json"
    heartbeat.write_text(json.dumps({**json.loads(heartbeat.read_text()), "started": time.time() - 3600, "job": "17.0"}))
    text, _ = describe(run.folder)
    assert "node node2: 1 shard done, 1 running" in text and "node node1: 2 shards done, 0 running" in text
    assert "shard 3: 0 records, node2 job 17.0, attempt 1; straggler: at it for 1 h 0 min, the median is" in text
    assert "energy: " in text


@pytest.mark.slow
def test_watch_ends_with_the_run(make_run, write_request):
    run = make_run()
    command = [sys.executable, str(TESTS.parent / "jobs/status.py"), str(run.out), "--watch", "0.1"]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "0 of 5 shards done" in watch.stdout.readline()
    synthesize(load_request(write_request()), run.out, 1, fake())
    assert "finished. 540 records" in watch.communicate(timeout=10)[0] and watch.returncode == 0


@pytest.mark.slow
def test_ten_thousand_receipts_are_looked_through_in_a_second(make_run):
    run = make_run(records=640_000, shard=64)
    assert len(run.shards) == 10_000
    for shard in run.shards:
        files = {name: {"bytes": 0, "sha256": "0" * 64} for name in run.plan.shard_files(shard)}
        for name in files:
            (run.folder / name).touch()
        receipt = {"format": 1, "run_id": run.plan.run_id, "shard": shard.index, "files": files, "content_sha256": "0" * 64}
        run.receipt(shard.index).write_text(json.dumps({**receipt, "records": 64, "seconds": 1.0, "bytes": 0}))
    start = time.process_time()
    assert "10,000 of 10,000 shards done" in describe(run.folder)[0]
    assert time.process_time() - start < 2  # of a processor, whoever else is at work; seldom over 1


def test_durations():
    assert [duration(s) for s in (0.25, 9.99, 42.4, 200, 18_720)] == [
        "0.2 s",
        "10.0 s",
        "42 s",
        "3 min 20 s",
        "5 h 12 min",
    ]
