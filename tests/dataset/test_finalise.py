"""Finalise may be killed anywhere, run twice, or run by two at once; it never finishes what is not whole."""

import shutil
import subprocess
import threading
import tracemalloc
from dataclasses import replace
from itertools import islice

import pytest
from fakes import fake

from ecg_batch.dataset.finalise import finalise, finalise_steps
from ecg_batch.dataset.layout import cut_shards, partial_of
from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.parts import ROW_GROUP_RECORDS, ROW_GROUPS, row_groups
from ecg_batch.dataset.run import find_folder
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import run_missing, synthesize

STEPS = 9  # steps of finalise_steps; the law below is checked after each of them


@pytest.fixture
def complete(make_run):
    """A run with all shards and no finalise."""
    run = make_run()
    run_missing(run, 1, fake())
    return run


@pytest.mark.slow
def test_there_are_as_many_steps_as_we_stop_at(complete):
    assert len(list(finalise_steps(complete))) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("steps", range(STEPS + 1))
def test_killed_after_any_step_the_same_command_finishes_it(complete, write_request, steps):
    run = complete
    receipts = {path.name: path.read_bytes() for path in (run.folder / "receipts").iterdir()}
    list(islice(finalise_steps(run), steps))
    synthesize(load_request(write_request()), run.out, 1, fake())
    assert find_folder(run.out) == run.out and not partial_of(run.out).exists()
    assert list(verify(run.out)) == []
    assert {path.name: path.read_bytes() for path in (run.out / "receipts").iterdir()} == receipts, "shards were made again"


def test_sha256sum_accepts_the_sums(make_dataset):
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=make_dataset(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_finalisers_at_once(complete):
    run = complete
    errors = []

    def work():
        try:
            finalise(run)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(verify(run.out)) == []


@pytest.mark.slow
def test_two_finalisers_in_lockstep_without_a_lock(complete):
    """The file system may know no locks: two go through all the steps side by side."""
    run = complete
    one, two = finalise_steps(run), finalise_steps(run)
    for _ in range(STEPS - 1):
        next(one), next(two)
    next(one)
    with pytest.raises(FileNotFoundError):  # which `finalise` knows to mean that another one did it
        next(two)
    assert list(verify(run.out)) == []


def test_row_groups_are_bounded_in_number_and_size(make_run):
    """Footer and memory: 24,415 row groups took 1.2 GB."""
    run = make_run()
    for shards, shard in ((1, 4096), (1024, 4096), (1025, 4096), (24_415, 4096), (3000, 2**20), (5000, 64)):
        request = replace(run.request, records=shards * shard - 1, shard=shard)
        big = replace(run.plan, request=request, shards=cut_shards(request.records, shard))
        groups = row_groups(big)
        assert [shard for group in groups for shard in group] == list(big.shards)
        most = max(sum(shard.records for shard in group) for group in groups)
        assert most <= max(ROW_GROUP_RECORDS, shard) and (len(groups) <= ROW_GROUPS or most >= ROW_GROUP_RECORDS)


@pytest.mark.slow
def test_what_is_kept_of_a_shard_in_memory(make_run):
    """A whole receipt has 3 kB of Python's memory, what was kept of it 0.7 kB, and there may be 25,000. Now it is 0.2 kB."""
    kept = {}
    for shards in (2, 10, 90):  # with the first, everything is imported that will be
        run = make_run(f"of {shards}", records=64 * shards, shard=64)
        run_missing(run, 1, fake())
        tracemalloc.start()
        steps = finalise_steps(run)
        assert next(steps) == "shards checked"
        kept[shards] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert kept[90] - kept[10] < 80 * 600, kept


@pytest.mark.slow
def test_gaps_are_refused_by_name(complete):
    run = complete
    (run.folder / "receipts/1.json").unlink()
    (run.folder / "ecg.zarr/ecg/c.3.0.0").unlink()
    with pytest.raises(UserError, match="2 of 5 shards have no receipt: 1, 3. Run the same command again"):
        finalise(run)
    assert run.folder.exists() and not run.out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ecg.zarr/ecg/c.2.0.0", "parts/2.arrow", "parts/2.beats.arrow"])
def test_damage_is_refused_and_only_that_shard_made_anew(complete, write_request, name):
    run = complete
    data = bytearray((run.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run.folder / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: damaged.*Delete .*receipts/2.json"):
        finalise(run)
    (run.folder / "receipts/2.json").unlink()
    kept = (run.folder / "receipts/1.json").read_bytes()
    synthesize(load_request(write_request()), run.out, 1, fake())
    assert (run.out / "receipts/1.json").read_bytes() == kept
    assert list(verify(run.out)) == []


@pytest.mark.slow
def test_damage_after_the_sums_is_refused(complete):
    run = complete
    list(islice(finalise_steps(run), 5))
    (run.folder / "records.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="records.parquet damaged.*Delete SHA256SUMS"):
        finalise(run)


@pytest.mark.slow
def test_the_content_root_is_the_same_wherever_it_is_made(make_dataset, tmp_path):
    first = make_dataset("one")
    second = make_dataset("deeper/two")
    assert read_manifest(first)["content_root"] == read_manifest(second)["content_root"]
    for name in ("records.parquet", "plan.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    # golden: the samples of the fake generator. Changed on purpose (draws.py, fakes.py)? Put the new value here
    assert read_manifest(first)["content_root"][:16] == GOLDEN
    shutil.rmtree(first)


GOLDEN = "2100515730be9b16"
