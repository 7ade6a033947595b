"""The judge: what it sees, that it learns, that training is a pure function, and what its scores mean."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from real_sets import bundled_records
from sklearn.metrics import f1_score, roc_auc_score

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.ptbxl import read_release, statement_codes
from ecg_batch.errors import UserError
from ecg_batch.evaluation import scores
from ecg_batch.evaluation.labelled import from_ptbxl
from ecg_batch.evaluation.train_judge import (
    Examples,
    JudgeTraining,
    augmented,
    fit,
    refuse_shared_patients,
    rows_of_step,
    superclass_auroc,
    train_judge,
)
from ecg_batch.models.judge import Judge, JudgeConfig, band_pass, embed, filtered, load_judge, predict
from ecg_batch.models.weights import read_weights
from ecg_batch.statements import SUPERCLASSES

TINY = JudgeConfig(widths=(8, 12), blocks=1, stem_stride=4)
CLASSES = (*SUPERCLASSES, *statement_codes())
# Fold 10 of PTB-XL, macro AUROC of superclasses and of statements. Trained anew (make bundled): put the figures of the new reports
# here and into docs/evidence/evaluation.md.
STATED = {"judge": (0.92739, 0.90454), "encoder": (0.92493, 0.89560)}
rng = np.random.default_rng(0)


def test_the_band_pass_stops_drift_and_keeps_beats_in_place():
    time = torch.arange(1000) / 100
    drift = torch.sin(2 * torch.pi * 0.1 * time).expand(1, 12, -1)
    tone = torch.sin(2 * torch.pi * 8 * time).expand(1, 12, -1)
    assert band_pass(drift)[..., 100:-100].abs().max() < 0.06
    assert torch.allclose(band_pass(tone)[..., 100:-100], tone[..., 100:-100], atol=0.03)


def test_500_hz_and_100_hz_are_the_same_record():
    t = np.arange(5000) / 500
    fine = np.tile(1000 * np.exp(-(((t % 0.8) - 0.4) ** 2) / 0.0008), (1, 12, 1)).astype(np.int16)
    a, b = filtered(fine, 500), filtered(fine[..., ::5], 100)
    assert (a - b)[..., 50:-50].abs().max() < 0.02


@pytest.mark.parametrize("seconds", [10, 7.3, 2.5, 1.5])
def test_pieces_cover_the_record_and_fit_the_window(seconds):
    judge, time = Judge(TINY), round(100 * seconds)
    pieces = judge.pieces(torch.arange(time).float().expand(2, 12, -1))
    assert pieces.shape[-1] == min(250, time)
    assert set(pieces.flatten().long().tolist()) == set(range(time))


def test_probabilities_do_not_depend_on_neighbours():
    judge, x = Judge(TINY).eval(), torch.randn(5, 12, 600)
    np.testing.assert_allclose(predict(judge, x)[3], predict(judge, x[3:4])[0], atol=1e-6)
    assert embed(judge, x).shape == (5, 24)


@pytest.fixture(scope="module")
def learnable():
    """Records in which class k is a bump in lead k: a judge that learns anything learns this."""
    labels = (rng.random((160, 5)) < 0.4).astype(np.float32)
    x = rng.standard_normal((160, 12, 500)).astype(np.float32) * 0.1
    x[:, :5] += labels[:, :, None] * np.sin(np.arange(500) / 5)
    return Examples(torch.from_numpy(x[:100]), torch.from_numpy(labels[:100])), Examples(
        torch.from_numpy(x[100:]), torch.from_numpy(labels[100:])
    )


@pytest.mark.slow
def test_it_learns_and_twice_the_same(learnable):
    looks = []
    settings = JudgeTraining(steps=40, batch=32, look_every=10)
    one, other = (fit(*learnable, TINY, settings, lambda step, aurocs: looks.append(aurocs[-1])) for _ in range(2))
    p = predict(one, learnable[1].x)
    assert np.array_equal(p, predict(other, learnable[1].x))
    assert scores.macro_auroc(learnable[1].labels.numpy(), p) == max(looks) > 0.95  # the best look is the one that is kept


@pytest.mark.slow
def test_a_training_that_is_killed_and_resumed_is_the_one_that_was_not(learnable, tmp_path):
    settings = JudgeTraining(steps=30, batch=32, look_every=10)
    whole = fit(*learnable, TINY, settings)

    class Killed(Exception):
        pass

    def kill(step, aurocs):
        if step == 20:
            raise Killed

    with pytest.raises(Killed):
        fit(*learnable, TINY, settings, kill, kept=tmp_path / "judge.checkpoint.pt")
    steps = []
    kept, look = tmp_path / "judge.checkpoint.pt", lambda step, aurocs: steps.append((step, len(aurocs)))  # noqa: E731
    resumed = fit(*learnable, TINY, settings, look, kept=kept)
    assert steps == [(20, 2), (30, 3)]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    with pytest.raises(UserError, match="made with other values of batch"):
        fit(*learnable, TINY, replace(settings, batch=16), kept=tmp_path / "judge.checkpoint.pt")


def test_phases_and_weights_choose_the_records():
    weight = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 1]])
    examples = Examples(torch.zeros(4, 1, 1), torch.zeros(4, 5), weight)
    four = JudgeTraining(steps=4, batch=8)
    rows = [rows_of_step(examples, four, step, np.random.default_rng(step)).tolist() for step in range(1, 5)]
    assert set(sum(rows[:2], [])) == {0, 1} and set(sum(rows[2:], [])) == {3}
    even = Examples(torch.zeros(10, 1, 1), torch.zeros(10, 5))
    passes = [rows_of_step(even, JudgeTraining(steps=5, batch=4), step, np.random.default_rng(0)) for step in range(1, 6)]
    assert sorted(torch.cat(passes)[:10].tolist()) == [*range(10)]
    assert sorted(torch.cat(passes).tolist()) == sorted([*range(10)] * 2)


def test_augmentation_keeps_the_record_recognisable():
    x = torch.from_numpy(np.sin(np.arange(250) / 8).astype(np.float32)).expand(4, 12, -1)
    y = augmented(x, np.random.default_rng(1))
    similar = torch.nn.functional.cosine_similarity(x, y, dim=-1)
    assert similar.min() > 0.95 and similar.max() < 1


def test_scores_by_hand_and_by_scikit_learn():
    truth, p = (rng.random((200, 5)) < 0.3).astype(int), rng.random((200, 5)).round(2)
    assert scores.fast_macro_auroc(truth, p) == pytest.approx(roc_auc_score(truth, p, average="macro"))
    assert scores.macro_f1(truth, p, np.full(5, 0.6)) == pytest.approx(f1_score(truth, p >= 0.6, average="macro"))
    y, q = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.1]])
    assert scores.macro_auroc(y, q) == 0.75
    assert 0.1 < scores.thresholds_of(y, q)[0] <= 0.7 and scores.macro_f1(y, q, scores.thresholds_of(y, q)) == pytest.approx(0.8)
    assert scores.calibration(np.array([[1], [0]]), np.array([[0.75], [0.75]]))[0] == pytest.approx(0.25)


@pytest.mark.slow
def test_bootstrap_holds_the_mean_of_a_normal_sample_about_as_often_as_it_says():
    held = [
        low <= 0 <= high
        for low, high in (scores.bootstrap(np.mean, rng.standard_normal(60), draws=200, seed=k) for k in range(120))
    ]
    assert 0.87 <= np.mean(held) <= 1.0


def test_a_bootstrap_over_patients_draws_each_with_all_records():
    """Five copies of every record tell no more than one: over records the interval would be a fifth of the variance."""
    x, patient = rng.standard_normal(80), np.arange(80)
    once = scores.bootstrap(np.mean, x, of=patient)
    assert scores.bootstrap(np.mean, np.tile(x, 5), of=np.tile(patient, 5)) == pytest.approx(once, abs=1e-12)
    assert scores.bootstrap(np.mean, x) == once


def test_a_training_goes_by_the_number_of_records_where_no_steps_are_asked_for():
    assert JudgeTraining(batch=64).of(17_418).steps == 15 * 17_418 // 64
    assert JudgeTraining(steps=7, look_every=3).of(17_418) == JudgeTraining(steps=7, look_every=3)
    few = JudgeTraining().of(300)
    assert few.steps == 600 and few.look_every == 75


def test_superclasses_are_scored_over_the_records_that_have_any():
    truth, p = (rng.random((90, 7)) < 0.3).astype(int), rng.random((90, 7))
    truth[:20, :5] = 0
    held = truth[:, :5].any(1)
    assert superclass_auroc(truth, p) == scores.macro_auroc(truth[held, :5], p[held, :5])


def test_a_patient_on_both_sides_is_refused():
    records = bundled_records()
    with pytest.raises(UserError, match="both sides"):
        refuse_shared_patients(records.take(np.arange(5)), records.take(np.arange(4, 8)))


@pytest.mark.slow
def test_training_writes_weights_that_name_their_patients(tmp_path):
    records = bundled_records(folds={5: 9, 6: 10})
    report = train_judge(records, tmp_path, TINY, JudgeTraining(steps=4, look_every=2))
    judge, stated = load_judge(tmp_path / "judge.safetensors")
    assert json.loads(stated["patients"]) == report["patients"] and len(json.loads(stated["classes"])) == judge.config.outputs == 76
    tensors = read_weights(tmp_path / "judge.safetensors", "judge")[0]
    assert all((one.dtype == torch.float16) == (one.ndim > 1) for name, one in tensors.items())
    test = records.in_folds(10)
    p = predict(judge, filtered(test.ecg, 100).half())
    for name, truth, said in (("", test.labels, p[:, :5]), (", statements", test.hold(statement_codes()), p[:, 5:])):
        assert report[f"fold 10{name}"]["macro AUROC"][0] == pytest.approx(scores.macro_auroc(truth, said), abs=1e-9)
    assert not set(report["patients"]) & set(records.in_folds(10).patient_id.tolist())
    assert report["fold 10"]["macro AUROC"][1] <= report["fold 10"]["macro AUROC"][0] <= report["fold 10"]["macro AUROC"][2]
    with pytest.raises(UserError, match="ecg-batch train judge"):
        load_judge(tmp_path / "absent.safetensors")


@pytest.mark.slow
def test_classes_that_nobody_or_everybody_holds_are_named_and_json_has_no_nan(tmp_path):
    records = bundled_records(folds={5: 9, 6: 10})
    few = replace(records, labels=records.labels * np.array([True, True, False, False, False]))
    report = train_judge(few, tmp_path, TINY, JudgeTraining(steps=4, look_every=2))
    assert report["classes left out"] == ["STTC", "CD", "HYP"]
    assert np.isfinite(report["fold 10"]["macro AUROC"]).all()

    def no_constant(name):
        raise AssertionError(name)

    json.loads((tmp_path / "judge.json").read_bytes(), parse_constant=no_constant)
    with pytest.raises(UserError, match="no superclass has records"):
        train_judge(replace(records, labels=records.labels * False), tmp_path, TINY, JudgeTraining(steps=4))


@pytest.mark.slow
def test_a_judge_whose_loss_is_no_number_ends_in_words(learnable):
    with pytest.raises(UserError, match="the loss is nan at step .* learning_rate is 1e\\+30"):
        fit(*learnable, TINY, JudgeTraining(steps=40, batch=32, look_every=10, learning_rate=1e30))


def test_scores_of_nothing_are_no_number_and_no_traceback():
    truth, p = np.zeros((9, 5), int), rng.random((9, 5))
    assert np.isnan(scores.macro_auroc(truth, p)) and np.isnan(scores.fast_macro_auroc(truth, p))
    assert np.isnan(scores.bootstrap(scores.fast_macro_auroc, truth, p)).all()
    truth[0, 0] = 1  # a draw without that record has no score, and is left out
    assert np.isfinite(scores.bootstrap(scores.fast_macro_auroc, truth, p)).all()


@pytest.mark.slow
def test_nobody_of_fold_10_is_in_any_trained_part_or_among_the_donors(real_ptbxl):
    """By patient_id: bundled bank, judge and encoder; the texture models refuse a corpus with fold 10 (test_train.py)."""
    from ecg_batch.donors.bank import read_table

    held_out = {entry.patient_id for entry in read_release(real_ptbxl, 100).entries if entry.fold == 10}
    assert len(held_out) > 200
    assert not held_out & set(read_table(BUNDLED).patient_id.tolist())
    for name in ("judge", "encoder"):
        assert not held_out & set(json.loads(load_judge(BUNDLED / f"{name}.safetensors")[1]["patients"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["judge", "encoder"])
def test_the_bundled_networks_read_patients_they_have_never_seen_as_their_reports_say(real_ptbxl, name):
    """Of a whole PTB-XL what evaluation.md states; of a sample of it what chance makes of that."""
    test, judge = from_ptbxl(real_ptbxl, folds=(10,), every=True), load_judge(BUNDLED / f"{name}.safetensors")[0]
    truth, p = test.hold(CLASSES), predict(judge, filtered(test.ecg, 100))
    found = superclass_auroc(truth, p), scores.macro_auroc(truth[:, 5:], p[:, 5:])
    if len(test) > 2000:
        assert found == pytest.approx(STATED[name], abs=5e-4)
    else:
        assert found[0] > 0.88


def test_the_bundled_networks_are_what_their_page_says():
    page = (Path(__file__).parents[2] / "docs" / "evidence" / "evaluation.md").read_text(encoding="utf-8")
    for name, (first, statements) in STATED.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} | {first:.3f} ("))
        assert f"| {statements:.3f} (" in row
        assert json.loads(load_judge(BUNDLED / f"{name}.safetensors")[1]["classes"]) == list(CLASSES)
