"""The tables of a run: written by shard, merged, split again into the very bytes; a row group of beats holds whole records."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import fake_rows
from making import plan_of

from ecg_batch.dataset import parts
from ecg_batch.dataset.beats import beats_table
from ecg_batch.dataset.layout import PLAN, RECORDS, STAGING
from ecg_batch.dataset.plan import BEATS, plan_to_json, read_plan, run_id_of
from ecg_batch.dataset.run import Run
from ecg_batch.dataset.verify import _records
from ecg_batch.errors import UserError

MIX = {"labels": {"NORM": 1.0}, "hr_bpm": 70}


def beats_of(record: int) -> pa.Table:
    count = record + 2
    samples, wave_ms = np.arange(count) * 100, np.arange(8) * 50.0 - 200 + record + np.arange(count)[:, None] % 3
    wave_ms[::4, :3] = np.nan
    return beats_table(np.full(count, record), samples, np.full(count, "N"), np.full(count, ""), wave_ms)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """(plan, folder with the parts of seven records of 130 s in shards of three, two records to a row group)."""
    monkeypatch.setattr(parts, "BEATS_GROUP_S", 300)
    plan = plan_of(tmp_path, records=7, duration_s=130, batch=3, shard=3, mix=MIX)
    for shard in plan.shards:
        rows = fake_rows(shard, ["NORM"] * shard.records, np.full(shard.records, 70.0)).select(parts.ROW_COLUMNS)
        parts.write_parts(plan, shard, rows, map(beats_of, range(shard.start, shard.stop)), tmp_path)
    (tmp_path / STAGING).mkdir()
    return plan, tmp_path


def test_a_row_group_of_beats_holds_whole_records_of_one_shard(run):
    plan, folder = run
    parts.merge_parts(Run(plan, folder))
    with pq.ParquetFile(folder / BEATS) as file:
        groups = [set(file.read_row_group(at)["record"].to_pylist()) for at in range(file.num_row_groups)]
        assert groups == [{0, 1}, {2}, {3, 4}, {5}, {6}]
        assert file.read().equals(pa.concat_tables(map(beats_of, range(7))))
    assert pq.read_table(folder / RECORDS)["record"].to_pylist() == list(range(7))


def test_parts_are_split_into_the_bytes_that_were_merged(run):
    plan, folder = run
    parts.merge_parts(Run(plan, folder))
    names = [name for shard in plan.shards for name in plan.part_files(shard).values()]
    before = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    parts.split_parts(Run(plan, folder))
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_a_damaged_row_group_costs_the_parts_of_its_shard_alone(run):
    plan, folder = run
    parts.merge_parts(Run(plan, folder))
    with pq.ParquetFile(folder / BEATS) as file:
        samples = file.metadata.row_group(1).column(1)  # of record 2, in the first shard
    data = bytearray((folder / BEATS).read_bytes())
    data[samples.data_page_offset + samples.total_compressed_size - 3] ^= 1
    (folder / BEATS).write_bytes(data)
    for shard in plan.shards:
        (folder / plan.part_files(shard)[BEATS]).unlink()
    parts.split_parts(Run(plan, folder))
    assert [(folder / plan.part_files(shard)[BEATS]).exists() for shard in plan.shards] == [False, True, True]


def test_only_samples_of_beats_have_no_dictionary(run):
    """As the parts of older runs: a repair splits these into their very bytes."""
    plan, folder = run
    for whole, without in ((RECORDS, set()), (BEATS, {"sample"})):
        with pq.ParquetFile(folder / plan.part_files(plan.shards[0])[whole]) as file:
            group = file.metadata.row_group(0)
            columns = [group.column(at) for at in range(group.num_columns)]
        plain = {column.path_in_schema for column in columns if not {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(column.encodings)}
        assert plain - {column.path_in_schema for column in columns if column.physical_type == "BOOLEAN"} == without


def test_a_footer_without_statistics_leaves_the_parts_absent(run):
    plan, folder = run
    parts.merge_parts(Run(plan, folder))
    pq.write_table(pq.read_table(folder / BEATS), folder / BEATS, write_statistics=False)
    for shard in plan.shards:
        (folder / plan.part_files(shard)[BEATS]).unlink()
    parts.split_parts(Run(plan, folder))
    assert not any((folder / plan.part_files(shard)[BEATS]).exists() for shard in plan.shards)


def test_a_run_planned_before_a_parameter_was_known_is_read(run):
    plan, folder = run
    raw = plan_to_json(plan)
    del raw["request"]["rhythm"]["respiration_variation"]
    (folder / PLAN).write_text(json.dumps({**raw, "run_id": run_id_of(raw["request"], plan.inputs)}))
    assert read_plan(folder).request.resolved() == plan.request.resolved()
    raw["request"]["seed"] += 1
    (folder / PLAN).write_text(json.dumps(raw))
    with pytest.raises(UserError, match="damaged"):
        read_plan(folder)


def test_verify_names_rows_that_are_lacking_or_out_of_order(run):
    plan, folder = run
    parts.merge_parts(Run(plan, folder))
    assert list(_records(Run(plan, folder), {})) == []
    rows = pq.read_table(folder / RECORDS)
    for told, wrong in (("6 rows; needed 7", rows.slice(0, 6)), ("row group 0 does not hold", rows.take([0, 2, 1, 3, 4, 5, 6]))):
        pq.write_table(wrong, folder / RECORDS)
        assert [told in problem for problem in _records(Run(plan, folder), {})] == [True]
    beats = pq.read_table(folder / BEATS)
    for told, wrong in (("ends with record 5 of 7", beats.slice(0, beats.num_rows - 8)), ("row group 0", beats.slice(2))):
        pq.write_table(wrong, folder / BEATS)
        assert told in next(_records(Run(plan, folder), {}))
