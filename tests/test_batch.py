"""A batch too large for the memory: the shard fails, or is made with half of it where the request allows that, and says so."""

import errno
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TESTS
from fakes import open_fake, synthesize_fake
from test_verify import flip_bit

from ecg_batch.batch import batch_of, halve, is_out_of_memory
from ecg_batch.claim import claim_shard
from ecg_batch.commit import read_receipt
from ecg_batch.execute import ShardsFailed, synthesize
from ecg_batch.finalise import _sums_text
from ecg_batch.plan import ecg_file, make_plan, partial_of, read_plan
from ecg_batch.repair import repair
from ecg_batch.request import request_from_resolved
from ecg_batch.request_file import load_request
from ecg_batch.shard import open_assets, synthesize_shard
from ecg_batch.status import describe_finished, read_manifest
from ecg_batch.verify import verify
from ecg_batch.worker import Generator, Task, Tools, _make

FITS = {1: 32, 3: 8}  # shard -> the largest batch that its memory is enough for; the requests here say 64


def synthesize_hungry(plan, assets, shard, queries_of, on_batch):
    """As the fake generator, with other bytes for another batch, and an end to the memory."""
    if plan.request.batch > FITS.get(shard.index, 64):
        raise MemoryError("no more")
    seed = plan.request.seed + plan.request.batch
    return synthesize_fake(replace(plan, request=replace(plan.request, seed=seed)), assets, shard, queries_of, on_batch)


HUNGRY = Generator(open_fake, synthesize_hungry)


@pytest.fixture
def halved(write_request, tmp_path):
    synthesize(load_request(write_request(batch_on_oom="halve")), tmp_path / "halved", 1, HUNGRY)
    return tmp_path / "halved"


def content(dataset, shard: int) -> str:
    return json.loads((dataset / f"receipts/{shard}.json").read_bytes())["content_sha256"]


def test_without_leave_the_shard_fails(write_request, tmp_path):
    with pytest.raises(ShardsFailed, match="2 of 5 shards failed: shard 1: MemoryError: no more; shard 3: MemoryError: no more"):
        synthesize(load_request(write_request()), tmp_path / "run", 1, HUNGRY)


def test_with_leave_it_is_made_with_half_and_named(halved):
    batches = [json.loads((halved / f"receipts/{shard}.json").read_bytes())["batch"] for shard in range(5)]
    assert batches == [64, 32, 64, 8, 64]
    assert read_manifest(halved)["smaller_batch"] == {"32": [1], "8": [3]}
    assert "2 shards made with a smaller batch" in describe_finished(halved, read_manifest(halved))
    assert list(verify(halved)) == []


def test_its_records_are_those_of_a_request_with_that_batch(halved, write_request, tmp_path):
    for batch, shards in ((64, (0, 2, 4)), (32, (1,)), (8, (3,))):
        request = load_request(write_request(batch=batch))
        plan, _ = make_plan(request)
        synthesize(request, tmp_path / f"b{batch}", 1, HUNGRY, only=frozenset(shards))
        for shard in shards:
            assert content(partial_of(tmp_path / f"b{batch}"), shard) == content(halved, shard)
        assert plan.run_id != read_manifest(halved)["run_id"]


def test_it_is_repaired_with_the_batch_it_had(halved, write_request, monkeypatch):
    """Also where memory is there by now, and where the receipt is damaged too."""
    before = read_manifest(halved)
    flip_bit(halved / ecg_file(1), 0.5)
    flip_bit(halved / ecg_file(3), 0.5)
    flip_bit(halved / "receipts/3.json", 0.5)
    assert repair(halved)[1] == [1, 3]
    monkeypatch.setattr(sys.modules[__name__], "FITS", {})
    synthesize(load_request(write_request(batch_on_oom="halve")), halved, 1, HUNGRY)
    after = read_manifest(halved)
    assert (after["content_root"], after["smaller_batch"]) == (before["content_root"], before["smaller_batch"])


def test_a_manifest_that_hides_it_is_found_out(halved):
    manifest = json.loads((halved / "dataset.json").read_bytes())
    del manifest["smaller_batch"]
    (halved / "dataset.json").write_text(json.dumps(manifest))
    (halved / "SHA256SUMS").write_bytes(_sums_text(read_plan(halved), halved, {}))
    assert any("smaller batch are not as the receipts say" in problem for problem in verify(halved))


def test_decided_once_and_only_downwards(make_run):
    plan, folder, _ = make_run(batch_on_oom="halve")
    assert halve(plan, folder, 2, 64) and halve(plan, folder, 2, 64), "two see the same end"
    assert [batch_of(plan, folder, shard) for shard in (1, 2)] == [64, 32]
    assert halve(plan, folder, 2, 32) and halve(plan, folder, 2, 64), "the second knows of the first end only"
    assert batch_of(plan, folder, 2) == 16
    assert not halve(plan, folder, 2, 1) and not halve(plan, folder, 2, 5), "there is no half"
    fixed, folder, _ = make_run("fixed")
    assert not halve(fixed, folder, 2, 64) and batch_of(fixed, folder, 2) == 64


def test_who_was_thought_dead_does_not_commit(make_run):
    """A maker with the whole batch goes on (split brain) after half of it was decided: the shard is left to the other."""
    plan, folder, _ = make_run(batch_on_oom="halve")
    task, tools = Task(plan, folder, HUNGRY), Tools(None, lambda start, stop: None, NoMeter())
    shard = plan.shards[0]
    task = replace(task, generator=Generator(open_fake, lambda *given: (halve(plan, folder, 0, 64), made(plan, shard))[1]))
    claim = claim_shard(folder, shard, 64)
    _make(task, tools, claim)
    claim.release()
    assert read_receipt(plan, folder, 0) is None
    _make(task, tools, claim_shard(folder, shard, 32))
    assert read_receipt(plan, folder, 0)["batch"] == 32


def made(plan, shard):
    from ecg_batch.query import query_source

    return synthesize_fake(plan, None, shard, query_source(plan.request, None), lambda done: None)


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


def test_the_real_generator_takes_another_batch(tmp_path):
    """128 records of the bundled bank and models, by the batch of the plan that they are given."""

    def hungry(plan, *rest):
        if plan.request.batch > 32:
            raise MemoryError
        return synthesize_shard(plan, *rest)

    given = ["records=128", "shard=128", "batch=64"]
    demo = TESTS.parent / "configs" / "demo.yaml"
    synthesize(load_request(demo, [*given, "batch_on_oom=halve"]), tmp_path / "halved", 1, Generator(open_assets, hungry))
    synthesize(load_request(demo, [*given[:2], "batch=32"]), tmp_path / "asked", 1, Generator(open_assets, synthesize_shard))
    assert content(tmp_path / "halved", 0) == content(tmp_path / "asked", 0)
    assert read_manifest(tmp_path / "halved")["smaller_batch"] == {"32": [0]}
