"""Beats, split and intervals, on the bundled donors: real ECGs."""

import numpy as np
import pytest

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.donors.loop import closed_loop, seam_cost
from ecg_batch.donors.split import as_recorded, baseline, split
from ecg_batch.leads import MV_PER_UV, identity_residual, to_uv, twelve_leads
from ecg_batch.signal.beats import agree, beat_types, detect_beats, heart_rate_bpm
from ecg_batch.signal.delineate import delineate
from ecg_batch.signal.filters import band


@pytest.fixture(scope="module")
def real():
    return bank.read_bank(BUNDLED)


@pytest.fixture(scope="module")
def donors(real):
    return range(0, len(real.table), 12)


def ecg_of(real, donor):
    return real.skeleton[donor] + real.texture[donor]


@pytest.mark.slow
def test_detection_does_not_depend_on_scale_or_offset(real, donors):
    for donor in list(donors)[:20]:
        ecg_mv = ecg_of(real, donor) * MV_PER_UV
        beats = detect_beats(ecg_mv, 100)
        np.testing.assert_array_equal(detect_beats(2.5 * ecg_mv + 0.3, 100), beats)


@pytest.mark.slow
def test_a_resampled_record_has_the_same_heart_rate(real, donors):
    from scipy.signal import resample_poly

    same = [agree(heart_rate_bpm(detect_beats(ecg_of(real, donor) * MV_PER_UV, 100), 100),
                  heart_rate_bpm(detect_beats(resample_poly(ecg_of(real, donor) * MV_PER_UV, 5, 1, axis=1), 500), 500))
            for donor in donors]  # fmt: skip
    assert np.mean(same) > 0.97


def test_heart_rate_of_a_hand_worked_example():
    assert heart_rate_bpm(np.array([100, 180, 260]), 100) == 75.0  # RR 0.8 s
    assert np.isnan(heart_rate_bpm(np.array([100, 180]), 100))


def with_t_waves(r, samples=1000):
    """T waves of 300 uV, 300 ms after each R at 100 Hz, in eight leads: (lead, time)."""
    time = np.arange(samples)
    return np.tile(sum(300 * np.exp(-np.square((time - each - 30) / 6)) for each in r), (8, 1))


@pytest.mark.parametrize("r", [
    [50, 140, 230, 268, 410, 500, 590, 680, 770, 860, 950],  # one premature beat on a T wave
    [50, 88, 210, 248, 370, 408, 530, 568, 690, 728, 850, 888],  # bigeminy
    [50, 140, 230, 268, 306, 450, 540, 630, 720, 810, 900],  # a couplet
])  # fmt: skip
def test_the_baseline_does_not_follow_the_t_wave_under_an_early_beat(r):
    r, time = np.array(r), np.arange(1000)
    drift = 100 * np.sin(2 * np.pi * time / 900)
    found = baseline(with_t_waves(r) + drift, r, 100)
    inside = slice(r[0], r[-1] - 5)
    assert np.abs(found - drift)[:, inside].max() < 30, "it is 300 where a knot lies on a T wave"


def test_the_baseline_of_a_run_has_knots():
    """Of twelve early beats in a row all but two count, so a level that changes in the run is followed."""
    r = np.array([50, 150, 250, *range(290, 770, 40), 870, 970])
    level = np.where((np.arange(1000) > 300) & (np.arange(1000) < 760), 200.0, 0.0)
    assert np.abs(baseline(np.tile(level, (8, 1)), r, 100)[:, 420:700] - 200).max() < 30


def test_ectopic_beats_are_of_another_type(real):
    holders = np.flatnonzero(real.table.holds("PVC"))
    several = [len(set(beat_types(real.skeleton[d].astype(float), real.beats(d), 100))) > 1 for d in holders]
    normal = [len(set(beat_types(real.skeleton[d].astype(float), real.beats(d), 100))) > 1
              for d in np.flatnonzero(real.table.holds("NORM"))]  # fmt: skip
    assert np.mean(several) > 0.6 > 0.25 > np.mean(normal)


def test_the_split_is_exact_and_repeatable(real, donors):
    for donor in list(donors)[:20]:
        ecg = ecg_of(real, donor)
        parts = split(ecg, detect_beats(ecg * MV_PER_UV, 100), 100, keep_atrial=False)
        np.testing.assert_array_equal(parts.skeleton + parts.texture, ecg)


def test_a_drift_added_to_a_donor_goes_to_its_texture(real, donors):
    """The law of the split: what does not come back with every beat is no skeleton."""
    drift = (200 * np.sin(2 * np.pi * 0.15 * np.arange(1000) / 100)).astype(np.int16)
    for donor in list(donors)[:10]:
        ecg, beats = ecg_of(real, donor), real.beats(donor)
        before, after = split(ecg, beats, 100, False), split(ecg + drift, beats, 100, False)
        inner = slice(100, 900)
        moved = (after.skeleton - before.skeleton)[:, inner].astype(float)
        assert np.abs(moved - np.median(moved, axis=1, keepdims=True)).mean() < 0.1 * np.abs(drift[inner]).mean()


def test_the_texture_holds_no_qrs(real, donors):
    """QRS complexes left in the texture would be generated again, where no beat is."""
    inside, outside = [], []
    for donor in donors:
        fast = band(real.texture[donor].astype(float), (5, 40), 100)
        weight = as_recorded(1000, real.beats(donor), 100)
        inside.append(np.sqrt(np.mean(fast[:, weight > 0.5] ** 2)))
        outside.append(np.sqrt(np.mean(fast[:, weight < 0.1] ** 2)))
    assert np.median(inside) < np.median(outside)


def test_intervals_of_the_skeleton_are_the_donors(real, donors):
    """Median difference at most one sample, by our delineator ..."""
    shifts = {"PR": [], "QRS": [], "QT": []}
    for donor in donors:
        beats = real.beats(donor)
        typical = beats[beat_types(real.skeleton[donor].astype(float), beats, 100) == 0]
        skeleton, ecg = (delineate(x, typical, 100).intervals_ms(100) for x in (real.skeleton[donor], ecg_of(real, donor)))
        for name in shifts:
            shifts[name].append(abs(skeleton[name] - ecg[name]))
    assert {name: np.nanmedian(values) <= 10 for name, values in shifts.items()} == dict.fromkeys(shifts, True)


@pytest.mark.slow
def test_intervals_agree_by_neurokit_too(real, donors):
    """... and by NeuroKit2's in lead II, whose scatter on one noisy lead is larger, so the differences keep their signs."""
    shifts = []
    for donor in donors:
        skeleton, ecg = (neurokit_intervals_ms(x[1] * MV_PER_UV) for x in (real.skeleton[donor], ecg_of(real, donor)))
        shifts.append(skeleton - ecg)
    assert (np.abs(np.nanmedian(shifts, axis=0)) <= 10).all(), np.nanmedian(shifts, axis=0)


def neurokit_intervals_ms(lead_mv, fs_hz=100):
    """PR, QRS, QT by NeuroKit2's wavelet delineator, ms; NaN where it fails."""
    import neurokit2 as nk

    fine = nk.ecg_clean(nk.signal_resample(lead_mv, sampling_rate=fs_hz, desired_sampling_rate=500), sampling_rate=500)
    try:
        _, peaks = nk.ecg_peaks(fine, sampling_rate=500)
        _, waves = nk.ecg_delineate(fine, peaks, sampling_rate=500, method="dwt")
    except (ValueError, IndexError, ZeroDivisionError):
        return np.full(3, np.nan)
    p_on, r_on, r_off, t_off = (
        np.array(waves[f"ECG_{name}"], float) for name in ("P_Onsets", "R_Onsets", "R_Offsets", "T_Offsets")
    )
    return 2 * np.array([np.nanmedian(r_on - p_on), np.nanmedian(r_off - r_on), np.nanmedian(t_off - r_on)])


def test_a_loop_goes_on_where_it_began(real, donors):
    """The step across the seam is one the donor itself takes between neighbouring samples."""
    for donor in donors:
        loop = closed_loop(real.skeleton[donor], real.loop_start[donor], real.loop_stop[donor], 100).astype(float)
        inner = np.abs(np.diff(loop, axis=1)).max(axis=1)
        assert (np.abs(loop[:, 0] - loop[:, -1]) <= inner + 1).all()


def test_seam_cost_of_a_hand_worked_example():
    x = np.zeros((1, 20))
    x[0, 12:] = 2.0  # about 15 the signal is flat at 2, about 5 flat at 0
    cost = seam_cost(x, np.array([5]), np.array([16]), seam=2)
    np.testing.assert_allclose(cost, [[0.15 * 4]])  # equal slopes, values 2 apart


def test_lead_identities_hold_within_half_a_step(real):
    ecg = twelve_leads(to_uv(np.random.default_rng(0).normal(size=(4, 8, 500))))
    assert identity_residual(ecg).max() <= 0.5
    ecg[2, 2, 7] += 2
    np.testing.assert_array_equal(identity_residual(ecg) > 0.5, [False, False, True, False])
