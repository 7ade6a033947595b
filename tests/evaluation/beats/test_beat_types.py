"""The classifier learns what it is told and nothing else, and is held against people's annotations recording by recording."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from making import write_request
from places import ROOT
from real_sets import write_few_donors
from toy_beats import HZ, recording, toy, write

from ecg_batch.bundled import BUNDLED
from ecg_batch.cli.main import main
from ecg_batch.donors.bank import read_bank
from ecg_batch.errors import UserError
from ecg_batch.evaluation.beats import classifier
from ecg_batch.evaluation.beats.classifier import SAID, BeatClassifier, Taught, Training, fit, kinds_of, said_of
from ecg_batch.evaluation.beats.compare import CEILING, COPIES, SYNTHETIC, BeatSettings, Job, content_of, in_folds, summary
from ecg_batch.evaluation.beats.features import NUMBERS, SHAPES, at_rate, seen
from ecg_batch.evaluation.beats.recordings import read_recording, rhythm_at
from ecg_batch.evaluation.beats.rules import types_by_rule
from ecg_batch.evaluation.beats.scores import confusion, less, of_class, scored
from ecg_batch.evaluation.beats.teaching import MOST, copied, marked_by_people, synthetic
from ecg_batch.evaluation.waves.scores import f1
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.synthesis.generate import open_generator

TINY = BeatSettings(seeds=1, steps=4, beats=16, folds=2, workers=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six records of a minute and a half."""
    folder = tmp_path_factory.mktemp("long")
    bank = write_few_donors(folder / "bank")
    mix = {"labels": {"PVC": 0.4, "PAC": 0.4, "AFIB": 0.2}, "hr_bpm": {"uniform": [60, 90]}}
    request = load_request(write_request(folder, records=6, batch=6, shard=6, duration_s=90, mix=mix, bank=str(bank)))
    synthesize(request, folder / "dataset", 1, open_generator)
    return folder / "dataset"


@pytest.fixture(scope="module")
def mitdb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mitdb")
    for seed, name in enumerate(("101", "207", "33")):
        write(folder, name, seed)
    return folder


def f1_of(model, records, name: str) -> float:
    counts = [confusion(kinds_of(each.symbol), said_of(model, seen(each.lead, each.r)).argmax(axis=1)) for each in records]
    return float(f1(of_class(np.sum(counts, axis=0), name)))


# What it sees, and what it learns -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_beats_that_are_obviously_different_are_told_apart_in_others():
    taught = marked_by_people([recording(seed) for seed in range(4)])
    model = fit(taught, Training(60, 64))
    others = [recording(seed) for seed in (10, 11)]
    assert f1_of(model, others, "V") > 0.97 and f1_of(model, others, "S") > 0.9


def test_shuffled_labels_teach_nothing():
    taught = marked_by_people([recording(seed) for seed in range(4)])
    model = fit(Taught(taught.seen, np.random.default_rng(0).permutation(taught.kind)), Training(60, 64))
    others = [recording(seed) for seed in (10, 11)]
    assert f1_of(model, others, "V") < 0.5 and f1_of(model, others, "S") < 0.5


def test_the_rule_knows_them_too():
    each = recording(5, share=0.05)  # with many more RR would be irregular
    counts = confusion(kinds_of(each.symbol), types_by_rule(seen(each.lead, each.r)))
    assert f1(of_class(counts, "V")) > 0.97 and f1(of_class(counts, "S")) > 0.9


def test_a_unit_a_level_and_electrodes_turned_over_change_nothing():
    each = recording(0)
    one = seen(each.lead, each.r)
    for other in (1000 * each.lead + 77, -each.lead):
        found = seen(other, each.r)
        assert np.allclose(found.shapes, one.shapes, atol=1e-3) and np.allclose(found.numbers, one.numbers, atol=1e-3)
    assert one.shapes.shape == (len(each.r), len(SHAPES), 128) and one.numbers.shape == (len(each.r), len(NUMBERS))


def test_another_rate_is_seen_as_nearly_the_same():
    one, other = ((at_rate(x, hz), np.rint(r * 100 / hz)) for hz in (100, 360) for x, r, _ in [toy(3, hz=hz)])
    assert np.median(np.abs(seen(*one).numbers - seen(*other).numbers)) < 0.05


def test_no_type_enters_what_is_seen_and_the_first_and_last_beat_are_seen():
    each = recording(1)
    assert np.isfinite(seen(each.lead, each.r).numbers).all()
    assert np.isfinite(seen(each.lead, each.r[:8]).shapes).all()
    with pytest.raises(ValueError, match="7 beats"):
        seen(each.lead, each.r[:7])


def test_a_training_is_the_same_each_time():
    taught = marked_by_people([recording(0)])
    one, other = (fit(taught, Training(5, 16, seed=3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_weights_are_small_and_come_back_or_are_refused(tmp_path):
    path, model = tmp_path / "beats.safetensors", fit(marked_by_people([recording(0)]), Training(2, 16))
    classifier.save(path, model, {"made with": "nothing"})
    again, says = classifier.load(path)
    each = recording(1)
    of = seen(each.lead, each.r)
    assert path.stat().st_size < 2**18 and says["made with"] == "nothing"
    assert np.array_equal(said_of(model, of), said_of(again, of)) and np.allclose(said_of(model, of).sum(axis=1), 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read.*train_beat_classifier"):
        classifier.load(path)


def test_one_class_alone_teaches_nothing():
    taught = marked_by_people([recording(0, share=0)])
    with pytest.raises(UserError, match="needed two"):
        fit(taught, Training(2, 16))


# What teaches ---------------------------------------------------------------------------------------------------------


def test_fusions_and_unknown_beats_teach_nothing_and_are_in_no_score():
    each = recording(0)
    symbol = each.symbol.copy()
    symbol[10:20], symbol[20:30] = "F", "/"
    taught = marked_by_people([recording(0).__class__(each.name, "MLII", each.lead, each.r, symbol, ())])
    assert set(taught.kind) <= {0, 1, 2} and np.bincount(taught.kind).max() <= MOST
    truth = kinds_of(np.array(list("NNVFQ")))
    wrong, right = confusion(truth, np.array([0, 0, 2, 2, 2])), confusion(truth, np.array([0, 0, 2, 0, 0]))
    assert of_class(wrong, "V").tolist() == of_class(right, "V").tolist() == [1, 0, 0]


def test_synthetic_examples_have_the_types_that_the_dataset_states(dataset):
    rows, taught = open_dataset(dataset), synthetic(dataset, 6, 90)
    stated = [symbol for record in range(6) for symbol in rows.beats(record)["symbol"].to_pylist()]
    of = np.bincount(taught.kind, minlength=3)
    assert of[SAID.index("V")] == 2 * stated.count("V") and of[SAID.index("S")] == 2 * stated.count("A") and of.sum() > 300


def test_each_beat_of_a_donor_is_copied_once():
    bank = read_bank(BUNDLED)
    r = bank.beats(0)
    symbols = np.array(["N"] * len(r))
    symbols[2] = "V"
    taught = copied(bank, 0, r, symbols, 1, np.random.default_rng(0))
    assert len(taught) == len(r) and (taught.kind == SAID.index("V")).sum() == 1
    assert np.abs(taught.seen.numbers[:, NUMBERS.index("RR before / usual")]).max() < 1


def test_what_was_taught_by_others_has_another_key(dataset, mitdb):
    jobs = [Job("a", SYNTHETIC, dataset, TINY), Job("a", SYNTHETIC, dataset, TINY, 1), Job("a", COPIES, dataset, TINY),
            Job("a", CEILING, mitdb, TINY, 0, ("101",)), Job("a", CEILING, mitdb, TINY, 0, ("33",)),
            Job("a", SYNTHETIC, dataset, BeatSettings(**vars(TINY) | {"steps": 5}))]  # fmt: skip
    assert len({job.key() for job in jobs}) == len(jobs)


def test_copies_are_of_the_bank_and_synthetic_beats_of_what_a_dataset_says(dataset, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "other")
    table = pq.read_table(other / "beats.parquet")
    symbol = pa.array(["V" if name == "A" else name for name in table["symbol"].to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("symbol"), "symbol", symbol), other / "beats.parquet")
    assert content_of(COPIES, other) == content_of(COPIES, dataset)
    assert content_of(SYNTHETIC, other) != content_of(SYNTHETIC, dataset)


def test_neighbours_are_in_one_fold_and_every_recording_in_one():
    names = ["100", "201", "202", "203", "209"]
    assert in_folds(names, 2) == [["100", "201", "202"], ["203", "209"]] and in_folds(names, 0) == in_folds(["1"], 2) == []
    assert sum(in_folds(names, 11), []) == names


# Scores ---------------------------------------------------------------------------------------------------------------


def test_a_worked_example_of_scores():
    truth, said = kinds_of(np.array(list("NNNVVSA"))), np.array([0, 0, 2, 2, 0, 1, 0])
    counts = of_class(confusion(truth, said), "V")
    assert counts.tolist() == [1, 1, 1] and of_class(confusion(truth, said), "S").tolist() == [1, 0, 1]
    rows = scored(np.array([confusion(truth, said)] * 3), "V")
    assert rows["Se"] == rows["P+"] == rows["F1"] == [0.5, 0.5, 0.5]


def test_intervals_are_by_recording_and_in_no_order():
    rng, truth = np.random.default_rng(0), kinds_of(np.array(list("NNNNV") * 40))
    good = [confusion(truth, truth)] * 5
    bad = [confusion(truth, rng.permutation(truth))] * 5
    value, low, high = scored(np.array(good + bad), "V")["F1"]
    assert low < value - 0.15 and high > value + 0.15  # 2,000 beats would give 0.03
    assert scored(np.array(good), "V")["F1"] == [1, 1, 1]
    assert scored(np.array(bad + good), "V")["F1"][0] == value
    assert less(np.array(good + bad), np.array(good + bad), "V") == [0, 0, 0]


def test_a_draw_without_any_of_a_class_has_no_score():
    truth = [kinds_of(np.array(list(beats))) for beats in ("NNNNV", "NNNNN", "NNNNN")]
    found = scored(np.array([confusion(each, each) for each in truth]), "V")
    assert found["F1"] == found["Se"] == [1, 1, 1]  # 8 of 27 draws have no V
    assert np.isnan(scored(np.array([confusion(truth[1], truth[1])]), "V")["F1"]).all()


def test_the_recording_that_has_most_of_s_is_left_out_once():
    truth = [kinds_of(np.array(list("NNNN" + "A" * count))) for count in (1, 9, 2)]
    of = np.array([[confusion(each, np.where(each == 1, at != 1, each).astype(int)) for at, each in enumerate(truth)]])
    found = summary(["a", "b", "c"], {name: of for name in (SYNTHETIC, COPIES, "rule")})
    assert found["most S"] == {"recording": "b", "S": 9}
    row = found["rows"][SYNTHETIC]
    assert row["S"]["Se"][0] == 3 / 12 and row["S without the recording of most"]["Se"][0] == 1
    assert found["worst recordings"][SYNTHETIC]["S missed"] == {"b": 9.0}


# Recordings, and the command -----------------------------------------------------------------------------------------


def test_recordings_are_read_as_people_marked_them(tmp_path):
    write(tmp_path, "7", 4, leads=("V5", "MLII"), rhythms=((0, "(N"), (20 * HZ, "(AFIB"), (50 * HZ, "(N")))
    found, (_, r, symbols) = read_recording(tmp_path, "7"), toy(4)
    assert found.lead_name == "MLII" and len(found.lead) == 12_000 and np.array_equal(found.symbol, symbols)
    assert np.abs(found.r - r * 100 / HZ).max() <= 0.5
    assert found.lead[found.r[symbols == "N"]].min() > 0.3
    assert found.rhythm_at(np.array([0, 1999, 2000, 4999, 5000])).tolist() == ["(N", "(N", "(AFIB", "(AFIB", "(N"]
    assert rhythm_at([(5, "(N")], np.array([4, 5])).tolist() == ["", "(N"] and rhythm_at([], np.array([4])).tolist() == [""]


@pytest.mark.parametrize("spoil, said_so", [
    (lambda folder: (folder / "7.dat").unlink(), "cannot be read"),
    (lambda folder: (folder / "7.atr").write_bytes(b"no annotations"), "needed"),
    (lambda folder: (folder / "7.hea").write_text("nothing"), "cannot be read"),
])  # fmt: skip
def test_a_recording_that_cannot_be_read_is_named_in_a_sentence(spoil, said_so, tmp_path):
    spoil(write(tmp_path, "7", 0))
    with pytest.raises(UserError, match=said_so) as refused:
        read_recording(tmp_path, "7")
    assert str(tmp_path / "7") in str(refused.value) and "\n" not in str(refused.value)


def test_a_folder_without_recordings_and_records_of_ten_seconds_are_refused(dataset, tmp_path, capsys):
    assert main(["evaluate", str(dataset), "--mitdb", str(tmp_path), "--out", str(tmp_path / "R")]) == 2
    assert "no record with NAME.hea and NAME.atr" in capsys.readouterr().err
    for more in (["--ludb", "L"], ["--ptbxl", "P"]):
        assert main(["evaluate", str(dataset), "--mitdb", "M", "--cinc2017", "C", *more, "--out", str(tmp_path / "R")]) == 2
        assert "records of 10 s" in capsys.readouterr().err


def test_records_of_ten_seconds_teach_no_rhythm(small_dataset, tmp_path, capsys):
    assert main(["evaluate", str(small_dataset), "--cinc2017", "C", "--out", str(tmp_path / "R")]) == 2
    assert "taught by long records" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dataset_without_fibrillation_teaches_types_of_beats_alone(mitdb, tmp_path, capsys):
    mix = {"labels": {"NORM": 0.5, "PAC": 0.5}, "hr_bpm": {"uniform": [60, 90]}}
    bank = str(write_few_donors(tmp_path / "bank"))
    request = write_request(tmp_path, records=4, batch=4, shard=4, duration_s=90, mix=mix, bank=bank)
    synthesize(load_request(request), tmp_path / "dataset", 1, open_generator)
    set_to = ["--set", *(f"{name}={value}" for name, value in vars(TINY).items())]
    words = ["evaluate", str(tmp_path / "dataset"), "--out", str(tmp_path / "R"), *set_to]
    assert main([*words, "--mitdb", str(mitdb)]) == 0 and "No record of the dataset fibrillates" in capsys.readouterr().out
    assert main([*words, "--cinc2017", "C"]) == 2 and "no record fibrillates" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_a_page_keeps_trainings_and_respects_the_list(dataset, mitdb, tmp_path, capsys):
    (tmp_path / "names").write_text("207\n33\n")
    words = ["evaluate", str(dataset), "--mitdb", str(mitdb), "--records", str(tmp_path / "names"), "--out",
             str(tmp_path / "report"), "--set", *(f"{name}={value}" for name, value in vars(TINY).items())]  # fmt: skip
    assert main(words) == 0
    report = json.loads((tmp_path / "report/report.json").read_text())
    section = report["beat types in MIT-BIH"]
    assert list(section["confusion by recording"][SYNTHETIC]) == ["33", "207"] and section["leads"] == {"MLII": 2}
    assert section["rows"]["rule"]["V"]["F1"][0] > 0.95
    truth = sum((toy(seed)[2] == "V").sum() for seed in (1, 2))
    assert section["beats"]["V"] == truth == sum(section["rows"][SYNTHETIC]["confusion"][2])
    page = (tmp_path / "report/report.html").read_text()
    assert "Beat types in mit-bih" in page and "Fibrillation in mit-bih" in page and page.count("<img") == 3
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "report/classifiers").iterdir()}
    assert sorted(path.stem for path in weights) == ["copies-0", "fibrillation-copies-0", "fibrillation-synthetic-0", "people-0",
                                                     "people-1", "synthetic-0"]  # fmt: skip
    (tmp_path / "report/classifiers/synthetic-0.safetensors").unlink()
    (tmp_path / "names").write_text("33\n207\n")
    assert main(words) == 0
    again = json.loads((tmp_path / "report/report.json").read_text())
    for part in ("beat types in MIT-BIH", "fibrillation in MIT-BIH"):
        assert again[part] == report[part]
    assert all(path.stat().st_mtime_ns == was for path, was in weights.items() if path.stem != "synthetic-0")


@pytest.mark.slow
def test_the_example_trains_weights_that_are_read_again(dataset, tmp_path):
    weights = tmp_path / "weights.safetensors"
    command = [sys.executable, "examples/train_beat_classifier.py", dataset, "--out", weights, "--steps", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    model, says = classifier.load(weights)
    assert says["steps"] == "2" and isinstance(model, BeatClassifier)


@pytest.mark.slow
def test_the_rule_finds_what_people_marked():
    if not (named := os.environ.get("ECG_BATCH_MITDB")):
        pytest.skip("needs MIT-BIH, or a part of it: set ECG_BATCH_MITDB to the folder with its records (119.hea and so on)")
    each = read_recording(Path(named), "119")
    assert f1(of_class(confusion(kinds_of(each.symbol), types_by_rule(seen(each.lead, each.r))), "V")) > 0.95


@pytest.mark.slow
def test_the_bundled_classifier_finds_the_ectopic_beats_of_records_that_it_has_not_seen(tmp_path):
    events = {"v_beat": 200, "v_couplet": 20, "sv_beat": 200, "sv_run": {"per_hour": 20, "length": 6}}
    asked = {"records": 8, "batch": 8, "shard": 8, "duration_s": 240, "seed": 99, "events": events, "mix": {"labels": {"NORM": 1}}}
    request = load_request(write_request(tmp_path, **asked, bank="bundled", models="bundled"))
    synthesize(request, tmp_path / "dataset", 1, open_generator)
    model, says = classifier.load(BUNDLED / "beat_classifier.safetensors")
    assert json.loads(says["made with"])["source"] == SYNTHETIC
    counts, made = np.zeros((5, 3), int), open_dataset(tmp_path / "dataset")
    for record in range(8):
        rows = made.beats(record)
        symbol = np.array(rows["symbol"].to_pylist())
        kept = np.isin(symbol, ("N", "V", "A", "a"))
        sight = seen(made.window(record, 0, 240)[1].astype(float), rows["sample"].to_numpy()[kept])
        counts += confusion(kinds_of(symbol[kept]), said_of(model, sight).argmax(axis=1))
    assert f1(of_class(counts, "V")) > 0.85 and f1(of_class(counts, "S")) > 0.7, counts
