"""Receipts are the truth: created once, the first wins, and only a valid one counts."""

import json
import os
import time

import pytest
from fakes import fake

from ecg_batch.dataset.receipts import missing
from ecg_batch.dataset.write import build_shard
from ecg_batch.files import write_new, write_over
from ecg_batch.run.claim import HEARTBEAT, STALE_S, claim_shard, read_progress
from ecg_batch.run.commit import commit_shard
from ecg_batch.run.identity import own_process
from ecg_batch.synthesis.source import query_source


@pytest.fixture
def run(make_run):
    return make_run()


@pytest.fixture
def commit(run):
    """commit(shard index) makes and commits one shard."""

    def commit(index: int) -> None:
        claim = claim_shard(run, run.shards[index])
        queries_of = query_source(run.request, run.folder)
        ecg, rows, beats = fake()(run.plan)(claim.shard, run.request.batch, queries_of, claim.beat)
        commit_shard(run, claim, build_shard(run.plan, claim.shard, ecg, rows, claim.staging, beats))
        claim.release()

    return commit


def indices(run):
    return [shard.index for shard in missing(run)]


def test_missing_is_planned_minus_valid(run, commit):
    assert indices(run) == [0, 1, 2, 3, 4]
    commit(3)
    assert indices(run) == [0, 1, 2, 4]
    assert os.listdir(run.folder / "staging") == []


def damage_truncated(run):
    path = run.receipt(1)
    path.write_bytes(path.read_bytes()[:100])


def damage_empty(run):
    run.receipt(1).write_bytes(b"")


def damage_other_run(run):
    path = run.receipt(1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "run_id": "another"}))


def damage_file_gone(run):
    (run.folder / "ecg.zarr/ecg/c.1.0.0").unlink()


def damage_part_cut(run):
    os.truncate(run.folder / "parts/1.arrow", 10)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [damage_truncated, damage_empty, damage_other_run, damage_file_gone, damage_part_cut])
def test_an_invalid_receipt_is_no_receipt_and_is_replaced(run, commit, damage):
    commit(1)
    damage(run)
    assert indices(run) == [0, 1, 2, 3, 4]
    commit(1)
    assert indices(run) == [0, 2, 3, 4]


def test_of_two_makers_of_a_shard_the_first_receipt_stays(run, commit):
    commit(2)
    first = run.receipt(2).read_bytes()
    commit(2)
    assert run.receipt(2).read_bytes() == first


def test_write_new_is_exclusive_and_write_over_is_not(tmp_path):
    path = tmp_path / "file"
    assert write_new(path, b"one", tmp_path)
    assert not write_new(path, b"two", tmp_path)
    assert path.read_bytes() == b"one"
    write_over(path, b"three", tmp_path)
    assert path.read_bytes() == b"three"
    assert os.listdir(tmp_path) == ["file"]


def test_a_claim_is_exclusive_while_it_is_fresh(run):
    claim = claim_shard(run, run.shards[0])
    assert claim_shard(run, run.shards[0]) is None
    assert claim_shard(run, run.shards[1]) is not None
    claim.release()
    assert claim_shard(run, run.shards[0]).attempt == 1


def test_a_claim_without_a_heartbeat_for_long_is_taken_over(run):
    old = claim_shard(run, run.shards[0])
    past = time.time() - STALE_S - 1
    os.utime(old.staging / HEARTBEAT, (past, past))
    new = claim_shard(run, run.shards[0])
    assert new.attempt == 2 and new.staging.exists() and not old.staging.exists()
    with pytest.raises(FileNotFoundError):  # so the former owner, should it still live, learns of it
        old.beat(64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        None,
        json.dumps({"done_records": 3, **own_process(), "pid": 2**22 + 1, "started": 0}).encode(),
        json.dumps({"done_records": 3, **own_process(), "start_ticks": 1, "started": 0}).encode(),  # its id is another's now
    ],
)
def test_a_stray_staging_folder_is_taken_over_at_once(run, content):
    """Left by a kill -9, its heartbeat whole, cut off or absent: no waiting for it to grow stale."""
    stray = run.folder / "staging/0.7"
    stray.mkdir()
    (stray / "half a file").write_bytes(b"x")
    if content is not None:
        (stray / HEARTBEAT).write_bytes(content)
    claim = claim_shard(run, run.shards[0])
    assert claim.attempt == 8 and not stray.exists()
    assert [progress.attempt for progress in read_progress(run)] == [8]
