"""The delineator takes leads of any rate and length, learns where it is told to, and is held against people's marks to the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from making import write_request
from places import ROOT
from real_sets import few_donors

from ecg_batch.cli.main import main
from ecg_batch.errors import UserError
from ecg_batch.evaluation.waves import delineator
from ecg_batch.evaluation.waves.compare import COPIES, SYNTHETIC, Job, WaveSettings, marked_by_people, synthetic, trained
from ecg_batch.evaluation.waves.copies import EDGES, copies, donor_waves
from ecg_batch.evaluation.waves.delineator import (
    NETWORK_HZ,
    SAID_HZ,
    UNKNOWN,
    Delineator,
    Taught,
    Training,
    fit,
    probabilities,
    said,
)
from ecg_batch.evaluation.waves.marked import names_in, read_beats_of, read_delineated, spans_to_masks
from ecg_batch.evaluation.waves.residuals import mixed, noise_for
from ecg_batch.leads import LEADS, twelve_leads
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.signal.marks import read_marks
from ecg_batch.synthesis.generate import open_generator

TINY = WaveSettings(teaching=24, steps=2, rows=4, folds=2, noisy_s=10, residuals=4, workers=1)
NAMES = ("3", "20", "100")  # of the folder of marked records
SYMBOLS = "pNt"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """32 records with noise."""
    folder = tmp_path_factory.mktemp("taught")
    request = load_request(write_request(folder, records=32, batch=16, shard=64, noise={"snr_db": 6}))
    synthesize(request, folder / "dataset", 1, open_generator)
    return folder / "dataset"


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """Three donors in the layout of LUDB and of MIT-BIH: their marks as a reader would have written them."""
    folder, bank = tmp_path_factory.mktemp("marked"), few_donors()
    for name, row in zip(NAMES, (0, 40, 80), strict=True):
        ecg = twelve_leads(bank.skeleton[row].astype(int) + bank.texture[row]) / 1000
        wfdb.wrsamp(name, 100, ["mV"] * 12, [lead.lower() for lead in LEADS], ecg.T, fmt=["16"] * 12, adc_gain=[1000] * 12,
                    baseline=[0] * 12, write_dir=str(folder))  # fmt: skip
        r = bank.beats(row)
        marks = np.rint(r[:, None] + read_marks(bank.wave_ms[row, : len(r)]) / 10)[1:-1]  # not the first and last
        there = [(beat[3 * kind : 3 * kind + 3], symbol) for beat in marks for kind, symbol in enumerate(SYMBOLS)]
        there = [(wave, symbol) for wave, symbol in there if not np.isnan(wave).any()]
        sample, symbol = np.concatenate([wave for wave, _ in there]).astype(int), [one for _, of in there for one in f"({of})"]
        wfdb.wrann(name, "x", sample, symbol, fs=100, write_dir=str(folder))
        for lead in LEADS:  # wfdb writes no digits in a suffix
            (folder / f"{name}.{lead.lower()}").write_bytes((folder / f"{name}.x").read_bytes())
        wfdb.wrann(name, "atr", r, ["N"] * len(r), fs=100, write_dir=str(folder))
    return folder


# The network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fs_hz", [100, 250, 360, 500])
@pytest.mark.parametrize("seconds", [3, 10, 31.5])
def test_any_rate_and_length_gives_a_probability_every_8_ms(fs_hz, seconds):
    ecg = np.random.default_rng(0).normal(size=(2, round(seconds * fs_hz)))
    p = probabilities(Delineator().eval(), ecg, fs_hz)
    assert p.shape == (2, 4, round(np.ceil(seconds * SAID_HZ))) and np.allclose(p.sum(axis=1), 1, atol=1e-5)


def test_a_unit_and_a_level_change_nothing_and_a_window_reads_as_the_whole():
    model, ecg = Delineator().eval(), np.cumsum(np.random.default_rng(0).normal(size=(1, 2500)), axis=1)
    assert np.allclose(probabilities(model, ecg, 250), probabilities(model, 1000 * ecg + 77, 250), atol=1e-4)


@pytest.mark.parametrize("fs_hz", [100, 360, 500])
def test_what_the_network_sees_is_in_its_band_and_in_time(fs_hz):
    time, at = np.arange(10 * fs_hz) / fs_hz, np.arange(10 * NETWORK_HZ) / NETWORK_HZ
    wave = lambda t: np.sin(2 * np.pi * 7 * t)  # noqa: E731
    seen = delineator.at_network_rate(torch.from_numpy(5 + wave(time)), fs_hz).numpy()
    assert np.abs(seen - wave(at))[250:-250].max() < 0.01
    drift = delineator.at_network_rate(torch.from_numpy(np.sin(2 * np.pi * 0.05 * time)), fs_hz).numpy()
    assert np.abs(drift[500:-500]).max() < 0.02


def test_weights_are_under_a_mebibyte_and_come_back_or_are_refused(tmp_path):
    path, model = tmp_path / "delineator.safetensors", Delineator().eval()
    delineator.save(path, model, {"made with": "nothing"})
    assert path.stat().st_size < 2**20
    again, says = delineator.load(path)
    ecg = np.random.default_rng(0).normal(size=(1, 2000))
    assert says["made with"] == "nothing" and np.array_equal(probabilities(model, ecg, 250), probabilities(again, ecg, 250))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        delineator.load(path)
    delineator.save(path, Delineator((8, 16)), {})
    with pytest.raises(UserError, match="other sizes"):
        delineator.load(path)


def test_targets_cross_a_half_where_waves_begin_and_end():
    """Samples say it to within their distance, and straight lines between them make no bias of it."""
    rng, off = np.random.default_rng(0), []
    for on_s in rng.uniform(1, 2, 200):
        end_s = on_s + rng.uniform(0.08, 0.3)
        masks = spans_to_masks(*(np.array([[nan], [at], [nan]]) for at, nan in ((on_s, np.nan), (end_s, np.nan))), 1000, 100)
        target = said(torch.from_numpy(masks[None]), 100)[0][0, 2].numpy()
        over = np.flatnonzero(target >= 0.5)
        off.append((over[0] / SAID_HZ - on_s, over[-1] / SAID_HZ - end_s))
    assert np.abs(off).max() < 0.014 and np.abs(np.mean(off, axis=0)).max() < 0.0045


def test_nothing_is_learned_where_nobody_said_anything():
    ecg = np.random.default_rng(0).normal(size=(4, 1, 2000))
    waves = np.full((4, 1, 3, 2000), UNKNOWN, np.uint8)
    target, known = said(torch.from_numpy(waves[:, 0]), 250)
    assert not known.any() and target.shape == (4, 4, 1000)
    assert all(p.isfinite().all() for p in fit(Taught(ecg, waves, 250), Training(2, 2)).state_dict().values())


def test_a_training_is_the_same_each_time_and_learns():
    time = np.arange(1000) / 100
    inside = (time % 1 > 0.45) & (time % 1 < 0.55)
    waves = np.zeros((4, 1, 3, 1000), np.uint8)
    waves[:, 0, 1] = inside
    taught = Taught(np.broadcast_to(1.0 * inside, (4, 1, 1000)), waves, 100)
    one, other = (fit(taught, Training(60, 8)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    p = probabilities(one, 1.0 * inside[None], 100)[0, 2]
    now = np.interp(np.arange(1250) / SAID_HZ, time, inside)
    assert np.corrcoef(p, now)[0, 1] > 0.9


# What teaches ---------------------------------------------------------------------------------------------------------


def test_copies_are_the_recordings_of_the_records_donors(dataset):
    taught, rows, bank = copies(dataset, 16), open_dataset(dataset).records, few_donors()
    assert taught.ecg.shape == (16, 12, 1000) and taught.waves.shape == (16, 1, 3, 1000)
    for at, ecg_id in enumerate(rows["donor_ecg_id"].to_pylist()[:16]):
        if (held := np.flatnonzero(bank.table.ecg_id == ecg_id)).size:
            assert np.array_equal(taught.waves[at, 0], donor_waves(bank, held[0]))


def test_a_donors_waves_lie_where_its_marks_are():
    bank = few_donors()
    r, marks = bank.beats(0), read_marks(bank.wave_ms[0])
    waves = donor_waves(bank, 0)
    for kind, (on, _) in enumerate(EDGES):
        at = r + np.ceil(marks[: len(r), on] / 10 - 1e-4)
        at = at[(at > 0) & (at < 1000)].astype(int)
        assert waves[kind, at].all() and not waves[kind, at - 1].any()


def test_synthetic_examples_are_the_records_of_the_dataset(dataset):
    taught = synthetic(dataset, 20)
    assert np.array_equal(taught.ecg, open_dataset(dataset).raw[:20]) and taught.waves[:, :, 1:].any(axis=(1, 3)).all()


def test_noise_is_at_the_ratio_that_was_asked():
    rng = np.random.default_rng(0)
    rows = delineator.at_network_rate(torch.from_numpy(rng.normal(size=(5, 1000)).astype(np.float32)), 100).numpy()
    noise, lead = noise_for(rows, 20_000, seed=1), np.sin(np.arange(20_000) / 10).astype(np.float32)
    added = mixed(lead, noise, 6.0) - lead
    assert 10 * np.log10(np.square(lead[500:-500]).mean() / np.square(added).mean()) == pytest.approx(6, abs=0.2)


# From a dataset to a page ---------------------------------------------------------------------------------------------


def test_records_are_read_as_they_were_marked(marked):
    assert names_in(marked, "i") == list(NAMES)
    with pytest.raises(UserError, match="no record 7 "):
        names_in(marked, "i", ["3", "7"])
    record, beats = read_delineated(marked, "3"), read_beats_of(marked, "3")
    waves = few_donors()
    assert record.ecg.shape == (12, 1000) and len(record.waves) == 12 and len(beats.beats_s) == len(waves.beats(0))
    assert (record.waves[0].end_s > record.waves[0].on_s).all() and set(record.waves[0].kind) <= {0, 1, 2}
    taught = marked_by_people([record])
    low, high = (round(100 * at) for at in record.waves[0].within_s())
    assert (taught.waves[0, 0, :, : low - 1] == UNKNOWN).all() and (taught.waves[0, 0, :, low + 1 : high - 1] != UNKNOWN).all()


@pytest.mark.slow
def test_the_command_writes_a_page_and_goes_on_where_it_stopped(dataset, marked, tmp_path, capsys):
    (tmp_path / "names").write_text("ludb/3\nludb/20\n\nmitdb/100\n")
    words = ["evaluate", str(dataset), "--ludb", str(marked), "--mitdb", str(marked), "--records", str(tmp_path / "names"), "--out",
             str(tmp_path / "report"), "--set", *(f"{name}={value}" for name, value in vars(TINY).items())]  # fmt: skip
    assert main(words) == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert list(report["waves in LUDB"]["by record"][SYNTHETIC]) == ["3", "20"]
    assert set(report["beats in MIT-BIH"]["rows"]["XQRS"]) == {"as recorded"}  # without PTB-XL no noise
    assert report["beats in MIT-BIH"]["rows"]["XQRS"]["as recorded"]["F1"][0] > 0.8
    assert "waves in LUDB" in (tmp_path / "report/report.html").read_text().lower().replace("ludb", "LUDB")
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "report/delineators").iterdir()}
    assert sorted(path.stem for path in weights) == ["copies", "ludb-0", "ludb-1", "synthetic"]
    (tmp_path / "report/delineators/copies.safetensors").unlink()
    assert main(words) == 0
    again = json.loads((tmp_path / "report/report.json").read_text())
    for part in ("waves in LUDB", "beats in MIT-BIH"):
        assert again[part] == report[part]
    assert all(path.stat().st_mtime_ns == was for path, was in weights.items() if path.stem != "copies")


@pytest.mark.slow
def test_other_settings_are_another_training(dataset, tmp_path):
    first = Job("synthetic", SYNTHETIC, dataset, TINY)
    second = Job("synthetic", SYNTHETIC, dataset, WaveSettings(**vars(TINY) | {"steps": 3}))
    assert first.key() != second.key() != Job("synthetic", COPIES, dataset, TINY).key()
    one, other = (trained([job], tmp_path)["synthetic"].state_dict() for job in (first, second))
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("lines, said_so", [("ludb/3\n5\n", "line 2"), ("ludb/\nmitdb/1\n", "line 1"), ("ludb/3\n", "mitdb")])
def test_a_list_of_records_that_does_not_say_of_which_is_refused(lines, said_so, tmp_path, capsys):
    (tmp_path / "names").write_text(lines)
    words = ["evaluate", "DIR", "--ludb", "A", "--mitdb", "B", "--records", str(tmp_path / "names"), "--out", "R"]
    assert main(words) == 2 and said_so in capsys.readouterr().err


def test_what_goes_with_other_sections_is_refused(capsys):
    assert main(["evaluate", "DIR", "--out", "R"]) == 2 and "--ptbxl" in capsys.readouterr().err
    assert main(["evaluate", "DIR", "--ludb", "A", "--out", "R", "--skip", "judge"]) == 2 and "--skip" in capsys.readouterr().err


@pytest.mark.slow
def test_the_bundled_delineator_finds_what_cardiologists_marked():
    if not (named := os.environ.get("ECG_BATCH_LUDB")):
        pytest.skip("needs LUDB, or a part of it: set ECG_BATCH_LUDB to its folder `data`, with 1.hea and so on")
    from ecg_batch.bundled import BUNDLED
    from ecg_batch.evaluation.waves.compare import counts_of, delineated
    from ecg_batch.evaluation.waves.scores import interval

    model, _ = delineator.load(BUNDLED / "delineator.safetensors")
    some = names_in(Path(named), "i")[::10]
    counts = counts_of([delineated(model, read_delineated(Path(named), name)) for name in some])
    assert interval(counts)[0] > 0.96 and interval(counts[:, 2:4])[0] > 0.985


@pytest.mark.slow
def test_the_example_trains_weights_that_are_read_again(dataset, tmp_path):
    command = [sys.executable, "examples/train_delineator.py", dataset, "--out", tmp_path / "weights.safetensors", "--steps", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    model, says = delineator.load(tmp_path / "weights.safetensors")
    assert says["steps"] == "2" and probabilities(model, np.zeros((1, 1000)), 100).shape == (1, 4, 1250)
