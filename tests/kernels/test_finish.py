"""The compiled finish of a record against numpy and scipy, and the same bits whatever the width of the vectors."""

import numpy as np
import pytest
from kernel_builds import RUNS_HERE, SAME_BITS, needs_kernel
from making import make, plan_of
from scipy.signal import butter, sosfiltfilt

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.errors import UserError
from ecg_batch.kernels import build
from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.kernels import record as record_kernel
from ecg_batch.kernels import units as units_kernel
from ecg_batch.leads import MV_PER_UV
from ecg_batch.signal.filters import ORDER, band
from ecg_batch.synthesis.compose import plain_compose, rounding_bound_mv
from ecg_batch.synthesis.long.texture_stream import plain_shelf
from ecg_batch.synthesis.retime import donor_loop, plain_read_loop
from ecg_batch.synthesis.synthesizer import open_synthesizer

pytestmark = needs_kernel


@pytest.fixture(scope="module")
def real():
    return bank.read_bank(BUNDLED)


@pytest.fixture(scope="module")
def parts(real):
    return tuple(band(x[:24] * MV_PER_UV, (None, 40), 100) for x in (real.skeleton, real.texture))


def low_pass_sections(edge_hz: float, fs_hz: float):
    return finish_kernel.sections(ORDER, edge_hz, "lowpass", fs_hz)


def of_each_build(function, *args) -> list:
    """What each build gives that rounds in its own way, after a look that the others all give the same bits."""
    given = {build: function(*args, build=build) for build in RUNS_HERE}
    for other in SAME_BITS[1:]:
        for one, two in zip(given[SAME_BITS[0]], given[other], strict=True):
            np.testing.assert_array_equal(one, two)
    return [given[build] for build in RUNS_HERE if build not in SAME_BITS[1:]]


@pytest.mark.parametrize(("edge_hz", "fs_hz"), [(40, 100), (40, 500), (15, 100)])
@pytest.mark.parametrize("shape", [(1000,), (8, 1000), (3, 8, 997), (17, 10)])
def test_low_pass_is_sosfiltfilt(shape, edge_hz, fs_hz):
    x = np.random.default_rng(0).normal(size=shape).cumsum(axis=-1)
    for ours in of_each_build(finish_kernel.filtfilt, x, low_pass_sections(edge_hz, fs_hz)):
        np.testing.assert_allclose(ours, band(x, (None, edge_hz), fs_hz), atol=1e-11)


def test_low_pass_of_a_row_does_not_depend_on_its_neighbours(parts):
    whole = finish_kernel.filtfilt(parts[1], low_pass_sections(40, 100))
    np.testing.assert_array_equal(finish_kernel.filtfilt(parts[1][3, 5], low_pass_sections(40, 100)), whole[3, 5])


def test_a_band_of_two_sections_is_sosfiltfilt():
    x = np.random.default_rng(0).normal(size=(5, 400)).cumsum(axis=-1)
    for ours in of_each_build(finish_kernel.filtfilt, x, finish_kernel.sections(2, (5, 30), "bandpass", 100)):
        np.testing.assert_allclose(ours, sosfiltfilt(butter(2, (5, 30), "bandpass", output="sos", fs=100), x), atol=1e-11)


@pytest.mark.parametrize("shape", [(8, 1000), (3, 17), (11, 50)])
def test_a_first_order_filter_goes_on_from_piece_to_piece(shape):
    """As one piece by scipy, rows apart in memory."""
    rng = np.random.default_rng(0)
    b, a, x = np.array([0.98, -0.95]), np.array([1.0, -0.96]), rng.standard_normal((shape[0], 2 * shape[1])).astype(np.float32)
    whole, state = np.empty(x.shape), rng.standard_normal((shape[0], 1))
    plain_shelf(b, a, x, state.copy(), whole)

    def in_pieces(build):
        made, goes_on = np.empty((shape[0], 2 * shape[1] + 5)), state.copy()
        for part in (slice(0, shape[1]), slice(shape[1], 2 * shape[1])):
            finish_kernel.first_order(b, a, x[:, part], goes_on, made[:, part], build=build)
        return made[:, :-5]

    for made in of_each_build(in_pieces):
        np.testing.assert_allclose(made, whole, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="one after another"):
        finish_kernel.first_order(b, a, x[:, ::2], state, np.empty((shape[0], shape[1])))


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="more than 9"):
        finish_kernel.filtfilt(np.zeros((2, 9)), low_pass_sections(40, 100))


@pytest.mark.parametrize("samples", [1000, 997, 64, 5])
@pytest.mark.parametrize(("alpha", "limit"), [(0.6, 10), (0.6, 1), (0.6, 1e6), (0.0, 10)])
def test_compose_gives_the_same_integers(parts, samples, alpha, limit):
    skeleton, texture = (part[..., :samples] for part in parts)
    plain = plain_compose(skeleton, texture, alpha, limit)
    args = (skeleton, texture, alpha, limit, rounding_bound_mv(samples))
    for steps, prd_pct, used in of_each_build(finish_kernel.compose, *args):
        np.testing.assert_array_equal(steps, plain.ecg_uv)
        np.testing.assert_allclose(prd_pct, plain.prd_pct, rtol=1e-10)
        np.testing.assert_allclose(used, plain.alpha, rtol=1e-10)


def test_shapes_that_do_not_fit_are_refused(parts):
    with pytest.raises(ValueError, match="needed"):
        finish_kernel.compose(parts[0][:, :7], parts[1][:, :7], 0.6, 10, 0.0)


def test_the_loop_is_read_as_by_numpy(real):
    for row in (3, 40):
        donor = donor_loop(real, row)
        length = donor.loop.shape[1]
        for at in (np.sort(np.random.default_rng(row).uniform(-2 * length, 3 * length, 1000)), np.arange(-3.0, 2 * length)):
            made = of_each_build(finish_kernel.read_loop, donor.loop, at)
            for ours in made:
                np.testing.assert_allclose(ours, plain_read_loop(donor, at), atol=1e-9)
        for ours in made:
            np.testing.assert_array_equal(ours[:, 3 : 3 + length], donor.loop)  # at whole samples: the donor's own


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", *(build for build in RUNS_HERE if build not in SAME_BITS)])
def test_other_kernels_and_none_make_the_same_records(kind, tmp_path, monkeypatch):
    """But for records whose tokens fall the other way, and single steps of rounding. The plan tells them apart."""
    plan = plan_of(tmp_path, records=64)
    compiled, compiled_rows = make(plan)
    monkeypatch.setattr(build, "BUILDS", tuple(each for each in build.BUILDS if each[0] == kind))
    caches = (build.kernel, finish_kernel.library, record_kernel.library, units_kernel.library)
    try:
        for cached in caches:
            cached.cache_clear()
        other_plan = plan_of(tmp_path, records=64)
        assert other_plan.versions["kernels"] == build.kernels() != plan.versions["kernels"]
        assert (build.kernels() == "plain") == (kind == "plain")
        with pytest.raises(UserError, match=f"kernels {plan.versions['kernels']} there, {build.kernels()} here"):
            open_synthesizer(plan)
        other, other_rows = make(other_plan)
    finally:
        for cached in caches:
            cached.cache_clear()
    alike = np.abs(other.astype(int) - compiled).max(axis=(1, 2)) <= 2
    assert alike.mean() > 0.95 and (other != compiled)[alike].mean() < 1e-3
    assert other_rows["donor_ecg_id"] == compiled_rows["donor_ecg_id"] and other_rows["flags"] == compiled_rows["flags"]
