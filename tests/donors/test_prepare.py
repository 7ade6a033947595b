"""From PTB-XL's layout to a bank: exact splits, counted reasons, training folds only, downloads that resume."""

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from ptbxl_layout import write_layout, write_record

from ecg_batch.bundled import BUNDLED
from ecg_batch.cli.main import main
from ecg_batch.donors import bank, ptbxl
from ecg_batch.donors.choose import _fill
from ecg_batch.donors.measure import Usable, longest_run
from ecg_batch.donors.prepare import prepare
from ecg_batch.donors.spool import reserve
from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED_INDEX
from ecg_batch.models.corpus import load_rhythm_corpus

DONORS = list(range(0, 480, 12))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """40 real records in PTB-XL's layout, five of them spoilt, each in its own way."""
    folder = tmp_path_factory.mktemp("ptbxl")
    written = write_layout(folder, DONORS)
    ids = list(written)
    records = folder / "records100" / "00000"
    flat, huge, swapped = (written[ids[at]].copy() for at in (10, 11, 12))
    flat[7, 300:450] = flat[7, 300]
    huge[8] *= 20
    swapped[[0, 1]] = swapped[[1, 0]]
    for at, ecg in ((10, flat), (11, huge), (12, swapped)):
        write_record(records, f"{ids[at]:05d}_lr", ecg)
    (records / f"{ids[13]:05d}_lr.dat").write_bytes(b"short")
    rows = list(csv.DictReader(open(folder / ptbxl.TABLE, encoding="utf-8")))
    rows[14]["age"], rows[15]["age"] = "", "300"
    with open(folder / ptbxl.TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder, written, ids


@pytest.fixture(scope="module")
def prepared(release, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "bank"
    report = prepare(ptbxl.read_release(release[0], 100), out, donors=20, workers=2)
    return out, report


@pytest.mark.slow
def test_skeleton_and_texture_add_up_to_the_donor(release, prepared):
    made = bank.read_bank(prepared[0])
    for donor, ecg_id in enumerate(made.table.ecg_id):
        np.testing.assert_array_equal(made.skeleton[donor] + made.texture[donor], release[1][int(ecg_id)][list(MODELLED_INDEX)])


@pytest.mark.slow
def test_the_waves_of_the_bundled_bank_are_what_prepare_finds(prepared):
    made, bundled = bank.read_bank(prepared[0]), bank.read_bank(BUNDLED)
    rows = [int(np.flatnonzero(bundled.table.ecg_id == ecg_id)[0]) for ecg_id in made.table.ecg_id]
    np.testing.assert_array_equal(made.wave_ms, bundled.wave_ms[rows])


@pytest.mark.slow
def test_each_spoilt_record_is_rejected_for_its_own_reason(prepared):
    rejected = prepared[1]["rejected"]
    reasons = ("a lead is flat for a second or more", "amplitude over 8 mV", "limb leads contradict each other",
               "age or sex unknown")  # fmt: skip
    assert {reason: rejected.get(reason) for reason in reasons} == dict.fromkeys(reasons, 1)
    assert sum(reason.startswith("unreadable (ValueError: ") for reason in rejected) == 1
    assert prepared[1]["usable"] + sum(rejected.values()) == len(DONORS) - 1  # fold 10 does not count


@pytest.mark.slow
def test_donors_are_of_training_folds_and_fold_10_is_nowhere(release, prepared):
    made = bank.read_table(prepared[0])
    assert set(made.fold) <= set(range(1, 9))
    import zarr

    textures = zarr.open_group(prepared[0] / "textures.zarr", mode="r")
    assert release[2][1] not in textures["ecg_id"][...]  # the record of fold 10
    assert release[2][0] in textures["ecg_id"][...]  # the one of fold 9, to validate on
    assert release[2][0] not in made.ecg_id


@pytest.mark.slow
def test_textures_say_where_all_beats_lie_and_which_they_are(prepared):
    """As the donors' columns and their statements say of those that are donors."""
    import zarr

    textures = zarr.open_group(prepared[0] / "textures.zarr", mode="r")
    r, letter, donors = textures["r_sample"][...], textures["beat_symbol"][...], bank.read_bank(prepared[0])
    assert (letter > 0).sum() > 100 and np.array_equal(letter > 0, r >= 0) and set(np.unique(letter).tolist()) <= {0, *b"NVAQ"}
    row = np.searchsorted(textures["ecg_id"][...], donors.table.ecg_id)
    assert np.array_equal(r[row], donors.r_sample)
    normal = (donors.beat_type == 0) & ~donors.table.holds("PAC")[:, None]
    assert (letter[row][normal] == ord("N")).all()
    corpus = load_rhythm_corpus(prepared[0])
    assert set(np.unique(corpus.symbol)) <= {"", "N", "V", "A", "Q"} and (corpus.symbol == "N").sum() == (letter == ord("N")).sum()


@pytest.mark.slow
def test_ages_over_89_are_90(release, prepared):
    import zarr

    textures = zarr.open_group(prepared[0] / "textures.zarr", mode="r")
    assert textures["age"][...][textures["ecg_id"][...] == release[2][15]] == 90


@pytest.mark.slow
def test_one_worker_and_three_make_the_same_bank(release, prepared, tmp_path):
    prepare(ptbxl.read_release(release[0], 100), tmp_path / "bank", donors=20, workers=3)
    assert bank.bank_digest(tmp_path / "bank") == bank.bank_digest(prepared[0])


@pytest.mark.slow
def test_a_bank_is_never_overwritten(release, prepared):
    before = bank.bank_digest(prepared[0])
    with pytest.raises(UserError, match="Choose another --out"):
        prepare(ptbxl.read_release(release[0], 100), prepared[0], donors=20)
    assert bank.bank_digest(prepared[0]) == before


def test_shares_fill_like_water():
    assert _fill({"a": 2, "b": 9, "c": 9}, 12) == {"a": 2, "b": 5, "c": 5}
    assert sum(_fill({"a": 100, "b": 100, "c": 100}, 100).values()) == 100


def test_longest_run_counts_samples():
    ecg = np.array([[0, 1, 2, 3, 4, 5], [0, 7, 7, 7, 1, 2]])
    assert longest_run(ecg) == 3


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda folder: (folder / ptbxl.TABLE).unlink(), "no ptbxl_database.csv"),
    (lambda folder: (folder / ptbxl.TABLE).write_text("ecg_id,age\n1,50\n"), "no column patient_id"),
])  # fmt: skip
def test_a_folder_that_is_no_ptbxl_is_refused(tmp_path, spoil, says):
    write_layout(tmp_path / "release", [0, 1, 2])
    spoil(tmp_path / "release")
    with pytest.raises(UserError, match=says):
        ptbxl.read_release(tmp_path / "release", 100)
    with pytest.raises(UserError, match=f"no {ptbxl.TABLE}|--fs|no column"):
        ptbxl.read_release(tmp_path / "release", 500)


@pytest.mark.slow
def test_the_job_writes_bank_report_and_figure(release, tmp_path):
    command = [sys.executable, "jobs/prepare.py", "--ptbxl", release[0], "--out", tmp_path / "bank", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bank" / "report.json").read_text())
    assert report["donors"] > 0 and report["rejected"]
    assert (tmp_path / "bank" / "bank.png").stat().st_size > 10_000
    missing = subprocess.run([*command[:3], tmp_path / "nothing", *command[4:]], cwd=ROOT, capture_output=True, text=True)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


# What else goes wrong ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy_of(release, tmp_path):
    """copy_of(rows -> rows) -> a copy of the release with another table."""

    def copy(change=lambda rows: rows):
        folder = shutil.copytree(release[0], tmp_path / "ptbxl")
        rows = change(list(csv.DictReader(open(folder / ptbxl.TABLE, encoding="utf-8"))))
        with open(folder / ptbxl.TABLE, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return copy


def files_of(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def divide(folder, ids) -> None:
    release = ptbxl.read_release(folder, 100)
    for entry in release.entries:
        if entry.ecg_id in ids:
            with contextlib.suppress(ValueError):
                ecg = ptbxl.read_record(release, entry)
                write_record((folder / entry.path).parent, f"{entry.ecg_id:05d}_lr", np.rint(ecg / 10))


@pytest.mark.slow
@pytest.mark.parametrize("count", [40, 8])
def test_recordings_a_tenth_as_large_as_hearts_make_them_are_refused(copy_of, tmp_path, count):
    folder = copy_of(lambda rows: rows[:count])
    divide(folder, {entry.ecg_id for entry in ptbxl.read_release(folder, 100).entries})
    with pytest.raises(UserError, match=r"records have a QRS under 0.5 mV.*gain"):
        prepare(ptbxl.read_release(folder, 100), tmp_path / "bank", donors=20, workers=2)
    assert files_of(tmp_path / "bank") == []


@pytest.mark.slow
def test_few_recordings_a_tenth_as_large_become_no_donors(copy_of, release, prepared, tmp_path):
    """Also where drift makes one of them large: it is the beats that are measured."""
    folder, ids = copy_of(), release[2][16:24]
    divide(folder, ids)
    drifting = np.rint(release[1][ids[0]] / 10 + 2000 * np.sin(np.arange(1000) / 150))
    write_record(folder / "records100" / "00000", f"{ids[0]:05d}_lr", drifting)
    report = prepare(ptbxl.read_release(folder, 100), tmp_path / "bank", donors=20, workers=2)
    assert not set(ids) & set(bank.read_table(tmp_path / "bank").ecg_id)
    assert report["rejected"]["QRS under 0.5 mV in every lead"] >= 7 and report["usable"] < prepared[1]["usable"]


@pytest.mark.slow
def test_one_signal_under_two_ids_becomes_one_donor(copy_of, tmp_path):
    def joined(rows):
        return [*rows, *({**row, "ecg_id": str(90000 + at), "patient_id": str(90000 + at)} for at, row in enumerate(rows[20:24]))]

    folder = copy_of(joined)
    report = prepare(ptbxl.read_release(folder, 100), tmp_path / "bank", donors=20, workers=2)
    assert report["rejected"]["the same signal as another record"] == 4
    assert "unknown source" in report["source"]  # PTB-XL has no record 90000


@pytest.mark.slow
def test_a_signal_of_fold_10_under_another_id_becomes_no_donor_and_no_texture(copy_of, release, tmp_path):
    import zarr

    folder, (tested, *copies) = copy_of(), [release[2][at] for at in (1, 20, 21)]
    assert {entry.ecg_id: entry.fold for entry in ptbxl.read_release(folder, 100).entries}[tested] == 10
    for ecg_id in copies:  # of folds that train, where the record of fold 10 comes first and where it does not
        write_record(folder / "records100" / "00000", f"{ecg_id:05d}_lr", release[1][tested])
    report = prepare(ptbxl.read_release(folder, 100), tmp_path / "bank", donors=20, workers=2)
    assert report["rejected"]["the same signal as a record of fold 10"] == 2
    held = zarr.open_group(tmp_path / "bank" / "textures.zarr", mode="r")["ecg_id"][...]
    assert not {tested, *copies} & {*held, *bank.read_table(tmp_path / "bank").ecg_id}


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["HYP", "NORM", "all"])
def test_a_class_that_nobody_holds_takes_no_part_and_is_named_before_measuring(copy_of, tmp_path, absent, caplog):
    release = ptbxl.read_release(copy_of(), 100)
    kept = {code: name for code, name in release.superclass_of.items() if name != absent and absent != "all"}
    report = prepare(replace(release, superclass_of=kept), tmp_path / "bank", workers=2)
    assert report["donors"] >= 4
    assert f"holds {'NORM, MI, STTC, CD, HYP' if absent == 'all' else absent}" in caplog.text
    assert len(bank.read_bank(tmp_path / "bank").table) == report["donors"]


@pytest.mark.slow
def test_a_bank_of_records_without_any_pr_interval_has_its_report(copy_of, tmp_path, monkeypatch):
    from ecg_batch.donors import prepare as module

    original = module._split_up

    def no_pr(*args):
        usable, reasons = original(*args)
        return [replace(one, shift_ms={**one.shift_ms, "PR": float("nan")}) for one in usable], reasons

    monkeypatch.setattr(module, "_split_up", no_pr)
    report = prepare(ptbxl.read_release(copy_of(), 100), tmp_path / "bank", workers=2)
    assert report["skeleton_against_donor_ms"]["PR"] == {"median": None, "p90": None, "records": 0}
    assert "NaN" not in (tmp_path / "bank" / "report.json").read_text()


@pytest.mark.parametrize(("change", "says"), [
    (lambda rows: [{**row, "strat_fold": "10"} for row in rows], "no record of folds 1-8"),
    (lambda rows: [{**row, "strat_fold": "9"} for row in rows], "no record of folds 1-8"),
    (lambda rows: [{**row, "age": ""} for row in rows], "age or sex unknown"),
    (lambda rows: [{**row, "scp_codes": "{}"} for row in rows], "no SCP statement"),
])  # fmt: skip
def test_what_could_make_no_bank_is_refused_before_anything_is_measured_or_made(copy_of, tmp_path, change, says, monkeypatch):
    from ecg_batch.donors import prepare as module

    monkeypatch.setattr(module, "measure_all", lambda *args: pytest.fail("measured"))
    with pytest.raises(UserError, match=says):
        prepare(ptbxl.read_release(copy_of(change), 100), tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    "settings", [{"donors": 0}, {"donors": -3}, {"workers": 0}, {"workers": -1}, {"donors": 2.5}, {"donors": True}]
)
def test_numbers_of_donors_and_workers_that_cannot_be_are_refused(release, tmp_path, settings, capsys):
    with pytest.raises(UserError, match="needed a whole number from 1"):
        prepare(ptbxl.read_release(release[0], 100), tmp_path / "bank", **settings)
    (name, value) = next(iter(settings.items()))
    with pytest.raises(SystemExit) as status:
        main(["prepare", "--ptbxl", str(release[0]), "--out", str(tmp_path / "bank"), f"--{name}", str(value)])
    assert status.value.code == 2 and f"--{name}" in capsys.readouterr().err and not (tmp_path / "bank").exists()


@pytest.mark.slow
def test_a_run_goes_ahead_over_what_a_killed_one_left(release, prepared, tmp_path):
    out = tmp_path / "bank"
    out.mkdir()
    shutil.copytree(prepared[0] / "textures.zarr", out / "textures.zarr")
    shutil.copy(prepared[0] / "textures.sha256", out)
    (out / "99999999.spool").write_bytes(b"of an older version")
    (out / "mine.spool").write_bytes(b"not ours")
    prepare(ptbxl.read_release(release[0], 100), out, donors=20, workers=2)
    assert bank.bank_digest(out) == bank.bank_digest(prepared[0])
    assert files_of(out) == ["donors.sha256", "donors.zarr", "mine.spool", "report.json", "textures.sha256", "textures.zarr"]


@pytest.mark.slow
def test_textures_that_are_not_ours_are_not_removed(release, prepared, tmp_path):
    out = tmp_path / "bank"
    shutil.copytree(prepared[0] / "textures.zarr", out / "textures.zarr")
    with pytest.raises(UserError, match="was not left there by this program"):
        prepare(ptbxl.read_release(release[0], 100), out)
    assert (out / "textures.zarr" / "zarr.json").exists()


COMMAND = [sys.executable, "-m", "ecg_batch", "prepare", "--workers", "2"]


@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_leaves_nothing(release, tmp_path):
    """The limit on the size of a file stands for a full disk: the same place fails, with another number."""
    command = [*COMMAND, "--ptbxl", str(release[0]), "--out", str(tmp_path / "bank")]
    for limit in (100_000, 1_000_000):
        done = subprocess.run(["prlimit", f"--fsize={limit}", *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and "the disk is full" in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert files_of(tmp_path / "bank") == []
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_no_spool(release, tmp_path):
    command = [*COMMAND, "--ptbxl", str(release[0]), "--out", str(tmp_path / "bank")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (children := children_of(process.pid)):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    children += children_of(process.pid)
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while alive := [pid for pid in children if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, alive
        time.sleep(0.1)
    assert files_of(tmp_path / "bank") == []


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_a_figure_needs_no_backend_and_fails_no_run(release, tmp_path, backend):
    command = [*COMMAND, "--ptbxl", str(release[0]), "--out", str(tmp_path / "bank")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": backend})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bank" / "bank.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_figure_that_cannot_be_drawn_is_a_warning(release, prepared, tmp_path, monkeypatch, caplog, capsys):
    from ecg_batch.donors import figure
    from ecg_batch.donors import prepare as module

    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr(module, "prepare", lambda *_: prepared[1])
    monkeypatch.setattr(figure, "draw", broken)
    assert main(["prepare", "--ptbxl", str(release[0]), "--out", str(tmp_path / "bank")]) == 0
    assert "no figure could be drawn" in caplog.text + capsys.readouterr().err


@pytest.mark.slow
def test_500_hz_records_of_the_sample_make_a_bank(real_ptbxl, tmp_path):
    release = ptbxl.read_release(real_ptbxl, 500)
    few = ptbxl.Release(release.folder, 500, release.entries[:40], release.codes, release.superclass_of)
    prepare(few, tmp_path / "bank", donors=20, workers=2)
    made = bank.read_bank(tmp_path / "bank")
    assert made.table.fs_hz == 500 and made.skeleton.shape[1:] == (8, 5000)
    ecg = ptbxl.read_record(few, next(entry for entry in few.entries if entry.ecg_id == made.table.ecg_id[0]))
    np.testing.assert_array_equal(made.skeleton[0] + made.texture[0], ecg[list(MODELLED_INDEX)])


@pytest.mark.parametrize(
    "absent", [AttributeError("posix_fallocate"), OSError(95, "Operation not supported"), OSError(22, "Invalid argument")]
)
def test_space_is_reserved_where_the_file_system_has_no_call_for_it(tmp_path, monkeypatch, absent):
    def refuse(*_):
        raise absent

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with open(tmp_path / "spool", "w+b") as file:
        reserve(file, 3_000_001)
    assert (tmp_path / "spool").stat().st_size == 3_000_001 and (tmp_path / "spool").stat().st_blocks * 512 >= 3_000_000


def test_who_the_recordings_are_from_is_said_only_where_it_is_known(tmp_path):
    from ecg_batch.donors.prepare import ATTRIBUTION, _source

    def release(*named):
        entries = tuple(ptbxl.Entry(number, 1, 50.0, 0, 1, {"NORM": 100.0}, path) for number, path in named)
        return ptbxl.Release(tmp_path / "hospital", 100, entries, ("NORM",), {"NORM": "NORM"})

    theirs = [(1, "records100/00000/00001_lr"), (21837, "records100/21000/21837_lr")]
    assert _source(release(*theirs)) == ATTRIBUTION
    for other in (
        (1, "a/b"),
        (30000, "records100/30000/30000_lr"),
        (1, "records500/00000/00001_hr"),
        (2, "records100/00000/00001_lr"),
    ):
        assert "unknown source" in _source(release(theirs[1], other)) and "PhysioNet" not in _source(release(other))


@pytest.mark.parametrize(("held", "wanted", "taken", "said"), [
    (["AFIB"] * 40, None, None, None), (["NORM"] * 38 + ["LVH"], None, 5, "superclasses have equal shares; --donors N takes more"),
    (["NORM"] * 30, 100, 30, "100 were asked for"), (["NORM"] * 30, 10, 10, None),
])  # fmt: skip
def test_fewer_donors_than_there_could_be_are_told(tmp_path, caplog, held, wanted, taken, said):
    from collections import Counter

    from ecg_batch.donors import prepare as module

    entries = [ptbxl.Entry(at, at, 50.0, 0, 1 + at % 8, {code: 100.0}, f"r/{at}") for at, code in enumerate(held)]
    measured = (70.0, np.arange(4), np.zeros(4), None, (0, 1), {}, b"", np.zeros((64, 8, 3)), np.zeros((64, 9)))
    usable = [Usable(entry, *measured) for entry in entries]
    release = ptbxl.Release(tmp_path, 100, tuple(entries), tuple(set(held)), {"NORM": "NORM", "LVH": "HYP"})
    chosen = module._chosen(release, usable, Counter(), wanted)
    assert taken is None or len(chosen) == taken
    assert (f"{len(chosen)} donors of {len(held)} usable records" in caplog.text) == (said is not None)
    assert (said or "") in caplog.text
