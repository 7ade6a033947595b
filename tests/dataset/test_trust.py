"""Names in a dataset's own files lead nowhere but to its own regular files; who signs other data must sign everything."""

import json
import os
import shutil
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_verify import rebuild_sums

import ecg_batch
from ecg_batch.dataset.layout import SUMS
from ecg_batch.dataset.parts import write_groups
from ecg_batch.dataset.plan import read_plan
from ecg_batch.dataset.sums import SUMS_OF_SUMS, read_sums
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.export.formats import NOTES, STATE, export
from ecg_batch.run.repair import repair


def sign(dataset: Path, lines: list[bytes]) -> None:
    """SHA256SUMS of these lines beside the true ones, agreeing with its own last line."""
    import hashlib

    body = (dataset / SUMS).read_bytes().rpartition(SUMS_OF_SUMS.encode())[0]
    body = b"".join([*(line + b"\n" for line in lines), body])
    (dataset / SUMS).write_bytes(body + f"{SUMS_OF_SUMS}{hashlib.sha256(body).hexdigest()}\n".encode())


def in_time(call, seconds: float = 20.0):
    """What the call gives or raises; it fails where the call does not come back."""
    found: list = []

    def work():
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits without end"
    return found[0]


def test_a_name_that_moves_the_cursor_is_told_in_letters(small_dataset):
    sign(small_dataset, [b"0" * 64 + b"  \x1b[31m\x07plan.json"])
    (small_dataset / "\x1b[2J").write_text("x")
    said = list(verify(small_dataset))
    assert said[0].startswith(r"\x1b[31m\x07plan.json: named in SHA256SUMS") and said[1].startswith(r"\x1b[2J: stray"), said


OUTSIDE = ["../secret", "/dev/zero", "/etc/passwd", "receipts/../../secret", ".", "ecg.zarr", "a//b", "records.parquet/x", "stray"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTSIDE)
def test_sums_name_only_files_of_the_dataset(small_dataset, name):
    (small_dataset.parent / "secret").write_text("x")
    sign(small_dataset, [b"0" * 64 + b"  " + name.encode()])
    problems = in_time(lambda: list(verify(small_dataset)))
    assert len(problems) == 1 and problems[0].startswith(f"{name}: named in SHA256SUMS, and no part of the dataset"), problems


@pytest.mark.parametrize(
    "line", [b"nonsense", b"", b"\xff\xfe  x", b"0" * 63 + b"  plan.json", b"0" * 64 + b" plan.json", b"x" * 10_000, b"\x00"]
)
def test_a_malformed_line_is_named_and_what_comes_after_it_is_found(small_dataset, line):
    sign(small_dataset, [line])
    path = small_dataset / "ecg.zarr/ecg/c.2.0.0"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    problems = list(verify(small_dataset))
    assert problems[0].startswith("SHA256SUMS: line 1 is not 'sha256  file': ") and len(problems[0]) < 200, problems
    assert problems[1:] == ["ecg.zarr/ecg/c.2.0.0: damaged: its sha256 is not that in SHA256SUMS"]
    with pytest.raises(UserError, match="SHA256SUMS: damaged: a line is malformed"):
        ecg_batch.open_dataset(small_dataset)


def test_a_file_that_is_named_twice_or_not_at_all_is_told(small_dataset):
    sign(small_dataset, [b"0" * 64 + b"  plan.json"])
    assert any("names a file twice" in problem for problem in verify(small_dataset))
    rebuild_sums(small_dataset)
    body = (small_dataset / SUMS).read_bytes()
    (small_dataset / SUMS).write_bytes(b"".join(line for line in body.splitlines(True) if b"croissant" not in line))
    sign(small_dataset, [])
    assert list(verify(small_dataset)) == ["croissant.json: not named in SHA256SUMS, so nothing says what it was"]


PLACES = ["records.parquet", "dataset.json", "plan.json", "receipts/1.json", "ecg.zarr/ecg/c.1.0.0", "ecg.zarr/ecg/zarr.json", SUMS]


@pytest.mark.parametrize("name", PLACES)
def test_a_pipe_or_a_device_is_not_waited_for(small_dataset, name):
    (small_dataset / name).unlink()
    os.mkfifo(small_dataset / name)
    problems = in_time(lambda: list(verify(small_dataset)))
    assert any(problem.removeprefix(f"{small_dataset}/").startswith(name) for problem in problems), problems

    def read():
        dataset = ecg_batch.open_dataset(small_dataset)
        return dataset.records, dataset.raw[100:140]

    got = in_time(read)
    silent = name in ("plan.json", "receipts/1.json", SUMS)  # which reading does not need
    assert isinstance(got, tuple) if silent else isinstance(got, UserError), got


def test_a_symbolic_link_is_named_and_not_followed(small_dataset, tmp_path):
    shutil.move(small_dataset / "records.parquet", tmp_path / "records.parquet")
    (small_dataset / "records.parquet").symlink_to(tmp_path / "records.parquet")
    shutil.move(small_dataset / "receipts", tmp_path / "receipts")
    (small_dataset / "receipts").symlink_to(tmp_path / "receipts")
    (small_dataset / "elsewhere").symlink_to("/")
    problems = in_time(lambda: list(verify(small_dataset)))
    assert (
        "records.parquet: not checked: records.parquet is a symbolic link, and nothing outside the folder is followed" in problems
    )
    assert "receipts/1.json: not checked: receipts is a symbolic link, and nothing outside the folder is followed" in problems
    assert "elsewhere: stray: no part of the dataset. Remove it" in problems


@pytest.mark.parametrize(
    "name", [".nfs00000000deadbeef00000001", ".DS_Store", "ecg.zarr/.DS_Store", "receipts/._1.json", "Thumbs.db"]
)
def test_what_systems_leave_is_no_stray(small_dataset, name):
    (small_dataset / name).write_text("x")
    assert list(verify(small_dataset)) == []


# Signed anew ------------------------------------------------------------------------------------------------------------


def changed_row(table: pa.Table, name: str, value, row: int = 200) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value"),
    [("label", "WPW"), ("sex", 1), ("donor_patient_id", 7), ("donor_fold", 10), ("flags", "x"), ("blend_fold", [9])],
)
def test_rows_are_held_against_the_receipts(small_dataset, column, value):
    table = pq.read_table(small_dataset / "records.parquet")
    pq.write_table(changed_row(table, column, value), small_dataset / "records.parquet", store_schema=False)
    rebuild_sums(small_dataset)
    found = "records.parquet: records 128 to 255 are not those of shard 1's receipt"
    assert list(verify(small_dataset)) == [found]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["parts/1.arrow", "parts/1.beats.arrow"])
@pytest.mark.parametrize("change", [{"bytes": 1}, {"sha256": "0" * 64}])
def test_receipts_are_held_against_the_rows(small_dataset, part, change):
    """The parts are gone by then, but what they were can be made again."""
    path = small_dataset / "receipts/1.json"
    receipt = json.loads(path.read_text())
    receipt["files"][part] |= change
    path.write_text(json.dumps(receipt))
    rebuild_sums(small_dataset)
    whole = "beats.parquet" if "beats" in part else "records.parquet"
    assert list(verify(small_dataset)) == [f"{whole}: records 128 to 255 are not those of shard 1's receipt"]


@pytest.mark.slow
@pytest.mark.parametrize(("column", "value"), [("sample", 41), ("symbol", "A"), ("t_end_ms", 301), ("p_on_ms", None)])
def test_beats_are_held_against_the_receipts(small_dataset, column, value):
    with pq.ParquetFile(small_dataset / "beats.parquet") as file:
        groups = [file.read_row_group(at) for at in range(file.num_row_groups)]
    groups[1] = changed_row(groups[1], column, value, 3)
    write_groups(small_dataset / "beats.parquet", groups)
    rebuild_sums(small_dataset)
    assert list(verify(small_dataset)) == ["beats.parquet: records 128 to 255 are not those of shard 1's receipt"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale_factor", 0.01), ("leads", ["II", "I"]), ("fs_hz", 500), ("units", "uV"), ("shape", [541, 12, 1000]), ("fill_value", 7),
     ("data_type", "uint16"), ("codecs", []), ("storage_transformers", None), ("storage_transformers", [{"name": "planted"}])],
)  # fmt: skip
def test_what_zarr_says_is_held_against_the_plan(small_dataset, key, value):
    path = small_dataset / "ecg.zarr/ecg/zarr.json"
    stated = json.loads(path.read_text())
    (stated["attributes"] if key in stated["attributes"] else stated)[key] = value
    path.write_text(json.dumps(stated))
    rebuild_sums(small_dataset)
    assert list(verify(small_dataset)) == [f"ecg.zarr/ecg/zarr.json: damaged: {key} not what the plan says"]


def test_how_hard_blosc_tried_is_the_writers_own(small_dataset):
    """Before 0.5 it was level 2 in blocks of blosc's choice; each chunk says what it is."""
    path = small_dataset / "ecg.zarr/ecg/zarr.json"
    stated = json.loads(path.read_text())
    stated["codecs"][0]["configuration"]["codecs"][1]["configuration"] |= {"clevel": 2, "blocksize": 0}
    path.write_text(json.dumps(stated))
    rebuild_sums(small_dataset)
    assert list(verify(small_dataset)) == []


def test_a_planted_array_of_another_format_is_not_opened(small_dataset):
    """Zarr v2 has codecs that unpickle what they read."""
    (small_dataset / "ecg.zarr/ecg/zarr.json").unlink()
    stated = {"zarr_format": 2, "shape": [540, 12, 1000], "chunks": [540, 12, 1000], "dtype": "|O", "order": "C", "fill_value": 0,
              "compressor": None, "filters": [{"id": "pickle"}]}  # fmt: skip
    (small_dataset / "ecg.zarr/ecg/.zarray").write_text(json.dumps(stated))
    (small_dataset / "ecg.zarr/ecg/0.0.0").write_bytes(b"cos\nsystem\n(S'touch " + str(small_dataset / "ran").encode() + b"'\ntR.")
    assert any(".zarray: stray" in problem for problem in verify(small_dataset))
    with pytest.raises(UserError, match="zarr.json: cannot be read"):
        ecg_batch.open_dataset(small_dataset).raw[0]
    assert not (small_dataset / "ran").exists()


# Names that would be written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "smaller",
    [
        {"32": ["../../evil"]},
        {"32": ["/evil"]},
        {"32": [5]},
        {"32": [-1]},
        {"32": [True]},
        {"0": [1]},
        {"64": [1]},
        {"x": [1]},
        {"32": 1},
        7,
    ],
)
def test_a_repair_writes_no_name_of_the_manifest(small_dataset, smaller):
    manifest = json.loads((small_dataset / "dataset.json").read_text())
    (small_dataset / "dataset.json").write_text(json.dumps({**manifest, "smaller_batch": smaller}))
    rebuild_sums(small_dataset)
    before = sorted(small_dataset.parent.rglob("*"))
    with pytest.raises(UserError, match="smaller_batch is .*needed batches under 64 with shards from 0 to 4.*Nothing was changed"):
        repair(small_dataset)
    assert sorted(small_dataset.parent.rglob("*")) == before and read_plan(small_dataset) and read_sums(small_dataset)


NOTES_OF_OTHERS = [
    {}, {"../ecg": 3}, {"/etc/hostname": 1}, {"ecg.npy": 3}, {"records.parquet": 1}, [], "x", 7, {"ecg.npy": "x"},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("note", NOTES_OF_OTHERS)
def test_an_export_believes_only_notes_of_its_own_files(small_dataset, tmp_path, monkeypatch, note):
    dataset = ecg_batch.open_dataset(small_dataset)
    monkeypatch.setattr("ecg_batch.export.npy.end", lambda dataset, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(dataset, tmp_path / "out", "npy", 1)
    monkeypatch.undo()
    (tmp_path / "ecg").write_text("abc")
    for path in (tmp_path / "out.partial" / NOTES).glob("*-*.json"):
        path.write_text(json.dumps(note))
    assert export(dataset, tmp_path / "out", "npy", 1) == 3, "all units were made again"


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_an_export_touches_no_folder_that_it_did_not_begin(small_dataset, tmp_path, kind):
    partial = tmp_path / "out.partial"
    (tmp_path / "mine").mkdir()
    {"file": lambda: partial.write_text("mine"), "folder": partial.mkdir, "link": lambda: partial.symlink_to(tmp_path / "mine")}[
        kind
    ]()
    if kind == "folder":
        (partial / "thesis.tex").write_text("mine")
    before = sorted(path for path in tmp_path.rglob("*") if small_dataset not in path.parents)
    with pytest.raises(UserError, match="out.partial: (no folder of an export|holds thesis.tex and no export.json)"):
        export(ecg_batch.open_dataset(small_dataset), tmp_path / "out", "npy", 1)
    assert sorted(path for path in tmp_path.rglob("*") if small_dataset not in path.parents) == before
    assert STATE not in {path.name for path in before}
