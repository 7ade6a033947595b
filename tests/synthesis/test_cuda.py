"""The path of a GPU, run on CPU tensors: the same records as without one, and two batches in the making at any time."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import prd
import pytest
import torch
from making import PUBLISHED, plan_of

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.leads import MV_PER_UV, identity_residual
from ecg_batch.request.model import Distribution, Noise
from ecg_batch.signal.filters import low_pass, low_pass_matrix
from ecg_batch.synthesis.batch import make_batch
from ecg_batch.synthesis.compose import compose
from ecg_batch.synthesis.cuda import make_batches_on_device, two_in_flight
from ecg_batch.synthesis.noise import with_noise
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(synthesizer, queries of two batches and a short one); at rates where some are drawn again."""
    folder = tmp_path_factory.mktemp("device")
    plan = plan_of(folder, **PUBLISHED, mix={"labels": {"NORM": 0.5, "AFIB": 0.5}, "hr_bpm": {"uniform": [40, 120]}})
    queries_of = query_source(plan.request, folder)
    return open_synthesizer(plan), [queries_of(0, 64), queries_of(64, 128), queries_of(128, 150)]


@pytest.fixture(scope="module")
def parts():
    real = bank.read_bank(BUNDLED)
    return tuple(x[:24] * MV_PER_UV for x in (real.skeleton, real.texture))


@pytest.mark.slow
def test_records_are_those_of_a_cpu(run):
    """Integers within a step, since sums round in another order; donors, flags and attempts the same."""
    synthesizer, asked = run
    for ours, queries in zip(make_batches_on_device(synthesizer, asked), asked, strict=True):
        theirs = make_batch(synthesizer, queries)
        assert len(ours.ecg) == len(queries) and ours.ecg.dtype == np.int16
        difference = np.abs(ours.ecg.astype(int) - theirs.ecg)
        assert difference.max() <= 2 and (difference > 0).mean() < 1e-3  # of aVL and aVF two: from a step in I and one in II
        assert ours.flags == theirs.flags and ours.blended_rows == theirs.blended_rows
        np.testing.assert_array_equal(ours.donor_row, theirs.donor_row)
        np.testing.assert_array_equal(ours.measured_bpm, theirs.measured_bpm)
        np.testing.assert_allclose(ours.prd_pct, theirs.prd_pct, rtol=1e-6)
        np.testing.assert_allclose(ours.alpha, theirs.alpha, rtol=1e-6)
        assert ours.prd_pct.max() <= synthesizer.request.prd_limit_pct


@pytest.mark.slow
def test_noise_is_that_of_a_cpu(run):
    """Records drawn again among them."""
    synthesizer, asked = run
    noise = Noise(Distribution(0, 12), (("electrode", 0.5), ("muscle", 0.5)))
    synthesizer = replace(synthesizer, request=replace(synthesizer.request, noise=noise))
    (ours,) = (with_noise(synthesizer, batch) for batch in make_batches_on_device(synthesizer, asked[:1]))
    theirs = with_noise(synthesizer, make_batch(synthesizer, asked[0]))
    assert np.abs(ours.ecg.astype(int) - theirs.ecg).max() <= 3
    np.testing.assert_allclose([one.snr_db for one in ours.noise], [one.snr_db for one in theirs.noise], atol=1e-3)


@pytest.mark.slow
def test_some_were_drawn_again(run):
    """Else the test above has not seen what becomes of them."""
    synthesizer, asked = run
    once = synthesizer.asked(attempts=1)
    first, all_of_them = (list(make_batches_on_device(each, asked)) for each in (once, synthesizer))
    again = [sum(map(bool, batch.flags)) for batch in first]
    assert sum(again) > 0 and any((a.donor_row != b.donor_row).any() for a, b in zip(first, all_of_them, strict=True))


@pytest.mark.slow
def test_a_record_does_not_depend_on_its_neighbours(run):
    """Record 130 in a full batch, and in a short one."""
    synthesizer, asked = run
    (short,) = make_batches_on_device(synthesizer, asked[2:])
    whole = query_source(synthesizer.request, None)(128, 192)
    (full,) = make_batches_on_device(synthesizer, [whole])
    np.testing.assert_array_equal(full.ecg[: len(short.ecg)], short.ecg)


def test_the_matrix_is_the_filter(parts):
    matrix = low_pass_matrix(1000, 40, 100, torch.device("cpu"))
    for part in parts:
        np.testing.assert_allclose((torch.from_numpy(part) @ matrix).numpy(), low_pass(part, 40, 100), atol=1e-12)


@pytest.mark.parametrize(("alpha", "limit"), [(0.6, 10), (0.6, 1), (0.6, 1e6), (0.0, 10)])
def test_compose_gives_the_same_integers(parts, alpha, limit):
    skeleton, texture = (low_pass(part, 40, 100) for part in parts)
    theirs = compose(skeleton, texture, alpha, limit)
    ours = compose(torch.from_numpy(skeleton), torch.from_numpy(texture), alpha, limit)
    np.testing.assert_array_equal(ours.ecg_uv.numpy(), theirs.ecg_uv)
    np.testing.assert_allclose(ours.prd_pct.numpy(), theirs.prd_pct, rtol=1e-10)
    np.testing.assert_allclose(ours.alpha.numpy(), theirs.alpha, rtol=1e-10)
    by_definition = prd.prd_pct(ours.ecg_uv.numpy() * MV_PER_UV, prd.all_leads(skeleton))
    np.testing.assert_allclose(ours.prd_pct.numpy(), by_definition, rtol=1e-9)
    assert ours.prd_pct.max() <= limit and (identity_residual(ours.ecg_uv.numpy()) <= 0.5).all()


def test_damaged_weights_fail_the_batch(run):
    synthesizer, asked = run
    loudness = synthesizer.models.vqvae.loudness_spread.clone()
    try:
        synthesizer.models.vqvae.loudness_spread[:] = float("nan")
        with pytest.raises(ValueError, match="weights are damaged"):
            list(make_batches_on_device(synthesizer, asked[:1]))
    finally:
        synthesizer.models.vqvae.loudness_spread[:] = loudness


def test_making_and_finishing_overlap():
    """Device and host take 30 ms a batch each: together the time of one of them, and never more than two batches held."""
    held, most, batches, step_s = 0, 0, 12, 0.03
    with ThreadPoolExecutor(1) as device:  # works in order, as a stream of a GPU does

        def begin(item: int):
            nonlocal held, most
            held += 1
            most = max(most, held)
            return item, device.submit(time.sleep, step_s)

        def complete(begun) -> int:
            nonlocal held
            begun[1].result()
            time.sleep(step_s)
            held -= 1
            return begun[0]

        start = time.perf_counter()
        made = list(two_in_flight(begin, complete, range(batches)))
        took = time.perf_counter() - start
    assert made == list(range(batches)) and most == 2
    assert took < 1.6 * batches * step_s  # one after the other: 2 * batches * step_s


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_batches(count):
    assert list(two_in_flight(lambda x: x, lambda x: 10 * x, range(count))) == [10 * x for x in range(count)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_records_are_pure_and_bounded(tmp_path):
    plan = plan_of(tmp_path, **PUBLISHED, device="cuda")
    synthesizer, queries_of = open_synthesizer(plan), query_source(plan.request, tmp_path)
    asked = [queries_of(0, 64), queries_of(64, 128)]
    twice = [list(make_batches_on_device(synthesizer, asked)) for _ in range(2)]
    for one, two in zip(*twice, strict=True):
        np.testing.assert_array_equal(one.ecg, two.ecg)
        assert one.prd_pct.max() <= plan.request.prd_limit_pct and (identity_residual(one.ecg) <= 0.5).all()
