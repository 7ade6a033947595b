"""A damaged dataset is repaired by making just the damaged shards again, and ends in the same bytes."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from comparing import assert_same_dataset, flip_bit
from fakes import fake
from places import TESTS

from ecg_batch.dataset import parts
from ecg_batch.dataset.layout import ecg_file, partial_of
from ecg_batch.dataset.plan import read_plan
from ecg_batch.dataset.run import find_folder
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.run.repair import repair


def receipts(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "receipts").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damaged_file", "remade"),
    [(ecg_file(3), [3]), ("receipts/2.json", [2]), ("dataset.json", []), ("SHA256SUMS", []), ("ecg.zarr/zarr.json", [])],
)
def test_one_flip_costs_one_shard(make_dataset, write_request, damaged_file, remade):
    one, two = make_dataset("one"), make_dataset("two")
    before = receipts(two)
    flip_bit(two / damaged_file, 0.6)
    run, damaged = repair(two)
    assert damaged == remade and run.folder == partial_of(two) == find_folder(two)
    synthesize(load_request(write_request()), two, 1, fake())
    assert_same_dataset(one, two)
    kept = {name: data for name, data in receipts(two).items() if int(name.split(".")[0]) not in remade}
    assert kept == {name: before[name] for name in kept} and len(kept) == 5 - len(remade)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
@pytest.mark.parametrize("table", ["records.parquet", "beats.parquet"])
def test_damaged_rows_cost_the_shards_they_are_of(make_dataset, write_request, table, format):
    one, two = make_dataset("one", format=format), make_dataset("two", format=format)
    flip_bit(two / table, 0.5)
    assert [problem.split(":")[0] for problem in verify(two)] == [table]
    _, damaged = repair(two)
    assert len(damaged) == 1
    synthesize(load_request(write_request(format=format)), two, 1, fake())
    assert_same_dataset(one, two)


@pytest.mark.slow
def test_shards_that_share_a_row_group(make_dataset, write_request, monkeypatch):
    """As in runs of more than 256 shards: damaged rows cost the shards of their group, a damaged shard only itself."""
    monkeypatch.setattr(parts, "ROW_GROUPS", 2)
    one, two, three, four = map(make_dataset, ("one", "two", "three", "four"))
    assert [len(group) for group in parts.row_groups(read_plan(one))] == [3, 2]
    flip_bit(two / "records.parquet", 0.3)
    flip_bit(three / ecg_file(4), 0.5)
    with pq.ParquetFile(four / "beats.parquet") as beats:
        samples = beats.metadata.row_group(1).column(1)
        place = samples.data_page_offset + samples.total_compressed_size - 3
    flip_bit(four / "beats.parquet", place / (four / "beats.parquet").stat().st_size)
    for dataset, remade in ((two, [0, 1, 2]), (three, [4]), (four, [3, 4])):
        assert len(list(verify(dataset))) == 1
        assert repair(dataset)[1] == remade
        synthesize(load_request(write_request()), dataset, 1, fake())
        assert_same_dataset(one, dataset)


@pytest.mark.slow
def test_an_unfinished_run(make_dataset, write_request):
    one, two = make_dataset("one"), make_dataset("two")
    repair(two)
    flip_bit(partial_of(two) / ecg_file(0), 0.5)
    assert repair(partial_of(two))[1] == [0]
    synthesize(load_request(write_request()), two, 1, fake())
    assert_same_dataset(one, two)


def test_a_damaged_plan_is_beyond_repair(make_dataset):
    dataset = make_dataset()
    flip_bit(dataset / "plan.json", 0.5)
    with pytest.raises(UserError, match="plan.json: damaged"):
        repair(dataset)
    assert find_folder(dataset) == dataset


@pytest.mark.slow
def test_the_job(make_dataset):
    dataset = make_dataset()

    def job(*options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(TESTS.parent / "jobs/verify.py"), str(dataset), *options]
        return subprocess.run(command, capture_output=True, text=True)

    assert job("--repair").returncode == 0 and dataset.exists(), "a whole dataset is left alone"
    flip_bit(dataset / ecg_file(1), 0.5)
    assert "1 damaged shard given up: 1; 1 of 5 to be made" in job("--repair").stdout
    assert not os.path.exists(dataset)
    assert list(verify(partial_of(dataset))) == ["not finished: 1 of 5 shards have no valid receipt: 1"]
