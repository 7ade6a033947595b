"""Variation: anatomy and bounds of each option, and that a varied record is still a pure function."""

import json
from dataclasses import replace

import numpy as np
import pytest
from making import PUBLISHED, make, plan_of
from prd import prd_pct, skeletons_uv

from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED, identity_residual
from ecg_batch.request.model import Variation, request_from_resolved
from ecg_batch.signal import vcg
from ecg_batch.synthesis import variation
from ecg_batch.synthesis.blend import blend_weights

ALL = {"rr_cv": 0.05, "axis_deg": 10, "electrode": 0.25, "gain_sd": 0.12, "blend": 0.4}


def test_dower_and_its_inverse_belong_together():
    np.testing.assert_allclose(vcg.INVERSE_DOWER @ vcg.DOWER, np.eye(3), atol=0.02)


def test_nothing_asked_is_the_identity():
    assert np.array_equal(variation.lead_matrix(Variation(), 0, 5), np.eye(8))
    assert np.array_equal(variation.rr_factors(Variation(), 0, 5, 0.8), np.ones(variation.BEATS))
    assert blend_weights(Variation(), 0, 5, 3).tolist() == [1, 0, 0]


def test_a_rotation_turns_the_frontal_axis_by_its_angle():
    """About the z axis (front to back), the mean QRS vector (cos 40, sin 40) in the frontal plane moves by the angle."""
    for degrees in (-15, 5, 20):
        vector = np.array([np.cos(np.deg2rad(40)), np.sin(np.deg2rad(40)), 0.3])
        leads = np.zeros(8)
        leads[:] = vcg.DOWER @ vector
        turned = leads + vcg.rotation_of_leads(np.array([0.0, 0.0, 1.0]), np.deg2rad(degrees)) @ leads
        x, y, _ = vcg.INVERSE_DOWER @ turned
        assert np.degrees(np.arctan2(y, x)) == pytest.approx(40 + degrees, abs=1.0)


def test_electrodes_move_between_neighbours_only():
    matrix = variation.electrode_places(np.array([0.3, -0.2, 0.1, 0, 0, 0.4]))
    np.testing.assert_allclose(matrix.sum(1), 1)
    v1, v2, v6, v5 = (MODELLED.index(name) for name in ("V1", "V2", "V6", "V5"))
    assert matrix[v1, v2] == pytest.approx(0.3) and matrix[v2, v1] == pytest.approx(0.2) and matrix[v6, v5] == pytest.approx(0.4)
    assert np.array_equal(matrix[:2], np.eye(8)[:2])


def test_the_bound_of_guarantee_s4_holds():
    asked = Variation(axis_deg=20, electrode=0.4, gain_sd=0.25)
    spread = np.linalg.norm(vcg.DOWER, 2) * np.linalg.norm(vcg.INVERSE_DOWER, 2)
    bound = np.exp(2 * 0.25) * (1 + 2 * 0.4) * (1 + spread * 2 * np.sin(np.deg2rad(20)))
    sizes = [np.linalg.norm(variation.lead_matrix(asked, 1, record), 2) for record in range(300)]
    assert max(sizes) <= bound and max(sizes) > 1.2


def test_rr_factors_have_the_asked_variation_and_no_trend():
    factors = np.array([variation.rr_factors(Variation(rr_cv=0.05), 9, record, 0.8) for record in range(400)])
    assert factors.std() == pytest.approx(0.05, rel=0.1) and factors.mean() == pytest.approx(1, abs=0.002)
    assert (np.abs(factors - 1) < 0.05 * 4.9 / np.sqrt(3)).all()


def test_blend_weights_favour_the_first_donor():
    weights = np.array([blend_weights(Variation(blend=0.4), 1, record, 3) for record in range(200)])
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (weights >= 0).all() and (weights[:, 0] >= 0.6).all() and weights[:, 1:].max() > 0.1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("varied")
    each = (("none", None), ("all", ALL))
    return {name: make(plan_of(folder, records=128, variation=asked, **PUBLISHED)) for name, asked in each}


@pytest.mark.slow
def test_varied_records_keep_the_laws(made, tmp_path):
    ecg, rows = made["all"]
    found = prd_pct(ecg, skeletons_uv(plan_of(tmp_path, records=128, variation=ALL, **PUBLISHED), rows))
    np.testing.assert_allclose(rows["prd_pct"], found, rtol=1e-4)
    assert identity_residual(ecg).max() <= 0.5
    assert max(*rows["prd_pct"], *found) <= 10
    asked, measured = np.array(rows["hr_bpm_requested"]), np.array(rows["hr_bpm_measured"], float)
    flagged = np.array([flags != "" for flags in rows["flags"]])
    assert (np.abs(asked - measured)[~flagged] <= 3).all() and flagged.mean() < 0.05


@pytest.mark.slow
def test_varied_records_differ_from_plain_ones_and_name_every_donor(made):
    (plain, plain_rows), (varied, rows) = made["none"], made["all"]
    assert (plain != varied).any((1, 2)).all()
    assert all(not held for held in plain_rows["blend_ecg_id"])
    assert max(len(held) for held in rows["blend_ecg_id"]) == 2
    assert all(fold <= 8 for host, others in zip(rows["donor_fold"], rows["blend_fold"], strict=True) for fold in (host, *others))


@pytest.mark.slow
def test_a_varied_record_is_a_pure_function(made, tmp_path):
    plan = plan_of(tmp_path, records=128, variation=ALL, shard=64, **PUBLISHED)
    ecg, _ = make(plan, [plan.shards[1]])
    assert np.array_equal(ecg, made["all"][0][64:128])


def test_zero_variation_is_the_request_without_it_and_older_run_ids_stay(tmp_path):
    plain = plan_of(tmp_path)
    assert plan_of(tmp_path, variation={"blend": 0}).run_id == plain.run_id
    assert not {"variation", "judge"} & set(plain.request.resolved())


@pytest.mark.parametrize(("changes", "says"), [
    ({"variation": {"axis_deg": 50}}, "variation.axis_deg is 50; needed a number from 0 to 20"),
    ({"variation": {"axis": 5}}, "unknown key 'variation.axis'"),
    ({"variation": 3}, "needed keys below it: axis_deg, blend"),
    ({"judge": {"steps": 41}}, "judge.steps is 41; needed a whole number from 0 to 40"),
    ({"judge": {"below": "half"}}, "judge.below is 'half'"),
])  # fmt: skip
def test_options_out_of_range_are_refused(tmp_path, changes, says):
    with pytest.raises(UserError, match=says):
        plan_of(tmp_path, **changes)


def test_options_survive_the_plan(tmp_path):
    request = plan_of(tmp_path, texture="decoded", variation=ALL, judge={"below": 0.3}).request
    assert request_from_resolved(json.loads(json.dumps(request.resolved())), request.bank, request.models) == replace(
        request, source="", table=None
    )
