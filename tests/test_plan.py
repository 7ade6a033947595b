"""Planning is pure until the folder is opened, quick, and refuses before anything runs."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from fakes import write_fake_bank, write_fake_models

from ecg_batch.errors import UserError
from ecg_batch.plan import PLAN, cut_shards, final_name, find_run, make_plan, open_run, partial_of, read_plan
from ecg_batch.request_file import load_request


def plan_of(path, *overrides):
    return make_plan(load_request(path, overrides))


def refusal(path, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        plan_of(path, *overrides)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize(("records", "size"), [(1, 64), (64, 64), (65, 64), (1000, 128), (128, 128)])
def test_shards_cover_each_record_once(records, size):
    shards = cut_shards(records, size)
    assert [record for shard in shards for record in range(shard.start, shard.stop)] == list(range(records))
    assert [shard.index for shard in shards] == list(range(len(shards)))


def test_the_run_id_knows_contents_not_places(write_request, inputs, tmp_path):
    write_fake_models(tmp_path / "elsewhere")
    here, moved = plan_of(write_request())[0], plan_of(write_request(models="elsewhere"))[0]
    assert here.run_id == moved.run_id
    changes = [
        "seed=8",
        "alpha=0.5",
        "batch=128",
        "records=541",
        "k=3",
        "mix.hr_bpm=60",
        "mix.labels.NORM=0.4999",
        "device=cuda",
    ]
    others = {plan_of(write_request(), change)[0].run_id for change in changes}
    assert len(others) == len(changes) and here.run_id not in others


def test_a_label_needs_donors_in_the_allowed_folds(write_request):
    message = refusal(write_request(mix={"labels": {"WPW": 0.5, "XYZ": 0.5}}))
    assert "no donor for WPW, XYZ in folds 1, 2, 3" in message and "AFIB (2)" in message and "MI (2)" in message
    plan_of(write_request(mix={"labels": {"WPW": 1}}, donor_folds=[9]))


def test_inputs_that_do_not_fit_are_refused(write_request, tmp_path):
    assert "no bank here" in refusal(write_request(bank="nowhere"))
    assert "cannot read the models" in refusal(write_request(models="nowhere"))
    write_fake_models(tmp_path / "fast", fs_hz=500)
    assert "vqvae.safetensors was trained at 500 Hz" in refusal(write_request(models="fast"))
    write_fake_models(tmp_path / "mixed", vqvae_sha256="0" * 64)
    assert "trained on the tokens of another vqvae.safetensors" in refusal(write_request(models="mixed"))
    write_fake_bank(tmp_path / "fastbank", fs_hz=500)
    assert "holds 500 Hz" in refusal(write_request(bank="fastbank"))
    (tmp_path / "fastbank" / "donors.zarr" / "fold" / "zarr.json").write_text("{")
    assert "bank" in refusal(write_request(bank="fastbank"))
    (tmp_path / "fast" / "mamba.safetensors").write_bytes(b"\xff" * 20)
    assert "not a safetensors file" in refusal(write_request(models="fast"))


def test_records_and_table_must_agree(write_request, tmp_path):
    (tmp_path / "t.csv").write_text("label\nNORM\nNORM\n")
    assert "records is 540 but the table has 2 rows" in refusal(write_request(mix=None, table="t.csv"))


def test_a_rate_in_a_table_that_leaves_long_records_no_room_is_refused_by_row(write_request, tmp_path):
    (tmp_path / "t.csv").write_text("label,hr_bpm\nNORM,70\nNORM,240\nMI,\nMI,22\n")
    said = refusal(write_request(mix=None, table="t.csv", records=None, shard=None, batch=None, duration_s=3600))
    assert "2 of 4 rows cannot be made: row 2: hr_bpm is 240, outside 25.26 to 228.6, within which" in said and "row 4" in said
    plan, _ = plan_of(write_request(mix=None, table="t.csv", records=None))  # as 10 s records they can
    assert plan.request.records == 4


@pytest.mark.parametrize("changes", [
    {}, {"mix": None, "cohort": {}}, {"mix": None, "cohort": {"hr_spread": 0, "labels": {"NORM": 0.5, "AFIB": 0.5}}},
])  # fmt: skip
def test_plans_come_back_from_disk(make_run, changes):
    plan, folder, out = make_run(**changes)
    assert read_plan(folder).run_id == plan.run_id
    assert read_plan(folder).request.resolved() == plan.request.resolved()
    assert read_plan(folder).request.cohort == plan.request.cohort
    assert read_plan(folder).shards == plan.shards
    assert find_run(out) == find_run(folder) == folder


def test_a_run_is_found_from_inside_and_by_either_name(make_run, monkeypatch):
    _, folder, out = make_run()
    monkeypatch.chdir(folder)
    assert find_run(Path(".")) == find_run(Path("receipts/..")) == folder
    assert final_name(folder) == final_name(out) == out


def test_another_request_on_the_same_folder_is_refused_naming_the_keys(make_run, write_request):
    _, folder, out = make_run()
    before = (folder / PLAN).read_bytes()
    with pytest.raises(UserError) as caught:
        open_run(*plan_of(write_request(), "seed=8", "mix.hr_bpm=60"), out)
    for words in (
        "seed is 7 there and 8 here",
        "mix.hr_bpm.low is 50.0 there and 60.0 here",
        "another --out",
        f"delete {folder}",
    ):
        assert words in str(caught.value)
    assert (folder / PLAN).read_bytes() == before


def test_other_software_does_not_go_on_with_a_run(make_run):
    plan, folder, out = make_run()
    raw = json.loads((folder / PLAN).read_bytes())
    raw["versions"]["numpy"] = "1.0"
    (folder / PLAN).write_text(json.dumps(raw))
    with pytest.raises(UserError, match="begun with other software .numpy 1.0 there"):
        open_run(plan, None, out)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 1}'])
def test_a_damaged_plan_is_named(make_run, damage):
    _, folder, _ = make_run()
    (folder / PLAN).write_bytes(damage)
    with pytest.raises(UserError, match="plan.json: damaged"):
        read_plan(folder)


def test_a_newer_plan_is_named(make_run):
    _, folder, _ = make_run()
    (folder / PLAN).write_text('{"format": 2}')
    with pytest.raises(UserError, match="format 2; this ecg-batch reads up to 1"):
        read_plan(folder)


def test_what_is_no_dataset_is_left_alone(make_run, tmp_path):
    plan, _, _ = make_run()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(UserError, match="exists and is no dataset"):
        open_run(plan, None, tmp_path / "thesis")
    assert not partial_of(tmp_path / "thesis").exists()
    with pytest.raises(UserError, match="no dataset here"):
        find_run(tmp_path / "thesis")


@pytest.mark.parametrize("kind", ["mix", "csv", "parquet"])
def test_a_million_records_are_planned_in_under_5_s(write_request, tmp_path, kind):
    size = {"records": 1_000_000, "batch": 256, "shard": 4096}
    if kind != "mix":
        index = np.arange(1_000_000)
        table = pa.table({"label": np.array(["NORM", "AFIB", "IMI"])[index % 3], "hr_bpm": 60 + index % 40, "age": index % 90})
        csv.write_csv(table, tmp_path / "t.csv") if kind == "csv" else pq.write_table(table, tmp_path / "t.parquet")
        size |= {"mix": None, "table": f"t.{kind}"}
    path = write_request(**size)
    start = time.perf_counter()
    plan, table = plan_of(path)
    folder = open_run(plan, table, tmp_path / "run")
    assert time.perf_counter() - start < 5
    assert len(read_plan(folder).shards) == 245
