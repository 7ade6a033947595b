"""Files of a run are JSON that anybody may have edited, cut off or replaced: whatever is in them, a sentence or a remade shard."""

import json
import logging
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from comparing import assert_same_dataset
from fakes import fake, make_fake_shard

from ecg_batch.cli.main import main
from ecg_batch.cli.outcome import exit_status
from ecg_batch.cli.synthesize import synthesize_job
from ecg_batch.dataset.layout import MANIFEST, PLAN
from ecg_batch.dataset.plan import read_plan, run_id_of
from ecg_batch.dataset.receipts import missing, read_receipt
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.request.query_table import NAME as QUERIES
from ecg_batch.request.query_table import copy_digest
from ecg_batch.run.local import run_missing, synthesize
from ecg_batch.run.oom import batch_of, batch_path
from ecg_batch.run.status import describe

NO_JSON = ["", "{", "\x00\x01", "\ufeff{}", "[" * 100_000, "1" * 10_000, '{"format": 1'] + ['{"a": ' * 3000]
OTHER_JSON = ["null", "true", "3", "[]", "{}", '"text"', "[[]]", "NaN", '{"format": null}', '{"format": "1"}', '{"format": []}']
VALUES = [None, True, -1, 1e300, 10**40, "x", [], {}, [[]], {"a": {"b": []}}, float("nan")]


def changed(sound: dict):
    """The object with each of its values replaced, and without it."""
    for key in sound:
        for value in VALUES:
            if value != sound[key] or type(value) is not type(sound[key]):
                yield f"{key} = {value!r}", json.dumps({**sound, key: value})
        yield f"no {key}", json.dumps({name: value for name, value in sound.items() if name != key})


def signed(plan: dict) -> str:
    """The plan with a run id that agrees with it, as one who knows how writes it."""
    try:
        return json.dumps({**plan, "run_id": run_id_of(plan["request"], plan["inputs_sha256"])})
    except (KeyError, TypeError, ValueError):
        return json.dumps(plan)


def commands(folder) -> list[list[str]]:
    return [["status", folder], ["verify", folder], ["verify", folder, "--repair"]]


def says(words, capsys) -> tuple[int, str]:
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "\x1b" not in said.out + said.err
    return status, said.out + said.err


# plan.json ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("text", NO_JSON + OTHER_JSON)
def test_a_plan_that_is_none_is_named(text, make_run, write_request, capsys):
    run = make_run()
    (run.folder / PLAN).write_text(text)
    for words in commands(run.folder):
        status, said = says(words, capsys)
        assert status != 0 and f"{PLAN}: " in said and len(said) < 2000, (words, said)
    assert exit_status(lambda: synthesize_job(write_request(), [], run.out, 1, fake())) == 2
    said = capsys.readouterr().err
    assert PLAN in said and "Traceback" not in said and (run.folder / PLAN).read_text() == text


def test_a_plan_with_other_values_is_refused_or_the_same(make_run):
    run = make_run()
    sound = json.loads((run.folder / PLAN).read_bytes())
    for what, text in changed(sound):
        (run.folder / PLAN).write_text(text)
        try:
            assert read_plan(run.folder).run_id == run.plan.run_id, what
        except UserError as error:
            assert PLAN in str(error) and len(str(error)) < 1000, what


def test_a_signed_plan_whose_values_are_none_of_their_keys_is_refused(make_run):
    run = make_run()
    sound = json.loads((run.folder / PLAN).read_bytes())
    changes = [{"duration_s": None}, {"alpha": "0.6"}, {"batch": 64.0}, {"device": "tpu"}, {"format": "n5"}, {"attempts": 0},
               {"mix": {**sound["request"]["mix"], "age": False}}, {"variation": False},
               {"mix": {**sound["request"]["mix"], "colour": "red"}}, {"donor_folds": {}}]  # fmt: skip
    requests = [{**sound["request"], **change} for change in changes]
    requests.append({key: value for key, value in sound["request"].items() if key != "duration_s"})
    plans = [signed({**sound, "request": request}) for request in requests]
    plans.append(json.dumps({**sound, "shards": [[float(number) for number in shard] for shard in sound["shards"]]}))
    for text in plans:
        (run.folder / PLAN).write_text(text)
        for read in (lambda: read_plan(run.folder), lambda: describe(run.folder)):
            with pytest.raises(UserError, match="plan.json: damaged"):
                read()


def test_a_plan_of_more_shards_than_memory_holds_is_refused_at_once(make_run):
    run = make_run()
    sound = json.loads((run.folder / PLAN).read_bytes())
    for records in (10**15, 10**300, -5, 0):
        (run.folder / PLAN).write_text(signed({**sound, "request": {**sound["request"], "records": records}}))
        with pytest.raises(UserError, match="plan.json: damaged"):
            read_plan(run.folder)


ODD = [None, True, -1, 2.5, 1e300, 10**40, float("nan"), float("inf"), "x", "", [], [1], [[]], {}, {"a": {"b": []}}]


LONG = {"duration_s": 70, "records": 40, "batch": None, "shard": None, "bank": "bundled", "models": "bundled"}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"variation": {"rr_cv": 0.1}}, LONG, {"mix": None, "cohort": {}}])
def test_a_signed_plan_whose_request_has_odd_values_is_refused_or_can_be_asked(make_run, changes):
    """Whoever can write a plan can sign it, so each value is looked at by itself."""
    run = make_run(**changes)
    sound, refused = json.loads((run.folder / PLAN).read_bytes()), 0
    for where, key in [*_places(sound["request"]), ("found_at", "bank"), ("versions", "numpy"), ("inputs_sha256", "bank")]:
        for value in ODD:
            plan = json.loads(json.dumps(sound))
            at = plan[where] if where in plan else plan["request"][where] if where else plan["request"]
            if type(value) is type(at[key]) or (type(value) in (int, float) and type(at[key]) in (int, float)):
                continue
            at[key] = value
            (run.folder / PLAN).write_text(signed(plan))
            try:
                describe(run.folder)
            except UserError as error:
                refused += 1
                assert "plan.json: damaged" in str(error) and len(str(error)) < 1000, (where, key, value)
    assert refused > 100
    for number in (float("nan"), float("inf"), 10**40, -1, 0, True):
        for key in ("records", "shard", "batch", "fs_hz", "duration_s"):
            (run.folder / PLAN).write_text(signed({**sound, "request": {**sound["request"], key: number}}))
            with pytest.raises(UserError, match="plan.json: damaged"):
                read_plan(run.folder)


def _places(request: dict):
    """(key that holds it, or "" for the request itself, key) of each value."""
    yield from (("", key) for key in request)
    yield from ((key, inner) for key, value in request.items() if isinstance(value, dict) for inner in value)


# Receipts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def half_made(make_run):
    run = make_run()
    run_missing(run, 1, fake(), frozenset({0, 1}))
    return run


def test_odd_receipts_count_as_none_or_are_the_same(half_made):
    path = half_made.receipt(1)
    sound = json.loads(path.read_bytes())
    counted = 0
    for what, text in [*changed(sound), *((text[:20], text) for text in NO_JSON + OTHER_JSON)]:
        path.write_text(text)
        said, _ = describe(half_made.folder)
        assert "2 of 5 shards done" in said or "1 of 5 shards done" in said, what
        counted += "1 of 5" in said
        assert read_receipt(half_made, 1) is None or "2 of 5" in said
    assert counted > 60


@pytest.mark.slow
@pytest.mark.parametrize("key", ["seconds", "files", "bytes", "records", "format"])
def test_a_shard_with_an_odd_receipt_is_made_again(key, half_made, make_dataset, write_request):
    path = half_made.receipt(1)
    path.write_text(json.dumps({**json.loads(path.read_bytes()), key: []}))
    assert [shard.index for shard in missing(half_made)] == [1, 2, 3, 4]
    synthesize(load_request(write_request()), half_made.out, 1, fake())
    assert_same_dataset(make_dataset(), half_made.out)


# dataset.json ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_odd_manifest_is_named_by_status_and_verify(small_dataset, write_request, capsys):
    sound = json.loads((small_dataset / MANIFEST).read_bytes())
    for what, text in [*changed(sound), *((text[:20], text) for text in NO_JSON + OTHER_JSON)]:
        (small_dataset / MANIFEST).write_text(text)
        _, said = says(["status", small_dataset], capsys)
        assert len(said) < 2000, what
        told = (f"{MANIFEST}: damaged", "finished. 540 records", "this ecg-batch reads up to 1")  # of no sense, sound, newer
        assert sum(words in said for words in told) == 1, (what, said)
    assert any(line.startswith(f"{MANIFEST}: ") for line in verify(small_dataset))
    assert exit_status(lambda: synthesize_job(write_request(), [], small_dataset, 1, fake())) == 2
    assert f"{MANIFEST}: damaged" in capsys.readouterr().err


# Other files of a run -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("text", [*NO_JSON, *OTHER_JSON, '{"batch": "32"}', '{"batch": 0}', '{"batch": 1e9}', '{"batch": 128}'])
def test_an_odd_decision_about_a_batch_is_named(text, make_run):
    run = make_run(batch_on_oom="halve")
    batch_path(run, 1).write_text(text)
    with pytest.raises(UserError, match=r"1.batch.json: damaged: it names no batch up to 64. Delete it"):
        batch_of(run, 1)


def test_odd_tracebacks_of_failed_shards_are_shown_in_short(make_run):
    run = make_run()
    for name, data in {
        "0.txt": b"",
        "1.txt": b"\xff\xfe",
        "2.txt": b"x" * 10**6,
        "99.txt": b"x",
        "x.txt": b"y",
        "9" * 50: b"",
    }.items():
        (run.failures / (name if name.endswith(".txt") else f"{name}.txt")).write_bytes(data)
    said, well = describe(run.folder)
    assert not well and "3 failed" in said and len(said) < 3000


# A digest that vouches for itself -------------------------------------------------------------------------------------


TABLE = {"mix": None, "records": None, "table": "t.csv"}


@pytest.fixture
def tabled(make_run, tmp_path):
    """A planned run of a table of 200 rows."""
    (tmp_path / "t.csv").write_text("label,age\n" + "".join(f"NORM,{age}\nAFIB,{age}\n" for age in range(100)))
    return make_run(**TABLE)


def other_ages(path) -> None:
    rows = pq.read_table(path)
    at = rows.column_names.index("age")
    _write(rows.set_column(at, "age", pa.array([50.0] * len(rows), pa.float32())), path)


def other_order(path) -> None:
    rows = pq.read_table(path)
    _write(rows.take(list(range(len(rows)))[::-1]), path)


def one_row_group(path) -> None:
    pq.write_table(pq.read_table(path), path)


def other_types(path) -> None:
    rows = pq.read_table(path)
    _write(rows.set_column(rows.column_names.index("sex"), "sex", pa.array([{"a": 1}] * len(rows))), path)


def no_label(path) -> None:
    _write(pq.read_table(path).drop(["label"]), path)


def no_table(path) -> None:
    path.write_bytes(b"PAR1")


def _write(rows, path) -> None:
    pq.write_table(rows, path, row_group_size=128, write_page_checksum=True)  # the footer's digest is kept


@pytest.mark.slow
@pytest.mark.parametrize("forge", [other_ages, other_order, one_row_group, other_types, no_label, no_table])
def test_a_kept_table_is_believed_by_its_content_alone(forge, tabled, write_request):
    kept = tabled.folder / QUERIES
    sound = kept.read_bytes()
    assert copy_digest(kept, 128) == tabled.plan.inputs["table"]
    forge(kept)
    assert copy_digest(kept, 128) != tabled.plan.inputs["table"]
    synthesize(load_request(write_request(**TABLE)), tabled.out, 1, fake())
    assert (tabled.out / QUERIES).read_bytes() == sound and list(verify(tabled.out)) == []


# Told to the person ---------------------------------------------------------------------------------------------------


def make_flagged(plan, shard, *given):
    """Shards 0 and 2 with flags: most of the first, a few of the other."""
    ecg, rows, beats = make_fake_shard(plan, shard, *given)
    few = {0: shard.records - 8, 2: 3}.get(shard.index, 0)
    flags = [("heart_rate,flat" if row % 2 else "heart_rate") if row < few else "" for row in range(shard.records)]
    return ecg, rows.set_column(rows.column_names.index("flags"), "flags", pa.array(flags, pa.string())), beats


def open_flagged(plan):
    from functools import partial

    return partial(make_flagged, plan)


def test_flags_are_counted_by_kind_where_the_user_looks(write_request, tmp_path, caplog, capsys):
    assert synthesize_job(write_request(), [], tmp_path / "run", 1, open_flagged) == 0
    words = "123 of 540 records are flagged: flat 61, heart_rate 123"
    assert words in capsys.readouterr().out and words in describe(tmp_path / "run")[0]
    assert json.loads((tmp_path / "run" / MANIFEST).read_bytes())["flags"] == {"flat": 61, "heart_rate": 123}
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert (
        len([text for text in warned if text.startswith("shard 0: 120 of 128 records are flagged: flat 60, heart_rate 120")]) == 1
    )


def test_a_run_half_way_counts_the_flags_so_far(make_run):
    run = make_run()
    run_missing(run, 1, open_flagged, frozenset({2}))
    assert "3 of 128 records are flagged: flat 1, heart_rate 3" in describe(run.folder)[0]
    run.receipt(2).write_text(
        json.dumps({k: v for k, v in json.loads(run.receipt(2).read_text()).items() if k not in ("flagged", "flags")})
    )
    assert "flagged" not in describe(run.folder)[0], "made before flags were counted: nothing is said"


def test_a_dataset_without_flags_says_so(small_dataset):
    assert "no record is flagged" in describe(small_dataset)[0]


@pytest.mark.slow
def test_workers_in_other_processes_are_heard_too(write_request, tmp_path, caplog, monkeypatch):
    import sys

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr("ecg_batch.run.local.LOOK_S", 0.05)
    synthesize(load_request(write_request()), tmp_path / "run", 2, open_flagged)
    assert "120 of 128 records are flagged" in caplog.text
