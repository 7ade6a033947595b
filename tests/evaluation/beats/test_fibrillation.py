"""Fibrillation is told by RR and P, learned where it is told to, and scored by window, onset and record."""

import csv
import json

import numpy as np
import pytest
import torch
import wfdb
from making import write_request
from real_sets import write_few_donors
from toy_beats import toy

from ecg_batch.cli.main import main
from ecg_batch.errors import UserError
from ecg_batch.evaluation.beats import fibrillation
from ecg_batch.evaluation.beats.compare import CEILING, COPIES, RULE, SYNTHETIC, BeatSettings
from ecg_batch.evaluation.beats.fibrillation import (
    HOP_S,
    NUMBERS,
    WINDOW_S,
    Windows,
    WindowTraining,
    fit,
    irregular,
    log_odds,
    numbers_of,
    starts_of,
    windows_of,
)
from ecg_batch.evaluation.beats.recordings import labels_in, read_labelled
from ecg_batch.evaluation.beats.rhythms import (
    RhythmJob,
    auroc,
    auroc_row,
    burden,
    onset_counts,
    onsets_of,
    smoothed,
    synthetic,
    window_row,
)
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.synthesis.generate import open_generator

TINY = BeatSettings(seeds=1, steps=20, beats=16, folds=0, workers=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Six records of a minute and a half, three of which fibrillate."""
    folder = tmp_path_factory.mktemp("long")
    bank = write_few_donors(folder / "bank")
    mix = {"labels": {"NORM": 0.5, "AFIB": 0.5}, "hr_bpm": {"uniform": [60, 90]}}
    request = load_request(write_request(folder, records=6, batch=6, shard=6, duration_s=90, mix=mix, bank=str(bank)))
    synthesize(request, folder / "dataset", 1, open_generator)
    return folder / "dataset"


@pytest.fixture(scope="module")
def cinc(tmp_path_factory):
    """Twelve records in the layout of CinC 2017, of 12 to 34 s; those of label A have irregular RR and no P."""
    folder, rng = tmp_path_factory.mktemp("cinc"), np.random.default_rng(0)
    labels = {f"A{at:05}": label for at, label in enumerate("NANAONAON~AN", 1)}
    for at, (name, label) in enumerate(labels.items()):
        x = fibrillating(rng, 12 + 2 * at) if label == "A" else toy(at, seconds=12 + 2 * at, share=0.0, hz=300)[0]
        wfdb.wrsamp(name, 300, ["mV"], ["ECG"], x[:, None], fmt=["16"], adc_gain=[1000], baseline=[0], write_dir=str(folder))
    (folder / "REFERENCE.csv").write_text("".join(f"{name},{label}\n" for name, label in labels.items()))
    return folder


def fibrillating(rng: np.random.Generator, seconds: int) -> np.ndarray:
    at = np.cumsum(0.7 * np.exp(0.25 * rng.standard_normal(4 * seconds)).clip(0.6, 1.8))
    time = np.arange(300 * seconds) / 300
    return sum(np.exp(-np.square((time - r) / 0.012) / 2) + 0.2 * np.exp(-np.square((time - r - 0.25) / 0.04) / 2) for r in at)


# What it sees ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [3.0, 9.9, 10.0, 12.5, 61.0])
def test_windows_cover_a_lead_once_begun_to_its_end(seconds):
    starts = starts_of(seconds)
    assert starts[0] == 0 and starts[-1] == max(seconds - WINDOW_S, 0) and (np.diff(starts) <= HOP_S).all()
    assert (np.diff(starts) > 0).all()


def test_a_worked_example_of_numbers():
    r_s, p = np.array([0, 1.0, 2.0, 2.5, 3.5]), np.array([1, 1, 0, 0, 0.5])
    found = dict(zip(NUMBERS, numbers_of(r_s, p).tolist(), strict=True))
    assert found["share of steps over 10 %"] == pytest.approx(2 / 3) and found["mean P"] == pytest.approx(0.5)
    assert found["median step"] == pytest.approx(np.log(2)) and found["share with P"] == pytest.approx(0.4)
    assert not numbers_of(r_s[:3], p[:3]).any()


def test_steady_beats_with_p_and_irregular_ones_without_are_seen_as_such():
    steady = windows_of(toy(0, seconds=30, share=0, hz=300)[0], 300)[1]
    wild = windows_of(fibrillating(np.random.default_rng(0), 30), 300)[1]
    at = NUMBERS.index("mean P")
    assert irregular(steady).max() < 0.2 < 0.5 < irregular(wild).min()
    assert steady[:, at].min() > 0.6 > 0.4 > wild[:, at].max()


def test_a_flat_lead_has_numbers_too():
    assert np.isfinite(windows_of(np.zeros(3000), 100)[1]).all()


# What it learns -------------------------------------------------------------------------------------------------------


def taught(shuffled: bool = False) -> Windows:
    rng = np.random.default_rng(0)
    kind = rng.random(400) < 0.3
    numbers = rng.standard_normal((400, len(NUMBERS))).astype(np.float32)
    numbers[:, 0] += 4 * kind
    return Windows(numbers, rng.permutation(kind) if shuffled else kind)


def test_it_learns_what_is_there_and_nothing_from_shuffled_labels():
    truth = taught()
    model, none = fit(truth, WindowTraining(200)), fit(taught(shuffled=True), WindowTraining(200))
    assert auroc(truth.fibrillates, log_odds(model, truth.numbers)[:, None])[0] > 0.97
    assert abs(auroc(truth.fibrillates, log_odds(none, truth.numbers)[:, None])[0] - 0.5) < 0.2


def test_a_training_is_the_same_each_time_and_comes_back(tmp_path):
    one, other = (fit(taught(), WindowTraining(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    fibrillation.save(tmp_path / "a.safetensors", one, {"made with": "x"})
    again, says = fibrillation.load(tmp_path / "a.safetensors")
    assert np.array_equal(log_odds(again, taught().numbers), log_odds(one, taught().numbers)) and says["made with"] == "x"


def test_windows_of_one_kind_are_refused():
    with pytest.raises(UserError, match="0 fibrillate.*AFIB"):
        fit(Windows(taught().numbers, np.zeros(400, bool)), WindowTraining(2))


@pytest.mark.slow
def test_synthetic_windows_have_the_rhythm_that_the_dataset_states(dataset):
    found = synthetic(dataset, 6, 90)
    assert len(found.numbers) == 6 * 16 and found.fibrillates.reshape(6, 16).all(axis=1).sum() == found.fibrillates.sum() / 16
    assert 0 < found.fibrillates.mean() < 1
    wild, steady = (irregular(found.numbers[found.fibrillates == kind]).mean() for kind in (True, False))
    assert wild > 2 * steady


# Scores ---------------------------------------------------------------------------------------------------------------


def test_an_onset_has_half_a_minute_on_either_side():
    state = np.array([0] * 6 + [1] * 6 + [0] * 2 + [1] * 9 + [0] * 6 + [1] * 5)
    assert onsets_of(state).tolist() == [5.5 * HOP_S + WINDOW_S / 2]  # the second begins too soon, the third is too short
    assert not len(onsets_of(np.where(np.arange(len(state)) == 3, -1, state)))  # flutter before it
    assert onset_counts(state, state == 1) == [1, 0, 0]
    assert onset_counts(state, np.roll(state == 1, 3)) == [1, 0, 0] and onset_counts(state, np.zeros(len(state), bool)) == [0, 0, 1]


def test_burden_and_smoothing():
    assert burden(np.array([1, 1, 0, -1])) == 2 / 3 and burden(np.array([-1])) == 0
    assert np.allclose(smoothed(np.full(20, 3.0)), 3) and smoothed(np.array([1.0])).tolist() == [1]
    assert smoothed(np.array([0, 0, 0, 7.0, 0, 0, 0]))[3] == 1 and len(smoothed(np.arange(3.0))) == 3


def test_windows_are_drawn_with_their_recordings():
    rng = np.random.default_rng(0)
    truths = [(rng.random(300) < 0.5).astype(int) for _ in range(6)]
    said = [np.where(truth == 1, 1.0, -1.0)[None] * (1 if at < 3 else -1) for at, truth in enumerate(truths)]
    row = window_row(truths, said)
    assert row["AUROC"][0] == pytest.approx(0.5, abs=0.05) and row["AUROC"][2] - row["AUROC"][1] > 0.4
    assert row["F1"][2] - row["F1"][1] > 0.4 and row["onsets: found, extra, missed"] == [0, 0, 0]


def test_a_row_of_auroc_is_the_mean_over_seeds_in_any_order_of_records():
    label, rng = np.array(list("NAONANOA") * 20), np.random.default_rng(0)
    said = np.stack([(label == "A") + rng.random(160), rng.random(160)], axis=1)
    rows = {SYNTHETIC: said, COPIES: said, RULE: -said}
    row = auroc_row(label, said, rows)
    assert row["A against N and O"][0] == pytest.approx(np.mean(row["of seeds"])) and row["less copies of the donors"] == [0, 0, 0]
    assert row["less rule"][0] == pytest.approx(2 * row["A against N and O"][0] - 1)
    order = rng.permutation(160)
    again = auroc_row(label[order], said[order], rows | {SYNTHETIC: said[order]})
    assert again["A against N"][0] == pytest.approx(row["A against N"][0])


# CinC 2017, and the command -------------------------------------------------------------------------------------------


def test_labels_are_read_and_the_list_respected(cinc):
    assert list(labels_in(cinc, ["A00003", "A00002"]).items()) == [("A00002", "A"), ("A00003", "N")]
    assert len(labels_in(cinc)) == 12 and len(read_labelled(cinc, "A00001", "N").lead) == 1200
    with pytest.raises(UserError, match="no record B1"):
        labels_in(cinc, ["B1"])


@pytest.mark.parametrize("text, said_so", [
    (None, "cannot be read"), ("", "empty"), ("A1,N\nA2;A\n", "line 2"), ("A1,X\n", "line 1"),
])  # fmt: skip
def test_references_that_say_nothing_are_refused_in_a_sentence(text, said_so, tmp_path):
    if text is not None:
        (tmp_path / "REFERENCE.csv").write_text(text)
    with pytest.raises(UserError, match=said_so) as refused:
        labels_in(tmp_path)
    assert "REFERENCE.csv" in str(refused.value) and "needed" in str(refused.value)


def test_a_record_that_is_none_is_named(tmp_path):
    (tmp_path / "REFERENCE.csv").write_text("A00001,N\n")
    with pytest.raises(UserError, match="A00001.*cannot be read"):
        read_labelled(tmp_path, "A00001", "N")


def test_another_seed_and_source_have_another_key(dataset, cinc):
    jobs = [RhythmJob("a", SYNTHETIC, dataset, TINY), RhythmJob("a", SYNTHETIC, dataset, TINY, 1),
            RhythmJob("a", COPIES, dataset, TINY), RhythmJob("a", CEILING, cinc, TINY, 0, ("A00001",))]  # fmt: skip
    assert len({job.key() for job in jobs}) == len(jobs)


@pytest.mark.slow
def test_the_command_tells_fibrillation_in_labelled_records(dataset, cinc, tmp_path, capsys):
    words = ["evaluate", str(dataset), "--cinc2017", str(cinc), "--out", str(tmp_path / "report"), "--set",
             *(f"{name}={value}" for name, value in vars(TINY).items())]  # fmt: skip
    assert main(words) == 0
    section = json.loads((tmp_path / "report/report.json").read_text())["fibrillation in CinC 2017"]
    assert section["records"] == {"N": 5, "A": 4, "O": 2, "~": 1} and len(section["scores"][SYNTHETIC]) == 11
    assert set(section["rows"]) == {SYNTHETIC, COPIES, CEILING, RULE} and section["rows"][RULE]["A against N and O"][0] > 0.9
    assert section["rows"][COPIES]["A against N and O"][0] > 0.9
    assert "Fibrillation in cinc 2017" in (tmp_path / "report/report.html").read_text()
    with (tmp_path / "names").open("w") as file:
        csv.writer(file, lineterminator="\n").writerows([[f"A0000{at}"] for at in (1, 2, 3)])
    assert main([*words, "--records", str(tmp_path / "names")]) == 0
    few = json.loads((tmp_path / "report/report.json").read_text())["fibrillation in CinC 2017"]
    assert list(few["scores"][SYNTHETIC]) == ["A00001", "A00002", "A00003"] and few["folds"] == 0
    assert few["scores"][SYNTHETIC]["A00002"] == section["scores"][SYNTHETIC]["A00002"]
