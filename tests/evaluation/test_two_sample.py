"""The two-sample test tells what it should, and nothing else."""

import numpy as np
import pytest
from real_sets import bundled_records
from sklearn.metrics import roc_auc_score

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.evaluation.two_sample import (
    BANDS,
    PARTS,
    Side,
    _shown,
    alike_in_rhythm,
    at_100_hz,
    auc,
    gaussian,
    planes,
    rhythms_of,
    same_leads,
    tell_apart,
    windows_of,
)


@pytest.fixture(scope="module")
def real():
    records = bundled_records()
    return Side(records.ecg[:360], records.patient_id[:360])


def test_gaussian_noise_has_the_spectrum_and_the_lead_correlation_of_the_texture():
    bank = read_bank(BUNDLED)
    skeleton, texture = bank.skeleton[:20], bank.texture[:20]
    noise = gaussian(skeleton, texture)[:, [0, 1, 6, 7, 8, 9, 10, 11]].astype(float) - skeleton
    shared = []
    for one, own in zip(noise, texture.astype(float), strict=True):
        np.testing.assert_allclose(np.abs(np.fft.rfft(one))[:, 1:400], np.abs(np.fft.rfft(own))[:, 1:400], rtol=0.25, atol=60)
        np.testing.assert_allclose(np.corrcoef(one), np.corrcoef(own), atol=0.03)
        shared.append(np.corrcoef(one.ravel(), own.ravel())[0, 1])
    assert np.abs(np.mean(shared)) < 0.15


def test_parts_of_the_beat_are_all_of_the_record_and_do_not_overlap(real):
    for ecg in real.ecg[:10]:
        np.testing.assert_array_equal(sum(_shown(ecg, part) for part in PARTS.values()), np.ones(1000))


def test_of_a_part_nothing_else_is_seen(real):
    seen, whole = planes(real.ecg[:4], ("over 25 Hz",), "QRS"), planes(real.ecg[:4], ("over 25 Hz",))
    assert ((seen == whole) | (seen == 0)).all() and 0.05 < (seen != 0).mean() / (whole != 0).mean() < 0.5


def test_no_rounding_of_integers_tells(real):
    """Real recordings whose derived leads are rounded otherwise give the same planes, but for a step here and there."""
    ours = same_leads(Side(real.ecg[:8] + np.int16(0), real.patient[:8]))
    moved = ours.ecg + np.random.default_rng(0).integers(-1, 2, ours.ecg.shape).astype(np.int16)
    assert np.mean(planes(moved) != planes(ours.ecg)) < 0.5
    assert np.abs(planes(moved).astype(float) - planes(ours.ecg)).mean() < 0.25 * np.abs(planes(ours.ecg)).mean()


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    score, made, weight = rng.integers(0, 30, 300) / 7, rng.random(300) < 0.4, rng.random((5, 300))
    wanted = [roc_auc_score(made, score, sample_weight=one) for one in weight]
    np.testing.assert_allclose(auc(score, made, weight), wanted)


def test_weights_make_rates_and_their_variability_alike():
    """Of samples that differ in both: median and spread of each are then those of the real side."""
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((2, 6000))
    real = np.exp([np.log(70) + 0.2 * drawn[0, :4000], np.log(0.03) + 0.6 * drawn[1, :4000]]).T
    made = np.exp([np.log(80) + 0.35 * drawn[0], np.log(0.04) + 0.8 * (0.5 * drawn[0] + 0.87 * drawn[1])]).T
    weight = alike_in_rhythm(made, real)
    for values, of_real in zip(np.log(made.T), np.log(real.T), strict=True):
        mean = np.average(values, weights=weight)
        spread = np.sqrt(np.average((values - mean) ** 2, weights=weight))
        assert mean == pytest.approx(of_real.mean(), abs=0.05) and spread == pytest.approx(of_real.std(), rel=0.15)


def test_a_record_without_beats_has_a_weight_too():
    unknown, known = np.full((1, 2), np.nan), np.array([[70.0, 0.03]])
    assert np.isfinite(alike_in_rhythm(np.concatenate([unknown, known]), np.concatenate([known, unknown]))).all()
    silent = Side(np.zeros((1, 12, 1000), np.int16), np.zeros(1, int))
    assert np.isnan(rhythms_of(silent)).all()


def test_500_hz_and_long_records_come_as_ten_seconds_at_100_hz(real):
    five_times = np.repeat(real.ecg[:2], 5, axis=-1)
    assert at_100_hz(five_times, 500).shape == (2, 12, 1000) and at_100_hz(real.ecg[:2], 100) is not None
    long = np.arange(12 * 6000).reshape(12, 6000)
    windows = windows_of(long, 5, np.random.default_rng(0))
    assert windows.shape == (5, 12, 1000) and (np.diff(windows, axis=-1) == 1).all()


@pytest.mark.slow
def test_it_tells_gaussian_noise_and_not_real_from_real(real):
    """Small and short: the figures of the evaluation are of ten times the work."""
    bank = read_bank(BUNDLED)
    noise = Side(gaussian(bank.skeleton[:360], bank.texture[:360]), bank.table.patient_id[:360])
    told = tell_apart(noise, real, seeds=1, steps=60, bands=("over 25 Hz",))
    assert told.auc > 0.8 and told.interval[0] < told.auc < told.interval[1]
    half = np.arange(360) % 2 == 0
    assert abs(tell_apart(real.take(half), real.take(~half), seeds=1, steps=60, bands=("over 25 Hz",)).auc - 0.5) < 0.2
    assert set(BANDS) >= {"over 25 Hz"}
