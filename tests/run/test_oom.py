"""A batch too large for the memory: the shard fails, or is made with half of it where the request allows that, and says so."""

import errno
import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from comparing import flip_bit
from fakes import make_fake_shard
from places import TESTS

from ecg_batch.dataset.layout import ecg_file, partial_of
from ecg_batch.dataset.manifest import read_manifest, sums_text
from ecg_batch.dataset.receipts import read_receipt
from ecg_batch.dataset.run import read_run
from ecg_batch.dataset.verify import verify
from ecg_batch.request.model import request_from_resolved
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import claim_shard
from ecg_batch.run.local import ShardsFailed, synthesize
from ecg_batch.run.oom import batch_of, halve, is_out_of_memory
from ecg_batch.run.planning import make_plan
from ecg_batch.run.repair import repair
from ecg_batch.run.status import describe_finished
from ecg_batch.run.worker import Tools, Worker, _make
from ecg_batch.synthesis.generate import open_generator

FITS = {1: 32, 3: 8}  # shard -> the largest batch that its memory is enough for; the requests here say 64


def make_hungry_shard(plan, shard, batch, queries_of, on_batch):
    """As the fake generator, with other bytes for another batch, and an end to the memory."""
    if batch > FITS.get(shard.index, 64):
        raise MemoryError("no more")
    seed = plan.request.seed + batch
    return make_fake_shard(replace(plan, request=replace(plan.request, seed=seed)), shard, batch, queries_of, on_batch)


def hungry(plan):
    return partial(make_hungry_shard, plan)


@pytest.fixture
def halved(write_request, tmp_path):
    synthesize(load_request(write_request(batch_on_oom="halve")), tmp_path / "halved", 1, hungry)
    return tmp_path / "halved"


def content(dataset, shard: int) -> str:
    return json.loads((dataset / f"receipts/{shard}.json").read_bytes())["content_sha256"]


def test_without_leave_the_shard_fails(write_request, tmp_path):
    with pytest.raises(ShardsFailed, match="2 of 5 shards failed: shard 1: MemoryError: no more; shard 3: MemoryError: no more"):
        synthesize(load_request(write_request()), tmp_path / "run", 1, hungry)


def test_with_leave_it_is_made_with_half_and_named(halved):
    batches = [json.loads((halved / f"receipts/{shard}.json").read_bytes())["batch"] for shard in range(5)]
    assert batches == [64, 32, 64, 8, 64]
    assert read_manifest(halved)["smaller_batch"] == {"32": [1], "8": [3]}
    assert "2 shards made with a smaller batch" in describe_finished(halved, read_manifest(halved))
    assert list(verify(halved)) == []


@pytest.mark.slow
def test_its_records_are_those_of_a_request_with_that_batch(halved, write_request, tmp_path):
    for batch, shards in ((64, (0, 2, 4)), (32, (1,)), (8, (3,))):
        request = load_request(write_request(batch=batch))
        plan, _ = make_plan(request)
        synthesize(request, tmp_path / f"b{batch}", 1, hungry, only=frozenset(shards))
        for shard in shards:
            assert content(partial_of(tmp_path / f"b{batch}"), shard) == content(halved, shard)
        assert plan.run_id != read_manifest(halved)["run_id"]


@pytest.mark.slow
def test_it_is_repaired_with_the_batch_it_had(halved, write_request, monkeypatch):
    """Also where memory is there by now, and where the receipt is damaged too."""
    before = read_manifest(halved)
    flip_bit(halved / ecg_file(1), 0.5)
    flip_bit(halved / ecg_file(3), 0.5)
    flip_bit(halved / "receipts/3.json", 0.5)
    assert repair(halved)[1] == [1, 3]
    monkeypatch.setattr(sys.modules[__name__], "FITS", {})
    synthesize(load_request(write_request(batch_on_oom="halve")), halved, 1, hungry)
    after = read_manifest(halved)
    assert (after["content_root"], after["smaller_batch"]) == (before["content_root"], before["smaller_batch"])


@pytest.mark.slow
def test_a_manifest_that_hides_it_is_found_out(halved):
    manifest = json.loads((halved / "dataset.json").read_bytes())
    del manifest["smaller_batch"]
    (halved / "dataset.json").write_text(json.dumps(manifest))
    (halved / "SHA256SUMS").write_bytes(sums_text(read_run(halved), {}))
    assert any("smaller batch are not as the receipts say" in problem for problem in verify(halved))


def test_decided_once_and_only_downwards(make_run):
    run = make_run(batch_on_oom="halve")
    assert halve(run, 2, 64) and halve(run, 2, 64), "two see the same end"
    assert [batch_of(run, shard) for shard in (1, 2)] == [64, 32]
    assert halve(run, 2, 32) and halve(run, 2, 64), "the second knows of the first end only"
    assert batch_of(run, 2) == 16
    assert not halve(run, 2, 1) and not halve(run, 2, 5), "there is no half"
    fixed = make_run("fixed")
    assert not halve(fixed, 2, 64) and batch_of(fixed, 2) == 64


def test_who_was_thought_dead_does_not_commit(make_run):
    """A maker with the whole batch goes on (split brain) after half of it was decided: the shard is left to the other."""
    run = make_run(batch_on_oom="halve")
    task, shard = Worker(run, hungry), run.shards[0]
    tools = Tools(lambda *given: (halve(run, 0, 64), made(run.plan, shard))[1], lambda start, stop: None, NoMeter())
    claim = claim_shard(run, shard, 64)
    _make(task, tools, claim)
    claim.release()
    assert read_receipt(run, 0) is None
    _make(task, tools, claim_shard(run, shard, 32))
    assert read_receipt(run, 0)["batch"] == 32


def made(plan, shard):
    from ecg_batch.synthesis.source import query_source

    return make_fake_shard(plan, shard, plan.request.batch, query_source(plan.request, None), lambda done: None)


class NoMeter:
    def read(self):
        return None

    def since(self, start):
        return {}


def test_the_default_leaves_older_run_ids_alone(write_request):
    default, halving = load_request(write_request()), load_request(write_request(batch_on_oom="halve"))
    assert "batch_on_oom" not in default.resolved() and halving.resolved()["batch_on_oom"] == "halve"
    for request in (default, halving):
        read_back = request_from_resolved(json.loads(json.dumps(request.resolved())), request.bank, request.models)
        assert read_back == replace(request, source="")


def test_out_of_memory_is_told():
    for ask in (lambda: np.empty(2**62, np.uint8), lambda: torch.empty(2**60)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            ask()
        assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and is_out_of_memory(OSError(errno.ENOMEM, "mmap"))
    assert not any(map(is_out_of_memory, (ValueError("out of memory"), RuntimeError("poisoned"), OSError(2, "no file"))))


@pytest.mark.slow
def test_the_real_generator_takes_another_batch(tmp_path):
    """128 records of the bundled bank and models, by the batch of the plan that they are given."""

    def open_hungry(plan):
        make_shard = open_generator(plan)

        def make(shard, batch, *rest):
            if batch > 32:
                raise MemoryError
            return make_shard(shard, batch, *rest)

        return make

    given = ["records=128", "shard=128", "batch=64"]
    demo = TESTS.parent / "configs" / "demo.yaml"
    synthesize(load_request(demo, [*given, "batch_on_oom=halve"]), tmp_path / "halved", 1, open_hungry)
    synthesize(load_request(demo, [*given[:2], "batch=32"]), tmp_path / "asked", 1, open_generator)
    assert content(tmp_path / "halved", 0) == content(tmp_path / "asked", 0)
    assert read_manifest(tmp_path / "halved")["smaller_batch"] == {"32": [0]}
