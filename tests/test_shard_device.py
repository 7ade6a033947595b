"""The path of a GPU, run on CPU tensors: the same records as without one, and two batches in the making at any time."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_shard import plan_of

from ecg_batch import bank, shard_device
from ecg_batch.compose import compose, low_pass
from ecg_batch.leads import MV_PER_STEP, identity_residual
from ecg_batch.query import query_source
from ecg_batch.shard import make_batch, open_assets


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(request, assets, queries of two batches and a short one, samples); at rates where some are drawn again."""
    folder = tmp_path_factory.mktemp("device")
    plan = plan_of(folder, mix={"labels": {"NORM": 0.5, "AFIB": 0.5}, "hr_bpm": {"uniform": [40, 120]}})
    queries_of = query_source(plan.request, folder)
    return plan.request, open_assets(plan), [queries_of(0, 64), queries_of(64, 128), queries_of(128, 150)], plan.time_samples


@pytest.fixture(scope="module")
def parts():
    real = bank.read_bank(bank.BUNDLED)
    return tuple(x[:24] * MV_PER_STEP for x in (real.skeleton, real.texture))


def test_records_are_those_of_a_cpu(run):
    """Integers within a step, since sums round in another order; donors, flags and attempts the same."""
    request, assets, asked, samples = run
    for ours, queries in zip(shard_device.batches(request, assets, asked, samples), asked, strict=True):
        theirs = make_batch(request, assets, queries, samples)
        assert len(ours.ecg) == len(queries) and ours.ecg.dtype == np.int16
        difference = np.abs(ours.ecg.astype(int) - theirs.ecg)
        assert difference.max() <= 2 and (difference > 0).mean() < 1e-3  # of aVL and aVF two: from a step in I and one in II
        assert ours.flags == theirs.flags and ours.blended == theirs.blended
        np.testing.assert_array_equal(ours.donors, theirs.donors)
        np.testing.assert_array_equal(ours.measured_bpm, theirs.measured_bpm)
        np.testing.assert_allclose(ours.prd_pct, theirs.prd_pct, rtol=1e-6)
        np.testing.assert_allclose(ours.alpha, theirs.alpha, rtol=1e-6)
        assert ours.prd_pct.max() <= request.prd_limit_pct


def test_some_were_drawn_again(run):
    """Else the test above has not seen what becomes of them."""
    request, assets, asked, samples = run
    once = replace(request, attempts=1)
    first, all_of_them = (list(shard_device.batches(each, assets, asked, samples)) for each in (once, request))
    again = [sum(map(bool, batch.flags)) for batch in first]
    assert sum(again) > 0 and any((a.donors != b.donors).any() for a, b in zip(first, all_of_them, strict=True))


def test_a_record_does_not_depend_on_its_neighbours(run):
    """Record 130 in a full batch, and in a short one."""
    request, assets, asked, samples = run
    (short,) = shard_device.batches(request, assets, asked[2:], samples)
    whole = query_source(request, None)(128, 192)
    (full,) = shard_device.batches(request, assets, [whole], samples)
    np.testing.assert_array_equal(full.ecg[: len(short.ecg)], short.ecg)


def test_the_matrix_is_the_filter(parts):
    matrix = shard_device.low_pass_matrix(1000, 40, 100, torch.device("cpu"))
    for part in parts:
        np.testing.assert_allclose((torch.from_numpy(part) @ matrix).numpy(), low_pass(part, 40, 100), atol=1e-12)


@pytest.mark.parametrize(("alpha", "limit"), [(0.6, 10), (0.6, 1), (0.6, 1e6), (0.0, 10)])
def test_compose_gives_the_same_integers(parts, alpha, limit):
    skeleton, texture = (low_pass(part, 40, 100) for part in parts)
    theirs = compose(skeleton, texture, alpha, limit)
    ecg, prd_pct, used = shard_device.compose(torch.from_numpy(skeleton), torch.from_numpy(texture), alpha, limit)
    np.testing.assert_array_equal(ecg.numpy(), theirs.steps)
    np.testing.assert_allclose(prd_pct.numpy(), theirs.prd_pct, rtol=1e-10)
    np.testing.assert_allclose(used.numpy(), theirs.alpha, rtol=1e-10)
    assert prd_pct.max() <= limit and (identity_residual(ecg.numpy()) <= 0.5).all()


def test_damaged_weights_fail_the_batch(run):
    request, assets, asked, samples = run
    loudness = assets.models.vqvae.loudness_spread.clone()
    try:
        assets.models.vqvae.loudness_spread[:] = float("nan")
        with pytest.raises(ValueError, match="weights are damaged"):
            list(shard_device.batches(request, assets, asked[:1], samples))
    finally:
        assets.models.vqvae.loudness_spread[:] = loudness


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
        made = list(shard_device.two_in_flight(begin, complete, range(batches)))
        took = time.perf_counter() - start
    assert made == list(range(batches)) and most == 2
    assert took < 1.6 * batches * step_s  # one after the other: 2 * batches * step_s


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_batches(count):
    assert list(shard_device.two_in_flight(lambda x: x, lambda x: 10 * x, range(count))) == [10 * x for x in range(count)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_records_are_pure_and_bounded(tmp_path):
    plan = plan_of(tmp_path, device="cuda")
    assets, queries_of = open_assets(plan), query_source(plan.request, tmp_path)
    asked = [queries_of(0, 64), queries_of(64, 128)]
    twice = [list(shard_device.batches(plan.request, assets, asked, plan.time_samples)) for _ in range(2)]
    for one, two in zip(*twice, strict=True):
        np.testing.assert_array_equal(one.ecg, two.ecg)
        assert one.prd_pct.max() <= plan.request.prd_limit_pct and (identity_residual(one.ecg) <= 0.5).all()
