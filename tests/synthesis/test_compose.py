"""Composition and the quality gate."""

import numpy as np
import pytest
from prd import all_leads, prd_pct

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.leads import MV_PER_UV, identity_residual, twelve_leads
from ecg_batch.signal.beats import LEAD_II, detect_lead, detect_rows, joined
from ecg_batch.signal.filters import low_pass
from ecg_batch.synthesis.check import check, check_all, same_beats
from ecg_batch.synthesis.compose import compose, norm, plain_compose


@pytest.fixture(scope="module")
def real():
    return bank.read_bank(BUNDLED)


@pytest.fixture(scope="module")
def parts(real):
    return tuple(low_pass(x[:40] * MV_PER_UV, 40, 100) for x in (real.skeleton, real.texture))


@pytest.mark.parametrize("composition", [compose, plain_compose])
@pytest.mark.parametrize("limit", [1, 3, 10, 1e6])
def test_prd_never_exceeds_its_limit(parts, limit, composition):
    composed = composition(*parts, 0.6, limit)
    found = prd_pct(composed.ecg_uv * MV_PER_UV, all_leads(parts[0]))  # by definition
    np.testing.assert_allclose(composed.prd_pct, found, rtol=1e-9)
    assert (composed.prd_pct <= limit).all() and (found <= limit).all()
    assert (composed.alpha <= 0.6).all()
    assert (identity_residual(composed.ecg_uv) <= 0.5).all()


def test_without_a_limit_the_difference_is_alpha_times_the_texture(parts):
    skeleton, texture = parts
    composed = compose(skeleton, texture, 0.6, 1e9)
    difference = composed.ecg_uv * MV_PER_UV - twelve_leads(skeleton)
    np.testing.assert_allclose(difference, 0.6 * twelve_leads(texture), atol=1.3 * MV_PER_UV)
    np.testing.assert_allclose(composed.alpha, 0.6)


def test_alpha_zero_is_the_skeleton(parts):
    composed = compose(*parts, 0.0, 10)
    np.testing.assert_allclose(composed.ecg_uv[:, :2] * MV_PER_UV, parts[0][:, :2], atol=0.5 * MV_PER_UV + 1e-9)


def test_the_low_pass_moves_no_peak_and_stops_mains():
    time = np.arange(5000) / 500
    pulse = np.exp(-((time - 5) ** 2) / (2 * 0.02**2))
    assert np.argmax(low_pass(pulse, 40, 500)) == np.argmax(pulse)
    assert np.abs(low_pass(np.sin(2 * np.pi * 100 * time), 40, 500))[500:-500].max() < 0.05


@pytest.fixture
def good(real):
    """A record that passes: (steps, beats, bpm)."""
    ecg = twelve_leads(real.skeleton[3].astype(np.int32))
    return ecg, real.beats(3), float(real.table.hr_bpm[3])


def test_a_good_record_has_no_flags(good):
    measured, flags = check(*good, 100)
    assert flags == [] and abs(measured - good[2]) < 3


@pytest.mark.parametrize(("spoil", "flag"), [
    (lambda ecg, beats, bpm: (ecg, beats, bpm + 8), "heart_rate"),
    (lambda ecg, beats, bpm: (ecg * 20, beats, bpm), "amplitude"),
    (lambda ecg, beats, bpm: (np.where(np.arange(12)[:, None] == 7, 0, ecg), beats, bpm), "flat"),
    (lambda ecg, beats, bpm: (ecg, np.delete(beats, 3), bpm), "beats"),
    (lambda ecg, beats, bpm: (ecg, beats + 30, bpm), "beats"),
    (lambda ecg, beats, bpm: (ecg * 0, beats, bpm), "heart_rate"),
])  # fmt: skip
def test_each_fault_has_its_flag(good, spoil, flag):
    assert flag in check(*spoil(*good), 100)[1]


def test_beats_near_the_ends_may_be_missed_or_found():
    inner, none = np.array([100, 200, 300]), np.empty(0, np.int64)
    found = [np.array([5, 100, 200, 300]), inner, inner[:2], np.array([100, 200, 250, 300]), none, none, inner, inner + 10]
    beats = [inner, np.append(inner, 390), inner, inner, none, inner, none, inner]
    alike = [True, True, False, False, True, False, False, True]
    np.testing.assert_array_equal(same_beats(joined(found), joined(beats), 8, 400, 100), alike)
    outside = np.array([-300, -90, 480, 1400])  # beats that are not in the record
    more = [np.sort(np.append(each, outside)) for each in beats]
    np.testing.assert_array_equal(same_beats(joined(found), joined(more), 8, 400, 100)[:4], alike[:4])
    for one in zip(found, beats, alike, strict=True):  # whatever the records beside it
        assert same_beats(joined([one[0]]), joined([one[1]]), 1, 400, 100).tolist() == [one[2]]


def test_the_norm_of_twelve_leads_from_eight():
    modelled = np.random.default_rng(0).normal(size=(5, 8, 40))
    whole = np.sqrt(np.square(twelve_leads(modelled)).sum(axis=(1, 2)))
    np.testing.assert_allclose(norm(modelled), whole, rtol=1e-12)


def test_records_checked_together_are_checked_alike(real):
    ecg = twelve_leads(real.skeleton[:30].astype(np.int32))
    ecg[4, 7], ecg[5], ecg[6, :, :50] = 0, ecg[5] * 20, ecg[6, :, :1]
    beats, rates = [real.beats(row) for row in range(30)], real.table.hr_bpm[:30] + np.arange(30) % 3 * 2.0
    extremes = np.stack([ecg.min(axis=-1), ecg.max(axis=-1)], axis=-1)
    measured, flags = check_all(ecg, extremes, joined(beats), rates, 100)
    assert list(zip(measured, flags, strict=True)) == [check(*each, 100) for each in zip(ecg, beats, rates, strict=True)]


@pytest.mark.slow
def test_rows_detected_together_are_those_of_sleepecg(real):
    """Also rows that begin flat, or are flat."""
    rows = (real.skeleton[:] + real.texture[:].astype(np.int32))[:, LEAD_II] * MV_PER_UV
    rows[7, :120], rows[8] = rows[7, 0], 0.1
    for ours, row in zip(detect_rows(rows, 100), rows, strict=True):
        np.testing.assert_array_equal(ours, detect_lead(row, 100))
