"""Beats of records, and records in one pass, against numpy: where beats lie is the same bits; few samples are rounded otherwise."""

import numpy as np
import pytest
from kernel_builds import RUNS_HERE, SAME_BITS, needs_kernel
from making import plan_of

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.kernels import record as record_kernel
from ecg_batch.kernels import units as units_kernel
from ecg_batch.synthesis import batch as made_in
from ecg_batch.synthesis.compose import finish, plain_finish
from ecg_batch.synthesis.retime import Loops, time_beats, time_records
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

pytestmark = needs_kernel
each_build = pytest.mark.parametrize("build", RUNS_HERE)


@pytest.fixture(scope="module")
def loops():
    return Loops(read_bank(BUNDLED))


@each_build
@pytest.mark.parametrize("samples", [1000, 137, 5000])
def test_beats_lie_where_numpy_puts_them(loops, build, samples, monkeypatch):
    """Of every kind of donor, at any rate, with and without varied RR."""
    rng, compiled = np.random.default_rng(samples), record_kernel.time_beats
    monkeypatch.setattr(record_kernel, "time_beats", lambda *args: compiled(*args, build=build))
    rows = rng.integers(0, 3336, 400)
    rr, uniforms = rng.uniform(22, 220, 400), rng.random((400, 2))
    for factors in (None, 1 + 0.2 * rng.uniform(-1, 1, (400, 64))):
        together = time_records(loops, rows, rr, samples, 100, uniforms, factors)
        for at, ours in enumerate(together):
            own = None if factors is None else factors[at]
            theirs = time_beats(loops[int(rows[at])], rr[at], samples, 100, uniforms[at], own)
            assert ours.stretch == theirs.stretch
            for name in ("placed", "source", "r_sample", "donor_time"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
            np.testing.assert_array_equal(ours.corners, theirs.corners)


ASKED = {
    "default": {},
    "limited": {"alpha": 0.6, "prd_limit_pct": 10, "lowpass_hz": 40},
    "varied": {"variation": {"rr_cv": 0.05, "axis_deg": 10, "electrode": 0.3, "gain_sd": 0.1}},
    "blended": {"variation": {"blend": 0.4, "axis_deg": 10}},
    "noisy": {"noise": {"snr_db": {"uniform": [0, 20]}, "kinds": {"muscle": 1}}},
    "own alpha": {"vary": {"alpha": [0.2, 1.0]}},
    "decoded": {"texture": "decoded", "alpha": 0.6, "prd_limit_pct": 10},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_record_is_that_of_numpy(asked, tmp_path, monkeypatch):
    """Stored steps of one in ten thousand may be rounded the other way; all builds that fuse give the same."""
    synthesizer = open_synthesizer(plan := plan_of(tmp_path, records=48, **asked))
    seen = []
    monkeypatch.setattr(made_in, "finish", lambda *args: seen.append(args) or finish(*args))
    made_in.make_batch(synthesizer, query_source(plan.request, tmp_path)(0, 48))
    compiled = record_kernel.records
    for args in seen:
        with monkeypatch.context() as without:
            without.setattr(finish_kernel, "library", lambda *_: None)
            plain, plain_skeleton = plain_finish(*args)
        of_builds = {}
        for build in RUNS_HERE:
            monkeypatch.setattr(record_kernel, "records", lambda *a, build=build, **given: compiled(*a, build=build, **given))
            ours, skeleton = of_builds[build] = finish(*args)
            off = np.abs(ours.ecg.astype(np.int32) - plain.ecg)
            assert off.max() <= 2 and (off > 0).mean() < 1e-4
            assert np.abs(ours.extremes - plain.extremes).max() <= 2
            np.testing.assert_array_equal(ours.extremes[..., 0], ours.ecg.min(axis=-1))
            np.testing.assert_allclose(ours.prd_pct, plain.prd_pct, rtol=1e-3)
            np.testing.assert_allclose(ours.alpha, plain.alpha, rtol=1e-9)
            assert (skeleton is None) == ("noise" not in asked)
            if skeleton is not None:
                np.testing.assert_allclose(skeleton, plain_skeleton, atol=1e-9)
        for build in SAME_BITS[1:]:
            np.testing.assert_array_equal(of_builds[build][0].ecg, of_builds[SAME_BITS[0]][0].ecg)


def test_what_no_16_bits_hold_is_cut_and_its_extremes_are_not():
    skeleton = np.zeros((1, 8, 40))
    skeleton[0, 2, :2] = 50_000, -40_000
    given = {"alpha": 1.0, "limit_pct": 1e9, "rounding_mv": 0.0, "texture_mv": np.zeros((1, 8, 40))}
    ecg, extremes, _, _ = record_kernel.records(None, None, 40, 1, skeleton_uv=skeleton, **given)
    assert ecg[0, 6, :3].tolist() == [32767, -32768, 0] and extremes[0, 6].tolist() == [-40_000, 50_000]
    with pytest.raises(ValueError, match="skeleton_uv"):
        record_kernel.records(None, None, 41, 1, skeleton_uv=skeleton, **given)


@pytest.mark.parametrize(("how", "error"), [("units", IndexError), ("textures", ValueError)])
def test_a_unit_beyond_its_recording_is_refused(tmp_path, how, error):
    synthesizer = open_synthesizer(plan := plan_of(tmp_path, records=4))
    held = dict(synthesizer.units.for_kernel.held)
    if how == "units":
        held |= {name: held[name] + 2000 for name in ("r", "first", "last")}
    else:
        held["rest"] = np.zeros((len(synthesizer.bank.table), 20, 8), np.int16)
    synthesizer.units.for_kernel = units_kernel.all_units(**held, t_end=42, p_begins=30, least=10)
    for _ in range(2):  # what was raised before leaves nothing behind
        with pytest.raises(error, match="out of its recording|textures of the bank have 20") as told:
            made_in.make_batch(synthesizer, query_source(plan.request, tmp_path)(0, 4))
    assert len([entry for entry in told.traceback if entry.name == "make_batch"]) == 1
