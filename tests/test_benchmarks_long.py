"""Benchmarks of long records run, at toy size, and their rows are what they say they are."""

from pathlib import Path

import numpy as np
import pytest
import wfdb
from making import finish, start, write_request
from printed import numbers, table

from benchmarks import (
    beat_order,
    cost,
    events,
    holter,
    joints,
    repetition,
    rhythm,
    splices,
    wide,
)
from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank, write_group
from ecg_batch.leads import MV_PER_UV
from ecg_batch.models.sequences.train_rhythm import RhythmTraining
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.synthesis.long.donor import long_donor


def test_what_recurs_is_found_and_what_does_not_is_not():
    once = np.random.default_rng(0).normal(size=(8, 6000))
    again, beats = np.concatenate([once, once], axis=1), np.arange(0, 12_000, 80)
    assert repetition.highest(again, np.arange(0, 12_000, 75), 1000) == pytest.approx(1)  # 6000 is a multiple of 75, not of 80
    assert repetition.highest(again, beats, 1000) == pytest.approx(1) and repetition.highest(once, beats, 1000) < 0.2
    assert np.isnan(repetition.highest(once, beats[:1], 1000))


@pytest.mark.slow
def test_joints_beside_ectopic_beats_are_held_against_intervals_alike():
    bank = read_bank(BUNDLED)
    row = next(row for row in range(len(bank.table)) if "BIGU" in bank.table.scp_codes(row))
    one = splices._skeleton(long_donor(bank, row), float(bank.table.hr_bpm[row]), row)
    beside = one.ectopic[1]
    joined, plain = splices.alike(one, beside)
    assert len(joined) == len(plain) >= splices.FEWEST and len(set(plain)) == len(plain)
    interval = np.searchsorted(one.interval.start, np.concatenate([joined, plain]), side="right") - 1
    assert beside[interval].all() and one.is_seam[interval[: len(joined)]].all() and not one.is_seam[interval[len(joined) :]].any()


@pytest.fixture(scope="module")
def long_records(tmp_path_factory) -> Path:
    """Four records of 320 s, two of them clean."""
    folder = tmp_path_factory.mktemp("long")
    mix = {"labels": {"NORM": 0.4, "MI": 0.3, "PVC": 0.3}, "hr_bpm": {"uniform": [60, 90]}}
    finish(start(write_request(folder, records=4, duration_s=320, batch=4, shard=4, mix=mix), folder / "run", 1))
    return folder / "run"


@pytest.mark.slow
def test_the_evidence_of_long_records(long_records, capsys, few_threads):
    pytest.importorskip("neurokit2")
    holter.main([str(long_records), "--hours", "0.36"])
    printed = capsys.readouterr().out
    assert printed.startswith("4 records of 0.0888889 h: ")
    rows, opened = table(printed), open_dataset(long_records)
    labels = opened.records["label"].to_pylist()
    found = [row for row in rows if len(row) == 6 and row[0] in labels]
    assert sorted(row[0] for row in found) == sorted(labels)
    for label, _, beats, *rates, invented in found:
        assert 300 < numbers(beats)[0] < 500 and len(numbers(invented)) == 2
        if label in holter.CLEAN:
            assert all(share > 0.97 for rate in rates for share in numbers(rate))
    aucs = [numbers(row[3])[0] for row in rows if row[1] == "other times" or "where they did" in row[1]]
    assert aucs and all(0 <= auc <= 1 for auc in aucs)
    heads = {row[0] for row in rows}
    assert {"median of records, largest over all splices", "3 s, within 10 s of these records"} < heads
    likeness = [list(map(float, row[1:])) for row in rows if row[0].startswith(("10 s, within", "3 s, within"))]
    assert len(likeness) == 3 and all(0 < median <= high <= most <= 1 for median, high, most in likeness)
    variability = [row for row in rows if len(row) == 9 and row[0] in labels]
    assert len(variability) == 4 and all(55 <= float(row[2]) <= 95 for row in variability)


@pytest.mark.slow
def test_the_texture_stream_beside_real_texture(tmp_path, capsys):
    holter.main(["--texture", str(tmp_path / "texture.png"), "--records", "4"])
    _, carried, streamed, real = table(capsys.readouterr().out)
    assert (carried[0], streamed[0], real[0]) == ("carried on as it is", "as the stream gives it", "real (3,336 donors)")
    assert all(10 < float(cell) < 500 for row in (carried, streamed, real) for cell in row[1:] if cell)
    assert (tmp_path / "texture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_joints_beside_ectopic_beats_are_counted(capsys, few_threads):
    splices.main(["--donors", "4", "--minutes", "5", "--exchanges", "1"])
    head, *rows = table(capsys.readouterr().out)
    assert head[2:5] == ["ectopic beats", "with a splice", "donors with some"]
    assert {tuple(row[:2]) for row in rows} > {("all", "before"), ("all", "after")}
    count = {tuple(row[:2]): numbers(row[2])[0] for row in rows}
    for second in ("before", "after"):
        parts = [beats for (kind, which), beats in count.items() if kind != "all" and which == second]
        assert sum(parts) == count["all", second] > 50
    for row in rows:
        some, donors = numbers(row[4])
        assert 0 <= numbers(row[3])[0] <= 100 and 0 <= some <= donors <= 4
        assert row[5] == "too few" or 0 <= numbers(row[5])[0] <= 1


@pytest.mark.slow
def test_repetition_beside_a_recording(long_records, tmp_path, capsys):
    """The recording is the second record's own lead II: both sides must then agree about it."""
    pytest.importorskip("neurokit2")
    opened = open_dataset(long_records)
    np.save(tmp_path / "recording.npy", opened.raw[1][1] * MV_PER_UV)
    repetition.main([str(long_records), f"{tmp_path / 'recording.npy'}:100", "--figure", str(tmp_path / "figure.png")])
    rows = table(capsys.readouterr().out)
    (recording,) = (row for row in rows if row[0].startswith("recording.npy"))
    assert float(recording[2]) == pytest.approx(320 / 60, abs=0.05) and 300 < numbers(recording[3])[0] < 500
    pieces = [row for row in rows if len(row) == 7 and row[0] in ("one lead", "eight leads")]
    real = [row for row in pieces if row[2] == "real"]
    assert [row[:2] + row[3:4] for row in real] == [["one lead", "5", "1"]]
    ours = [row for row in pieces if row[2] != "real"]
    assert sum(int(row[3]) for row in ours) == 8 and {row[0] for row in ours} == {"one lead", "eight leads"}
    for row in pieces:
        low, middle, high = map(float, row[4:])
        assert 0.3 < low <= middle <= high <= 1
    label = opened.records["label"][1].as_py()
    (same,) = (row for row in ours if row[0] == "one lead" and row[2] == label)
    assert float(same[4]) - 0.05 <= float(real[0][5]) <= float(same[6]) + 0.05
    assert (tmp_path / "figure.png").stat().st_size > 5_000


@pytest.mark.slow
def test_the_cost_of_whole_jobs(capsys):
    cost.main(["--rounds", "1", "--cases", "10 s, batches of 256", "1 h, a batch of 3", "--records", "256", "--minutes", "3"])
    head, short, long = table(capsys.readouterr().out)
    assert head[1:3] == ["peak, MiB", "processor, ms a minute of signal (lowest, highest)"]
    assert short[0] == "10 s, batches of 256, cut to 256 of 10 s" and long[0] == "1 h, a batch of 3, cut to 3 of 180 s"
    for row in (short, long):
        middle, low, high = numbers(row[2])
        assert 100 < float(row[1]) < 2048 and low == middle == high
    assert float(short[3]) == 1


def test_cases_are_cut_to_what_is_asked():
    assert cost.cut(("x.yaml", 32, 16, 3600), None, None) == ("x.yaml", 32, 16, 3600)
    assert cost.cut(("x.yaml", 32, 16, 3600), 8, 5) == ("x.yaml", 8, 8, 300)
    assert cost.cut(("x.yaml", 1, 1, 10), 8, 5) == ("x.yaml", 1, 1, 10), "never more than the case says"


def test_variability_of_rhythms_is_told_beside_what_is_published(capsys):
    rhythm.main(["--seeds", "2", "--hours", "0.25"])
    head, *rows = table(capsys.readouterr().out)
    assert head == ["case", *rhythm.MEASURES, "within range", "s"]
    assert [row[0].split(", cut")[0] for row in rows] == [case[0] for case in rhythm.CASES]
    assert sum("cut to 0.25 h" in row[0] for row in rows) == len(rhythm.CASES) - 1  # one has five minutes
    for row in rows:
        mean, low, high = numbers(row[1])
        assert 0 < low <= mean <= high
        assert row[9].endswith("of 2") and float(row[10]) >= 0
    healthy, _, infarction, *_, fibrillation = (numbers(row[1])[0] for row in rows)
    assert infarction < healthy < fibrillation


@pytest.mark.slow
def test_spectra_of_recordings_beside_generated_hours(tmp_path, capsys):
    pytest.importorskip("neurokit2")
    made, names = read_bank(BUNDLED), f"{tmp_path / 'recording.npy'}:100"
    row = int(np.argmin(np.abs(made.table.hr_bpm - 70)))
    donor = (made.skeleton[row] + made.texture[row])[1] * MV_PER_UV
    np.save(tmp_path / "recording.npy", np.tile(donor, 32))
    rhythm.main(["--seeds", "1", names])
    head, recording, generated = table(capsys.readouterr().out)
    assert recording[0] == "recording.npy:100" and generated[0] == "median of 1 generated hours"
    for cells in (recording[1:], generated[1:]):
        assert len(cells) == len(rhythm.BANDS_HZ) - 1 == len(head) - 1
        assert all(float(cell) >= 0 for cell in cells) and sum(map(float, cells)) == pytest.approx(100, abs=1)


@pytest.mark.slow
def test_joints_of_lent_beats_against_own_ones(capsys):
    joints.main(["--only", "ventricular", "--donors", "7", "--seconds", "120"])
    rows = [row for row in table(capsys.readouterr().out) if row[0] == "ventricular"]
    assert {(side, what) for _, side, what, *_ in rows} == set(joints.SIDES)


def test_two_beats_are_most_alike_where_one_is_a_copy():
    """Moved by a sample as well; noise tells the others apart."""
    lead, r = np.random.default_rng(0).standard_normal(4000), np.arange(200, 3600, 100)
    lead[r[3] - 40 : r[3] + 60] = lead[r[7] - 41 : r[7] + 59]
    found = wide.most_like(lead, r)
    assert found[[3, 7]] == pytest.approx(1) and np.delete(found, [3, 7]).max() < 0.6
    assert wide.measured([(lead, r[: wide.FEWEST - 1])]) == []
    assert len(wide.measured([(lead, r)])[0]) == 5


def test_repetition_of_ventricular_beats(tmp_path, capsys):
    rng = np.random.default_rng(1)
    r = np.arange(400, 36_000, 360)
    wfdb.wrsamp("beats", 360, ["mV"], ["MLII"], rng.standard_normal((36_000, 1)), write_dir=str(tmp_path))
    wfdb.wrann("beats", "atr", r, ["V"] * len(r), write_dir=str(tmp_path))
    wide.main([str(tmp_path), "--records", "2", "--seconds", "120", "--figure", str(tmp_path / "wide.png")])
    assert any(row[:2] == ["MIT-BIH", "1"] for row in table(capsys.readouterr().out))
    assert (tmp_path / "wide.png").stat().st_size > 5_000


def test_events_are_drawn_and_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(events, "KINDS", {name: events.KINDS[name] for name in ("v_run", "pause", "sv_blocked")})
    events.main(["figure", "--out", str(tmp_path / "events.png")])
    assert (tmp_path / "events.png").stat().st_size > 10_000
    capsys.readouterr()
    events.main(["rates", "--records", "8", "--seconds", "900"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["`v_run`", "`pause`", "`sv_blocked`"]
    assert 15 < float(rows[0][2]) < 45 and 2 < float(rows[1][2]) < 11
    events.main(["cost", "--records", "2", "--seconds", "61"])
    assert "`events: {}`" in capsys.readouterr().out


@pytest.mark.slow
def test_the_order_of_beats(tmp_path, capsys, monkeypatch, few_threads):
    """A toy of rules against the bundled model, on 120 recordings, regular and in fibrillation, and on two of MIT-BIH's kind."""
    few = RhythmTraining(epochs=1, batch=30)
    monkeypatch.setattr(beat_order, "TAUGHT", few), monkeypatch.setattr(beat_order, "FURTHER", few)
    draws, codes = np.random.default_rng(0), ["SR", "AFIB"]
    rr = np.where(np.arange(120)[:, None] % 2, draws.uniform(50, 110, (120, 11)), draws.normal(80, 1, (120, 11)))
    r = np.rint(np.cumsum(np.concatenate([np.full((120, 1), 20), rr], axis=1), axis=1)).astype(np.int32)
    arrays = {"r_sample": r, "beat_symbol": np.full(r.shape, ord("N"), np.uint8), "age": np.full(120, 60, np.float32),
              "likelihood": np.where(np.arange(120)[:, None] % 2 == np.arange(2), 0, -1).astype(np.int8),
              "patient_id": np.arange(120, dtype=np.int32), "fold": (np.arange(120) // 2 % 9 + 1).astype(np.int8)}  # fmt: skip
    write_group(tmp_path / "textures.zarr", arrays, {"fs_hz": 100, "codes": codes, "superclass_of": {}})
    where = ["--bank", str(tmp_path), "--models", str(BUNDLED), "--out", str(tmp_path / "out")]
    beat_order.main(["ptbxl", *where])
    head, *rows = table(capsys.readouterr().out)
    assert head[2:5] == ["Mamba", "Mamba, conditions of other records", "rules"]
    assert [row[0] for row in rows] == ["fibrillation", "sinus", "all"]
    assert all(float(row[2]) < float(row[3]) for row in rows) and numbers(rows[0][5])[1] > 0
    beat_order.main(["beats", *where])
    head, *rows = table(capsys.readouterr().out)
    assert [row[:2] for row in rows[:3]] == [["fibrillation", name] for name in ("recordings", "rules", "Mamba")] and len(rows) == 6
    assert all(0.1 < numbers(row[2])[1] < 0.4 for row in rows[:3]) and numbers(rows[3][2])[1] < 0.05
    mitdb, at = str(tmp_path / "mitdb"), np.insert(100 + np.arange(60) * 288, 0, 10)
    Path(mitdb).mkdir()
    for name in ("1", "2"):
        signal = draws.normal(0, 0.1, (18_000, 1))
        wfdb.wrsamp(name, 360, ["mV"], ["MLII"], signal, fmt=["16"], comments=["60 M"], write_dir=mitdb)
        wfdb.wrann(name, "atr", at, ["+", *"N" * 60], aux_note=["(N", *[""] * 60], write_dir=mitdb)
    beat_order.main(["mitdb", *where, "--mitdb", mitdb])
    head, *rows = table(capsys.readouterr().out.split("bits a beat")[-1])
    assert [row[:2] for row in rows] == [["sinus", "10"], ["all", "10"]] and len(rows[0]) == 7
    before = (tmp_path / "out" / "rules.pt").stat().st_mtime_ns
    beat_order.main(["ptbxl", *where])
    assert (tmp_path / "out" / "rules.pt").stat().st_mtime_ns == before, "what was taught is kept"
