"""The tables of a run: written by shard, merged, split again into the very bytes; a row group of beats holds whole records."""

import json
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import fake_beats, fake_rows
from making import plan_of

from ecg_batch.dataset import parts
from ecg_batch.dataset.beats import BEAT_COLUMNS, WAVE_COLUMNS, beats_table
from ecg_batch.dataset.layout import ARROW, PARQUET, PLAN, RECORDS, STAGING
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


@pytest.fixture(params=[ARROW, PARQUET])
def run(request, tmp_path, monkeypatch):
    """(plan, folder with the parts of seven records of 130 s in shards of three, two records to a row group). Parts as they are
    now, and as those of a run that was begun when they were Parquet.
    """
    monkeypatch.setattr(parts, "BEATS_GROUP_S", 300)
    plan = replace(plan_of(tmp_path, records=7, duration_s=130, batch=3, shard=3, mix=MIX), parts=request.param)
    for shard in plan.shards:
        rows = fake_rows(shard, ["NORM"] * shard.records, np.full(shard.records, 70.0)).select(parts.ROW_COLUMNS)
        parts.write_parts(plan, shard, rows, map(beats_of, range(shard.start, shard.stop)), tmp_path)
    (tmp_path / STAGING).mkdir()
    return plan, tmp_path


def _merge(run: Run) -> None:
    for whole, path in parts.merge(run, parts.row_groups(run.plan)).items():
        path.rename(run.folder / whole)


def test_merging_is_given_up_with_the_check_of_what_is_merged(run):
    """A damaged shard is told at once, whatever is still to be merged; and what was not checked is not read."""
    plan, folder = run

    def checked():
        yield parts.row_groups(plan)[0]
        for name in plan.part_files(plan.shards[1]).values():
            (folder / name).write_bytes(b"")
        raise UserError("damaged")

    with pytest.raises(UserError, match="damaged"):
        parts.merge(Run(plan, folder), checked())
    assert not (folder / RECORDS).exists() and not (folder / BEATS).exists()


def test_an_error_of_merging_is_told(run):
    plan, folder = run
    (folder / plan.part_files(plan.shards[2])[BEATS]).unlink()
    with pytest.raises(FileNotFoundError):
        _merge(Run(plan, folder))


def test_a_part_has_the_same_bytes_whatever_its_rows_came_in(run):
    """In the middle of another table, in pieces, with something under their nulls: none of that is in a file."""
    plan, folder = run
    rows = pa.concat_tables([beats_of(record) for record in range(40)])
    absent = rows["p_on_ms"].is_null().to_numpy()
    waves_ms = np.where(absent, 7, rows["p_on_ms"].fill_null(0)).astype(np.int16)
    hidden = rows.set_column(4, "p_on_ms", pa.array(waves_ms, mask=absent))
    pieces = pa.concat_tables([hidden.slice(0, 5), hidden.slice(5), hidden])
    again = rows.num_rows + 9
    for name, table in (("one", rows.slice(9, 101)), ("two", pieces.slice(again, 101)), ("three", pieces.slice(9, 101))):
        with open(folder / name, "wb") as file:
            parts._write_part(plan, file, [table])
    assert hidden.equals(rows)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes() == (folder / "three").read_bytes()


def test_a_row_group_of_beats_holds_whole_records_of_one_shard(run):
    plan, folder = run
    _merge(Run(plan, folder))
    with pq.ParquetFile(folder / BEATS) as file:
        groups = [set(file.read_row_group(at)["record"].to_pylist()) for at in range(file.num_row_groups)]
        assert groups == [{0, 1}, {2}, {3, 4}, {5}, {6}]
        assert file.read().equals(pa.concat_tables(map(beats_of, range(7))))
    assert pq.read_table(folder / RECORDS)["record"].to_pylist() == list(range(7))


def test_parts_are_split_into_the_bytes_that_were_merged(run):
    plan, folder = run
    _merge(Run(plan, folder))
    names = [name for shard in plan.shards for name in plan.part_files(shard).values()]
    before = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    parts.split_parts(Run(plan, folder))
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_a_damaged_row_group_costs_the_parts_of_its_shard_alone(run):
    plan, folder = run
    _merge(Run(plan, folder))
    with pq.ParquetFile(folder / BEATS) as file:
        samples = file.metadata.row_group(1).column(1)  # of record 2, in the first shard
    data = bytearray((folder / BEATS).read_bytes())
    data[samples.data_page_offset + samples.total_compressed_size - 3] ^= 1
    (folder / BEATS).write_bytes(data)
    for shard in plan.shards:
        (folder / plan.part_files(shard)[BEATS]).unlink()
    parts.split_parts(Run(plan, folder))
    assert [(folder / plan.part_files(shard)[BEATS]).exists() for shard in plan.shards] == [False, True, True]


def test_only_numbers_of_beats_had_no_dictionary_when_parts_were_parquet(tmp_path):
    """And without waves their samples alone: a repair splits these into their very bytes."""
    plan = plan_of(tmp_path, records=7, batch=64, shard=64, mix=MIX)
    rows = fake_rows(plan.shards[0], ["NORM"] * 7, np.full(7, 70.0)).select(parts.ROW_COLUMNS)
    for table, without in ((rows, set()), (beats_of(3), {"sample", *WAVE_COLUMNS}),
                           (beats_of(3).drop_columns(list(WAVE_COLUMNS)), {"sample"})):  # fmt: skip
        parts.write_groups(path := tmp_path / "former.parquet", [table], former=True)
        with pq.ParquetFile(path) as file:
            group = file.metadata.row_group(0)
            columns = [group.column(at) for at in range(group.num_columns)]
        plain = {column.path_in_schema for column in columns if not {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(column.encodings)}
        assert plain - {column.path_in_schema for column in columns if column.physical_type == "BOOLEAN"} == without


def test_a_footer_without_statistics_leaves_the_parts_absent(run):
    plan, folder = run
    _merge(Run(plan, folder))
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
    _merge(Run(plan, folder))
    assert list(_records(Run(plan, folder), {})) == []
    rows = pq.read_table(folder / RECORDS)
    for told, wrong in (("6 rows; needed 7", rows.slice(0, 6)), ("row group 0 does not hold", rows.take([0, 2, 1, 3, 4, 5, 6]))):
        pq.write_table(wrong, folder / RECORDS)
        assert [told in problem for problem in _records(Run(plan, folder), {})] == [True]
    beats = pq.read_table(folder / BEATS)
    crossed = beats.set_column(beats.column_names.index("p_on_ms"), "p_on_ms", beats["qrs_end_ms"])
    for told, wrong in (("ends with record 5 of 7", beats.slice(0, beats.num_rows - 8)), ("row group 0", beats.slice(2)),
                        ("row group 0 holds a beat whose waves are not in order", crossed),
                        ("its columns are record, sample, symbol, aux; needed", beats.select(BEAT_COLUMNS[:4]))):  # fmt: skip
        pq.write_table(wrong, folder / BEATS)
        assert told in next(_records(Run(plan, folder), {}))


def test_beats_of_before_have_no_waves_and_are_split_and_verified_as_they_were(run):
    plan, folder = replace(run[0], annotated=False), run[1]
    _merge(Run(plan, folder))
    parts.write_groups(folder / "old", [beats.select(BEAT_COLUMNS[:4]) for beats in parts._tables_of(folder / BEATS)])
    (folder / "old").rename(folder / BEATS)
    assert list(_records(Run(plan, folder), {})) == []
    before = list(parts.stated_parts(Run(plan, folder), BEATS))
    for shard in plan.shards:
        (folder / plan.part_files(shard)[BEATS]).unlink()
    parts.split_parts(Run(plan, folder))
    digests = [sha256((folder / plan.part_files(shard)[BEATS]).read_bytes()).hexdigest() for shard in plan.shards]
    assert digests == [stated["sha256"] for _, stated in before]
    (beats,) = parts._tables_of(folder / plan.part_files(plan.shards[2])[BEATS])
    assert beats.column_names == list(BEAT_COLUMNS[:4])


@pytest.mark.parametrize("batches", [[128], [50, 78], [1] * 128])
def test_beats_of_short_records_lie_together_whatever_their_batches(tmp_path, batches):
    plan = plan_of(tmp_path, records=300, batch=64, shard=128, mix=MIX)
    shard, written = plan.shards[1], []
    rows = fake_rows(shard, ["NORM"] * 128, np.full(128, 70.0)).select(parts.ROW_COLUMNS)
    whole = fake_beats(shard, 1000)
    for name, sizes in (("whole", [128]), ("batches", batches)):
        (tmp_path / name).mkdir()
        ends = shard.start + np.cumsum([0, *sizes])
        cuts = np.searchsorted(whole["record"].to_numpy(), ends)
        beats = (whole.slice(first, stop - first) for first, stop in pairwise(cuts.tolist()))
        parts.write_parts(plan, shard, rows, beats, tmp_path / name)
        written.append((tmp_path / name / plan.part_files(shard)[BEATS]).read_bytes())
    assert written[0] == written[1]
    (beats,) = parts._tables_of(tmp_path / "batches" / plan.part_files(shard)[BEATS])
    assert beats.equals(whole)
