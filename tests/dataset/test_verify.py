"""One flipped bit in any file of a finished dataset is found, and that file named; nothing else is."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from comparing import flip_bit
from fakes import fake
from places import TESTS

from ecg_batch.dataset.run import find_folder, read_run
from ecg_batch.dataset.verify import verify
from ecg_batch.leads import LEADS
from ecg_batch.request.query_table import NAME as QUERIES
from ecg_batch.run.local import run_missing


@pytest.fixture
def dataset(make_dataset, tmp_path):
    (tmp_path / "t.csv").write_text("label\n" + "NORM\nAFIB\n" * 100)
    return make_dataset(mix=None, records=None, table="t.csv")


@pytest.mark.slow
def test_every_flip_is_named(dataset):
    files = sorted(path for path in dataset.rglob("*") if path.is_file())
    names = {str(path.relative_to(dataset)) for path in files}
    assert {
        "plan.json",
        "SHA256SUMS",
        "dataset.json",
        "records.parquet",
        QUERIES,
        "ecg.zarr/zarr.json",
        "receipts/1.json",
    } <= names
    for path in files:
        name = str(path.relative_to(dataset))
        for position in (0.0, 0.3, 0.7, 1.0):
            before = flip_bit(path, position)
            problems = list(verify(dataset))
            path.write_bytes(before)
            assert len(problems) == 1 and problems[0].startswith(f"{name}: "), (name, position, problems)
    assert list(verify(dataset)) == []


def test_absent_files_and_strays_are_named(dataset):
    (dataset / "ecg.zarr/ecg/c.1.0.0").rename(dataset / "ecg.zarr/ecg/c.9.0.0")
    (dataset / "staging").mkdir()
    (dataset / "staging/left").write_text("x")
    assert list(verify(dataset)) == [
        "ecg.zarr/ecg/c.1.0.0: cannot be read: No such file or directory",
        "ecg.zarr/ecg/c.9.0.0: stray: no part of the dataset. Remove it",
        "staging/left: stray: no part of the dataset. Remove it",
    ]
    (dataset / "SHA256SUMS").unlink()
    assert any(problem.startswith("SHA256SUMS: absent") for problem in verify(dataset))


def test_damage_with_new_sums_is_still_found(dataset):
    """A manifest that states other things than the receipts, with sums made to fit it."""
    manifest = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps({**manifest, "content_root": "0" * 64}))
    rebuild_sums(dataset)
    assert list(verify(dataset)) == ["dataset.json: its content root is not that of the receipts"]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["format", "request", "inputs_sha256", "versions"])
def test_a_manifest_with_new_sums_says_what_the_plan_says(small_dataset, key):
    manifest = json.loads((small_dataset / "dataset.json").read_text())
    said = {**manifest[key], "seed": 8} if isinstance(manifest[key], dict) else manifest[key] + 1
    (small_dataset / "dataset.json").write_text(json.dumps({**manifest, key: said}))
    rebuild_sums(small_dataset)
    newer = "format 2; this ecg-batch reads up to 1. Install a newer one"
    says = newer if key == "format" else f"{key} not what plan.json says"
    assert list(verify(small_dataset)) == [f"dataset.json: {says}"]
    del manifest["format"]
    (small_dataset / "dataset.json").write_text(json.dumps(manifest))
    rebuild_sums(small_dataset)
    assert [line[:23] for line in verify(small_dataset)] == ["dataset.json: damaged ("]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["", "Made from my own recordings", None])
def test_a_plan_of_another_source_is_found_with_new_sums(small_dataset, source):
    """The source is in no digest: it is words."""
    plan = json.loads((small_dataset / "plan.json").read_text())
    assert list(verify(small_dataset)) == []
    plan = {key: value for key, value in plan.items() if key != "source"} | ({} if source is None else {"source": source})
    (small_dataset / "plan.json").write_text(json.dumps(plan))
    rebuild_sums(small_dataset)
    assert "README.md: not what plan.json says: of another source, or changed" in list(verify(small_dataset))


@pytest.mark.parametrize("name", ["beats.parquet", "records.parquet"])
def test_a_lost_table_is_named_alone(small_dataset, name):
    (small_dataset / name).unlink()
    (told,) = verify(small_dataset)
    assert told.startswith(f"{name}: ")


def rebuild_sums(dataset):
    from ecg_batch.dataset.manifest import sums_text

    (dataset / "SHA256SUMS").write_bytes(sums_text(read_run(dataset), {}))


def make_crooked_shard(plan, shard, *rest):
    """Record 130 breaks III = II - I by two steps, record 131 by rounding only."""
    ecg, rows, beats = fake()(plan)(shard, *rest)
    if shard.start <= 130 < shard.stop:
        ecg[130 - shard.start, LEADS.index("III"), 500] += np.int16(2)
    return ecg, rows, beats


@pytest.mark.slow
def test_a_record_against_the_lead_identities_is_named(make_run):
    run = make_run()
    run_missing(run, 1, lambda plan: partial(make_crooked_shard, plan))
    assert list(verify(run.folder)) == ["shard 1: the lead identities do not hold in 1 record: 130"]


def test_an_unfinished_run_lists_what_is_missing_and_what_is_damaged(make_run):
    run = make_run()
    run_missing(run, 1, fake())
    (run.folder / "receipts/4.json").unlink()
    flip_bit(run.folder / "ecg.zarr/ecg/c.0.0.0", 0.5)
    flip_bit(run.folder / "ecg.zarr/zarr.json", 0.5)
    assert list(verify(run.folder)) == [
        "ecg.zarr/zarr.json: damaged: not what the plan says",
        "not finished: 1 of 5 shards have no valid receipt: 4",
        "ecg.zarr/ecg/c.0.0.0: damaged: its sha256 is not that of its receipt",
    ]


@pytest.mark.slow
def test_the_job_exits_0_1_or_2(dataset, tmp_path):
    def job(path):
        command = [sys.executable, str(TESTS.parent / "jobs/verify.py"), str(path)]
        return subprocess.run(command, capture_output=True, text=True)

    assert job(dataset).returncode == 0 and "all is well" in job(dataset).stdout
    flip_bit(find_folder(dataset) / "dataset.json", 0.5)
    assert job(dataset).returncode == 1 and "dataset.json: damaged" in job(dataset).stdout
    missing = job(tmp_path / "nothing")
    assert missing.returncode == 2 and "no dataset here" in missing.stderr and "Traceback" not in missing.stderr
