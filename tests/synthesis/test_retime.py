"""Re-timing: the asked rate, QRS untouched, QT by Fridericia, the donor's rhythm kept in proportion."""

import numpy as np
import pytest

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.signal.beats import detect_lead, heart_rate_bpm
from ecg_batch.signal.delineate import delineate
from ecg_batch.synthesis.retime import donor_loop, read_loop, time_beats

UNIFORMS = np.random.default_rng(3).random((1000, 2))


@pytest.fixture(scope="module")
def real():
    return bank.read_bank(BUNDLED)


def near(real, bpm, label="NORM", count=20):
    holders = np.flatnonzero(real.table.holds(label))
    return holders[np.argsort(np.abs(real.table.hr_bpm[holders] - bpm))][:count]


@pytest.mark.parametrize("label", ["NORM", "MI", "CD", "AFIB"])
@pytest.mark.parametrize("ratio", [0.75, 1.0, 1.3])
def test_the_beats_inside_a_record_have_the_asked_rate(real, label, ratio):
    off = []
    for donor, uniforms in zip(near(real, 75, label), UNIFORMS, strict=False):
        asked = ratio * real.table.hr_bpm[donor]
        timing = time_beats(donor_loop(real, donor), 6000 / asked, 1000, 100, uniforms)
        off.append(abs(heart_rate_bpm(timing.r_sample, 100) - asked))
    assert max(off) <= 6
    assert label == "AFIB" or np.mean(np.array(off) <= 3) >= 0.95  # one may have an early beat


@pytest.mark.parametrize("asked", [45, 60, 80, 110])
def test_a_detector_finds_the_asked_rate(real, asked):
    right = []
    for donor, uniforms in zip(near(real, asked), UNIFORMS, strict=False):
        loop = donor_loop(real, donor)
        timing = time_beats(loop, 6000 / asked, 1000, 100, uniforms)
        lead_ii = read_loop(loop, timing.donor_time)[1] / 1000
        right.append(abs(heart_rate_bpm(detect_lead(lead_ii, 100), 100) - asked) <= 3)
    assert np.mean(right) >= 0.9


def test_qrs_complexes_are_copied_sample_by_sample(real):
    for donor, uniforms in zip(range(0, len(real.table), 25), UNIFORMS, strict=False):
        loop = donor_loop(real, donor)
        timing = time_beats(loop, 6000 / (1.2 * real.table.hr_bpm[donor]), 1000, 100, uniforms)
        ecg = read_loop(loop, timing.donor_time)
        for r in timing.r_sample:
            window = np.arange(max(r + loop.qrs_on, 0), min(r + loop.qrs_off, 999) + 1)
            source = np.rint(timing.donor_time[window]).astype(int)
            np.testing.assert_allclose(timing.donor_time[window], source, atol=1e-6)
            np.testing.assert_allclose(ecg[:, window], loop.loop[:, source % loop.loop.shape[1]], atol=1e-3)


def test_donor_time_never_runs_backwards(real):
    for donor, uniforms in zip(range(0, len(real.table), 5), UNIFORMS, strict=False):
        for ratio in (0.62, 1.0, 1.6):
            asked = ratio * real.table.hr_bpm[donor]
            timing = time_beats(donor_loop(real, donor), 6000 / asked, 1000, 100, uniforms)
            assert (np.diff(timing.donor_time) > 0).all()


def test_qt_follows_the_rate_by_fridericia(real):
    """QT / RR^(1/3) stays, by our delineator, at 0.8 and 1.25 times the donor's rate; PR stays as it is."""
    ratios, pr_shifts = [], []
    for donor, uniforms in zip(near(real, 65, count=30), UNIFORMS, strict=False):
        loop = donor_loop(real, donor)
        measured = {}
        for ratio in (0.8, 1.25):
            timing = time_beats(loop, 6000 / (ratio * real.table.hr_bpm[donor]), 1000, 100, uniforms)
            ecg = read_loop(loop, timing.donor_time)
            measured[ratio] = delineate(ecg, timing.r_sample[1:-1], 100).intervals_ms(100)
        ratios.append(measured[0.8]["QT"] / measured[1.25]["QT"])
        pr_shifts.append(measured[0.8]["PR"] - measured[1.25]["PR"])
    assert np.median(ratios) == pytest.approx((1.25 / 0.8) ** (1 / 3), abs=0.06)
    assert abs(np.nanmedian(pr_shifts)) <= 20


def test_an_irregular_rhythm_stays_irregular_in_proportion(real):
    def spread(beats):
        rr = np.diff(beats)
        return rr.std() / rr.mean()

    donors = near(real, 80, "AFIB", 12)
    made = [
        spread(time_beats(donor_loop(real, d), 6000 / 70, 1000, 100, u).r_sample) for d, u in zip(donors, UNIFORMS, strict=False)
    ]
    own = [spread(real.beats(d)) for d in donors]
    assert np.median(made) > 0.08
    assert np.median(made) == pytest.approx(np.median(own), rel=0.5)


def test_records_of_one_donor_differ_in_their_beats(real):
    loop = donor_loop(real, 0)
    offsets = {tuple(time_beats(loop, 80, 1000, 100, uniforms).r_sample) for uniforms in UNIFORMS[:20]}
    assert len(offsets) > 10
