"""Refinement: what rises, what stays bounded, and that it is a function of the record alone."""

import numpy as np
import pytest
import torch
from making import PUBLISHED, make, plan_of
from prd import prd_pct, skeletons_uv

from ecg_batch.bundled import BUNDLED
from ecg_batch.models.judge import load_judge
from ecg_batch.signal.filters import low_pass, low_pass_matrix, reach
from ecg_batch.synthesis import refine
from ecg_batch.synthesis.compose import compose

ASKED = {"steps": 4, "below": 0.5}
SMALL = {**PUBLISHED, "records": 64, "mix": {"labels": {"HYP": 0.5, "STTC": 0.5}, "hr_bpm": {"uniform": [55, 95]}}}


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


@pytest.mark.slow
def test_confidence_never_falls_and_rises_where_it_was_low(judge, made):
    before, after = (asked_confidence(judge, made[name]) for name in ("bare", "refined"))
    doubted = before < ASKED["below"]
    assert (after >= before - 1e-6).all() and doubted.any()
    assert after[doubted].mean() > before[doubted].mean() + 0.01


@pytest.mark.slow
def test_only_records_under_the_threshold_change(judge, made):
    same = (made["bare"][0] == made["refined"][0]).all((1, 2))
    assert same[asked_confidence(judge, made["bare"]) >= ASKED["below"]].all() and not same.all()


@pytest.mark.slow
def test_beats_and_prd_limit_stay(made, tmp_path):
    found = prd_pct(made["refined"][0], skeletons_uv(plan_of(tmp_path, **SMALL), made["refined"][1]))
    np.testing.assert_allclose(made["refined"][1]["prd_pct"], found, rtol=1e-4)
    assert max(*made["refined"][1]["prd_pct"], *found) <= 10
    for name in ("donor_ecg_id", "label", "hr_bpm_requested"):
        assert made["bare"][1][name] == made["refined"][1][name]


@pytest.mark.slow
def test_a_refined_record_does_not_depend_on_shards(made, tmp_path):
    plan = plan_of(tmp_path, **{**SMALL, "records": 128}, judge=ASKED, shard=64)
    assert np.array_equal(make(plan, [plan.shards[0]])[0], made["refined"][0])


def test_the_differentiable_composition_is_the_composition():
    rng = np.random.default_rng(0)
    skeleton = low_pass(rng.standard_normal((3, 8, 1000)).cumsum(-1) / 20, 40, 100)
    texture = rng.standard_normal((3, 8, 1000)) * 0.3
    request = type("Request", (), {"lowpass_hz": 40.0, "fs_hz": 100, "prd_limit_pct": 10.0, "alpha": 0.6})
    ours = refine.composed(request, torch.from_numpy(skeleton.copy()), torch.from_numpy(texture)).numpy()
    exact = compose(skeleton, low_pass(texture, 40, 100), 0.6, 10.0).ecg_uv / 1000
    assert np.abs(ours - exact).max() <= 1.25e-3  # but for the rounding: of aVL half a step of I and a quarter of II, and its own


def test_statements_aim_at_their_superclass_and_rhythms_at_nothing():
    assert refine.targets(np.array(["MI", "CLBBB", "AFIB"]), {"CLBBB": "CD"}).tolist() == [1, 3, -1]


def test_the_gradient_of_the_low_pass_is_that_of_its_matrix():
    """x @ M, so the gradient is g @ M.T; the filter's own serves, but at the very ends."""
    x = torch.randn(2, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = torch.randn(2, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (refine.LowPass.apply(x, 40.0, 100) * weight).sum().backward()
    inner = slice(reach(40.0, 100), -reach(40.0, 100))
    matrix = low_pass_matrix(400, 40.0, 100, torch.device("cpu"))
    torch.testing.assert_close(x.grad[:, inner], (weight @ matrix.T)[:, inner], atol=1e-9, rtol=0)
