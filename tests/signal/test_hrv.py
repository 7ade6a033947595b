"""HRV measures: worked by hand, against NeuroKit2, on spectra known beforehand; ectopic beats count for nothing."""

import neurokit2
import numpy as np
import pytest

from ecg_batch.errors import UserError
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.signal.hrv import RANGES_5_MIN, RANGES_24_H, measure_hrv, normal_intervals, successive_differences
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm


def peaks_ms(seed: int, duration_s: float) -> np.ndarray:
    rhythm = make_rhythm(RhythmParameters(), DonorRhythm(70.0), 70.0, duration_s, np.random.default_rng(seed))
    return np.round(1000 * rhythm.r_s).astype(int)


def beats(rr_s) -> np.ndarray:
    return np.concatenate([[0.3], 0.3 + np.cumsum(rr_s)])


def test_worked_by_hand():
    measured = measure_hrv(beats([0.8, 0.9] * 20))
    assert measured.mean_hr_bpm == pytest.approx(60 / 0.85)
    assert measured.sdnn_ms == pytest.approx(50 * np.sqrt(40 / 39))
    assert measured.rmssd_ms == pytest.approx(100)
    assert measured.pnn50_pct == 100
    assert measured.sd1_ms == pytest.approx(100 / np.sqrt(2), rel=0.02)
    assert np.isnan(measured.lf_ms2) and np.isnan(measured.slope)  # 34 s say nothing of them


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("duration_s", [300, 3600])
def test_times_agree_with_neurokit2(seed, duration_s):
    peaks = peaks_ms(seed, duration_s)
    ours, theirs = measure_hrv(peaks / 1000), neurokit2.hrv_time(peaks, sampling_rate=1000).iloc[0]
    assert ours.sdnn_ms == pytest.approx(theirs["HRV_SDNN"], rel=1e-6)
    assert ours.rmssd_ms == pytest.approx(theirs["HRV_RMSSD"], rel=1e-6)
    assert ours.pnn50_pct == pytest.approx(theirs["HRV_pNN50"], abs=0.3)  # 50 ms exactly may fall either way


def test_the_poincare_plot_agrees_with_neurokit2():
    peaks = peaks_ms(0, 120)
    ours, theirs = measure_hrv(peaks / 1000), neurokit2.hrv_nonlinear(peaks, sampling_rate=1000).iloc[0]
    assert ours.sd1_ms == pytest.approx(theirs["HRV_SD1"], rel=1e-6)
    assert ours.sd2_ms == pytest.approx(theirs["HRV_SD2"], rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_spectra_agree_with_neurokit2(seed):
    """Over an hour: they differ in window, detrending, spline and integration."""
    peaks = peaks_ms(seed, 3600)
    theirs = neurokit2.hrv_frequency(peaks, sampling_rate=1000, normalize=False, interpolation_rate=4).iloc[0]
    ours = measure_hrv(peaks / 1000)
    assert ours.lf_ms2 == pytest.approx(theirs["HRV_LF"], rel=0.1)
    assert ours.hf_ms2 == pytest.approx(theirs["HRV_HF"], rel=0.1)


@pytest.mark.parametrize(("hz", "band"), [(0.1, "lf_ms2"), (0.25, "hf_ms2")])
def test_a_sine_of_known_power_is_found_in_its_band(hz, band):
    time = beats([0.5] * 4000)
    for _ in range(20):  # RR as it is at the beat itself
        time = beats(0.5 + 0.02 * np.sin(2 * np.pi * hz * time[1:]))
    assert getattr(measure_hrv(time), band) == pytest.approx(20**2 / 2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-0.5, -1.0, -1.5, -2.0])
def test_the_slope_of_a_known_power_law_is_found(exponent):
    found = []
    for seed in range(8):
        rng, size = np.random.default_rng(seed), 2**17
        frequency = np.fft.rfftfreq(size)
        spectrum = np.maximum(frequency, frequency[1]) ** (exponent / 2) * rng.standard_normal((2, len(frequency)))
        noise = np.fft.irfft(spectrum[0] + 1j * spectrum[1])
        found.append(measure_hrv(beats(0.8 + 0.02 * noise[:100_000] / noise.std())).slope)
    assert np.mean(found) == pytest.approx(exponent, abs=0.08)


def test_measures_do_not_depend_on_when_the_record_begins():
    peaks = peaks_ms(1, 3600) / 1000
    here, there = measure_hrv(peaks), measure_hrv(peaks + 4096)
    for name in here.__dataclass_fields__:
        assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-6)


def test_intervals_that_touch_an_ectopic_beat_do_not_count():
    symbol = np.array(["N"] * 60)
    symbol[[20, 40]] = "V"
    rr = np.full(59, 0.8)
    rr[[19, 39]], rr[[20, 40]] = 0.5, 1.1
    at_s, kept = normal_intervals(beats(rr), symbol)
    assert len(kept) == 59 - 4 and np.allclose(kept, 0.8)
    assert len(successive_differences(at_s, kept)) == len(kept) - 1 - 2
    assert measure_hrv(beats(rr), symbol).sdnn_ms == pytest.approx(0, abs=1e-9)
    assert measure_hrv(beats(rr)).sdnn_ms > 50


def test_ectopic_beats_leave_the_spectrum_much_as_it_was():
    def hf(ectopic):
        rhythm = make_rhythm(RhythmParameters(), DonorRhythm(70.0, ectopic=ectopic), 70.0, 3600, np.random.default_rng(5))
        return measure_hrv(rhythm.r_s, rhythm.symbol).hf_ms2

    assert hf({"V": 0.03}) == pytest.approx(hf({}), rel=0.25)


def test_the_sdnn_index_leaves_out_what_changes_over_more_than_five_minutes():
    fast = 0.02 * np.sin(np.arange(4000))
    slow = np.linspace(-0.2, 0.2, 4000)
    measured = measure_hrv(beats(0.8 + fast + slow))
    assert measured.sdnn_ms > 100
    assert measured.sdnn_index_ms == pytest.approx(1000 * np.hypot(0.02 / np.sqrt(2), 0.4 * 300 / 3200 / np.sqrt(12)), rel=0.05)


def test_too_few_intervals_are_refused():
    with pytest.raises(UserError, match="needed 20"):
        measure_hrv(beats([0.8] * 10))


def test_published_ranges_are_ranges():
    for limits in (*RANGES_5_MIN.values(), *RANGES_24_H.values()):
        assert limits.low < limits.high and "doi:" in limits.source
        assert limits.holds(limits.low) and not limits.holds(limits.high + 1e-6)
