"""Refinement: what rises, what stays bounded, and that it is a function of the record alone."""

import numpy as np
import pytest
import torch
from test_shard import make, plan_of

from ecg_batch import refine
from ecg_batch.compose import compose, low_pass
from ecg_batch.judge import load_judge
from ecg_batch.request import BUNDLED

ASKED = {"steps": 4, "below": 0.5}
SMALL = {"records": 64, "mix": {"labels": {"HYP": 0.5, "STTC": 0.5}, "hr_bpm": {"uniform": [55, 95]}}}


@pytest.fixture(scope="module")
def judge():
    return load_judge(BUNDLED / "judge.safetensors")[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refined")
    return {name: make(plan_of(folder, **SMALL, judge=asked)) for name, asked in (("bare", None), ("refined", ASKED))}


def asked_confidence(judge, made):
    target = refine.targets(np.array(made[1]["label"]), {})
    return refine.confidence(judge, made[0], 100, target)


def test_confidence_never_falls_and_rises_where_it_was_low(judge, made):
    before, after = (asked_confidence(judge, made[name]) for name in ("bare", "refined"))
    doubted = before < ASKED["below"]
    assert (after >= before - 1e-6).all() and doubted.any()
    assert after[doubted].mean() > before[doubted].mean() + 0.01


def test_only_records_under_the_threshold_change(judge, made):
    same = (made["bare"][0] == made["refined"][0]).all((1, 2))
    assert same[asked_confidence(judge, made["bare"]) >= ASKED["below"]].all() and not same.all()


def test_beats_and_prd_limit_stay(made):
    assert max(made["refined"][1]["prd_pct"]) <= 10
    for name in ("donor_ecg_id", "label", "hr_bpm_requested"):
        assert made["bare"][1][name] == made["refined"][1][name]


def test_a_refined_record_does_not_depend_on_shards(made, tmp_path):
    plan = plan_of(tmp_path, **{**SMALL, "records": 128}, judge=ASKED, shard=64)
    assert np.array_equal(make(plan, [plan.shards[0]])[0], made["refined"][0])


def test_the_differentiable_composition_is_the_composition():
    rng = np.random.default_rng(0)
    skeleton = low_pass(rng.standard_normal((3, 8, 1000)).cumsum(-1) / 20, 40, 100)
    texture = rng.standard_normal((3, 8, 1000)) * 0.3
    request = type("Request", (), {"lowpass_hz": 40.0, "fs_hz": 100, "prd_limit_pct": 10.0, "alpha": 0.6})
    ours = refine.composed(request, torch.from_numpy(skeleton.copy()), torch.from_numpy(texture)).numpy()
    exact = compose(skeleton, low_pass(texture, 40, 100), 0.6, 10.0).steps / 1000
    inner = slice(20, -20)  # the ends are padded in another way
    assert np.abs(ours - exact)[..., inner].max() < 0.02 * np.abs(exact).max()


def test_statements_aim_at_their_superclass_and_rhythms_at_nothing():
    assert refine.targets(np.array(["MI", "CLBBB", "AFIB"]), {"CLBBB": "CD"}).tolist() == [1, 3, -1]
