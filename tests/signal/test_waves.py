"""Waves whose edges are known are found there, at any rate, size and place; and those of LUDB where cardiologists found them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.signal import resample_poly

from ecg_batch.leads import LEADS
from ecg_batch.signal.marks import MARKS
from ecg_batch.signal.waves import wave_marks

GAINS = np.array([0.6, 1.0, 0.4, -0.8, 0.1, 0.7, -0.3, 0.5, 0.8, 1.0, 0.9, 0.7])  # of twelve leads, P as T
EDGES_MS = {"p": (-200, -100), "q": (-45, -15), "r": (-22, 22), "s": (12, 45), "t": (160, 360)}  # of whole raised cosines
HEIGHTS_MV = {"p": 0.15, "q": -0.15, "r": 1.2, "s": -0.3, "t": 0.35}


def bump(time_ms: np.ndarray, first: float, last: float) -> np.ndarray:
    """A raised cosine from first to last, 1 in the middle."""
    at = np.clip((time_ms - first) / (last - first), 0, 1)
    return 0.5 - 0.5 * np.cos(2 * np.pi * at)


def recording(fs_hz=500, rr_ms=900, noise_mv=0.0, without=(), of_v=(), seed=0):
    """(ecg_mv (lead, time), beats, types) of ten seconds. of_v: which beats are wide, early in no way, and without P."""
    time_ms = np.arange(10 * fs_hz) * 1000 / fs_hz
    r_ms = np.arange(400, 9700, rr_ms)
    ecg = np.zeros((12, len(time_ms)))
    for beat, at in enumerate(r_ms):
        for name, (first, last) in EDGES_MS.items():
            if name in without or (beat in of_v and name == "p"):
                continue
            wide = 2.2 if beat in of_v and name in "qrs" else 1.0
            ecg += np.outer(GAINS, HEIGHTS_MV[name] * bump(time_ms - at, wide * first, wide * last))
    ecg += np.random.default_rng(seed).normal(0, noise_mv, ecg.shape) if noise_mv else 0
    beats = np.rint(r_ms * fs_hz / 1000).astype(np.int64)
    return ecg, beats, np.isin(np.arange(len(beats)), of_v).astype(int)


def marks_of(*given, **named) -> np.ndarray:
    return np.nanmedian(wave_marks(*given, **named), axis=0)


@pytest.mark.parametrize("noise_mv", [0.0, 0.02])
@pytest.mark.parametrize("rr_ms", [650, 900, 1250])
@pytest.mark.parametrize("fs_hz", [100, 250, 360, 500, 1000])
def test_waves_are_found_where_they_are(fs_hz, rr_ms, noise_mv):
    found = dict(zip(MARKS, marks_of(*recording(fs_hz, rr_ms, noise_mv), fs_hz), strict=True))
    # a cosine leaves its level so gently that a fiftieth of its height is reached after 9 % of its length
    for name, (first, last) in {"p": (-200, -100), "t": (160, 360)}.items():
        length = last - first
        assert first - 0.02 * length <= found[f"{name}_on"] <= first + 0.2 * length, name
        assert abs(found[f"{name}_peak"] - (first + last) / 2) <= 10, name
        assert last - 0.2 * length <= found[f"{name}_end"] <= last + 0.05 * length, name
    assert abs(found["qrs_on"] + 45) <= 12 and abs(found["qrs_end"] - 45) <= 12
    assert abs(found["r"]) <= 5


@pytest.mark.parametrize("fs_hz", [100, 500])
def test_marks_are_in_order_for_any_noise(fs_hz):
    for seed in range(20):
        given = recording(fs_hz, noise_mv=0.15, of_v=(3, 7, 8), seed=seed)
        marks = wave_marks(*given, fs_hz)
        assert not (marks < np.fmax.accumulate(marks, axis=1)).any()


def test_the_unit_and_the_sign_do_not_matter():
    given = recording(noise_mv=0.01)
    found = wave_marks(*given, 500)
    for factor in (1000.0, 0.001, -1.0):
        np.testing.assert_allclose(wave_marks(factor * given[0], *given[1:], 500), found, atol=1e-6)


@pytest.mark.parametrize("by", [1, 7, 100])
def test_marks_move_with_the_recording(by):
    ecg, beats, types = recording(noise_mv=0.01)
    later = np.concatenate([np.repeat(ecg[:, :1], by, axis=1), ecg[:, :-by]], axis=1)
    inner = slice(1, -1)  # those at the ends are whole in one recording and cut in the other
    here, there = wave_marks(ecg, beats, types, 500), wave_marks(later, beats + by, types, 500)
    np.testing.assert_allclose(there[inner], here[inner], atol=2.0)


@pytest.mark.parametrize("rr_ms", [650, 900, 1250])
def test_100_hz_gives_what_500_hz_gives(rr_ms):
    for seed in range(5):
        fine, beats, types = recording(500, rr_ms, noise_mv=0.01, seed=seed)
        coarse = resample_poly(fine, 1, 5, axis=1)
        np.testing.assert_allclose(marks_of(coarse, beats // 5, types, 100), marks_of(fine, beats, types, 500), atol=10)


def test_a_beat_between_samples_has_its_own_qrs():
    fine, beats, types = recording(1000, rr_ms=903)
    coarse, r = fine[:, ::10], beats // 10
    marks = wave_marks(coarse, r, types, 100)
    late_ms = beats - 10.0 * r
    assert np.abs((marks[:, 4] - late_ms) - np.median(marks[:, 4] - late_ms))[1:-1].max() <= 3
    np.testing.assert_allclose(marks[1:-1, 3] - marks[1:-1, 4], marks[1, 3] - marks[1, 4])
    assert np.ptp(marks[:, 7]) == 0  # T is that of the typical beat


@pytest.mark.parametrize("noise_mv", [0.0, 0.005, 0.02])
@pytest.mark.parametrize("fs_hz", [100, 500])
def test_there_is_no_p_where_there_is_none(fs_hz, noise_mv):
    ecg, beats, types = recording(fs_hz, noise_mv=noise_mv, without=("p",))
    assert np.isnan(wave_marks(ecg, beats, types, fs_hz)[:, :3]).all()


def test_there_is_no_p_in_fibrillation_and_flutter():
    ecg, beats, types = recording(rr_ms=870, without=("p",))
    time_s = np.arange(ecg.shape[1]) / 500
    locked, unlocked = (ecg + 0.1 * np.outer(GAINS, np.sin(2 * np.pi * waves / 0.87 * time_s)) for waves in (4, 4.4))  # a beat
    assert not np.isnan(wave_marks(locked, beats, types, 500)[1:, :3]).any()  # which is why the statements are asked
    for flutter, p_allowed in ((locked, False), (unlocked, False), (unlocked, True)):
        marks = wave_marks(flutter, beats, types, 500, p_allowed)
        assert np.isnan(marks[:, :3]).all() and not np.isnan(marks[:, 3:]).any()


@pytest.mark.parametrize("of_v", [(4,), (3, 8), (2, 5, 7)])
@pytest.mark.parametrize("fs_hz", [100, 500])
def test_a_ventricular_beat_has_its_own_marks_and_no_p(fs_hz, of_v):
    ecg, beats, types = recording(fs_hz, noise_mv=0.01, of_v=of_v)
    marks = wave_marks(ecg, beats, types, fs_hz)
    assert np.isnan(marks[types == 1, :3]).all() and not np.isnan(marks[types == 0]).any()
    width = marks[:, 5] - marks[:, 3]
    assert width[types == 1].min() > 1.5 * width[types == 0].max()


def test_a_lone_beat_of_another_form_keeps_its_p():
    ecg, beats, types = recording(noise_mv=0.01)
    types[5] = 1
    marks = wave_marks(ecg, beats, types, 500)
    np.testing.assert_allclose(marks[5, :3], marks[4, :3], atol=10)


def test_a_pacing_spike_is_no_qrs():
    ecg, beats, types = recording(noise_mv=0.005, without=("p",))
    for beat in beats:
        ecg[:, beat - 45 : beat - 43] += 1.0
    marks = marks_of(ecg, beats, types, 500)
    assert -60 <= marks[3] <= -30 and marks[3] < marks[4] < marks[5]


def test_any_number_of_leads_will_do():
    ecg, beats, types = recording(noise_mv=0.01)
    all_leads = marks_of(ecg, beats, types, 500)
    for some in ([1], [0, 9]):
        np.testing.assert_allclose(marks_of(ecg[some], beats, types, 500), all_leads, atol=15)


def test_the_same_call_gives_the_same_marks_and_changes_nothing():
    given = recording(noise_mv=0.02)
    before = [part.copy() for part in given]
    np.testing.assert_array_equal(wave_marks(*given, 500), wave_marks(*given, 500))
    for part, was in zip(given, before, strict=True):
        np.testing.assert_array_equal(part, was)


def test_odd_recordings_give_marks_or_none_and_no_error():
    rng = np.random.default_rng(0)
    for _ in range(30):
        beats = np.unique(rng.integers(0, 1000, rng.integers(2, 40)))
        ecg = rng.normal(size=(8, 1000)).cumsum(axis=1) * rng.choice([0.0, 1.0, 1e-6])
        marks = wave_marks(ecg, beats, rng.integers(0, 3, len(beats)), 100)
        assert marks.shape == (len(beats), 9) and not np.isinf(marks).any()


def write_ludb(folder: Path, marked_ms: dict[str, tuple[float, float, float]]) -> None:
    """A record of LUDB's layout, in whose leads all beats are marked so, ms from R."""
    ecg, beats, _ = recording(500, noise_mv=0.005)
    names = [lead.lower() for lead in LEADS]
    wfdb.wrsamp("1", 500, ["mV"] * 12, names, d_signal=np.rint(1000 * ecg).astype(np.int64).T, fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(folder))  # fmt: skip
    at = [round(r + ms / 2) for r in beats[1:-1] for wave in marked_ms.values() for ms in wave]
    symbols = [symbol for _ in beats[1:-1] for name in marked_ms for symbol in ("(", name, ")")]
    wfdb.wrann("1", "all", np.array(at), symbols, write_dir=str(folder))
    for lead in names:  # which wrann takes for no extension
        shutil.copy(folder / "1.all", folder / f"1.{lead}")


def test_the_benchmark_compares_with_what_was_marked(tmp_path, capsys):
    from benchmarks.teacher import compare, main

    write_ludb(tmp_path, {"p": (-194, -150, -106), "N": (-44, 0, 44), "t": (180, 260, 340)})
    found = compare(tmp_path, ["1"], 500)
    for name in ("p_on", "p_peak", "p_end", "qrs_on", "qrs_end", "t_on", "t_peak", "t_end"):
        assert len(found.off_ms(name)) == 1 and np.abs(found.off_of_leads_ms(name)).max() <= 20, name
    assert found.p() == (np.array([True]), np.array([True]))
    assert main(["--ludb", str(tmp_path), "--hz", "100", "--worst", "1", "--figure", str(tmp_path / "teacher.png")]) == 0
    printed = capsys.readouterr().out
    assert "of 1 records that have it 0 missed" in printed and "| t_end | 1 |" in printed
    assert (tmp_path / "teacher.png").stat().st_size > 10_000
    write_ludb(tmp_path, {"N": (-44, 0, 44), "t": (180, 260, 340)})
    assert compare(tmp_path, ["1"], by="delineate").p() == (np.array([False]), np.array([True]))


@pytest.mark.slow
@pytest.mark.parametrize("fs_hz", [100, 500])
def test_ludb_is_read_as_its_cardiologists_read_it(fs_hz):
    """Standard deviation in ms from the median of their marks over leads; docs/evidence/waves.md has the figures."""
    if not (named := os.environ.get("ECG_BATCH_LUDB")):
        pytest.skip("needs LUDB, or a part of it: set ECG_BATCH_LUDB to its folder `data`, with 1.hea and so on")
    from benchmarks.teacher import compare, records_of

    found = compare(Path(named), records_of(Path(named)), fs_hz)
    limits = {"p_on": 9, "p_end": 12, "qrs_on": 7 if fs_hz == 500 else 9, "qrs_end": 6, "t_on": 20, "t_end": 10}
    for name, limit in limits.items():
        off = found.off_ms(name)
        assert off.std() <= limit and abs(off.mean()) < 4, (name, off.mean(), off.std())
    have, got = found.p()
    assert not (have & ~got).any() and (~have & got).sum() <= max(1, (~have).sum() / 12)
