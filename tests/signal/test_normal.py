"""Our own normal distribution is scipy's, to the bit: what is asked of every record depends on it."""

import numpy as np
from scipy.special import ndtr, ndtri

from ecg_batch.signal import normal


def test_where_a_share_of_it_lies():
    rng = np.random.default_rng(1)
    small = 10.0 ** rng.uniform(-300, 0, 20_000)
    share = np.concatenate([rng.random(200_000), small, 1 - small, [0, 1, 0.5, normal.EXP_2, 1 - normal.EXP_2, 1e-14, 1e-320]])
    np.testing.assert_array_equal(normal.ndtri(share), ndtri(share))


def test_how_much_of_it_lies_below():
    rng = np.random.default_rng(2)
    x = np.concatenate([3 * rng.normal(size=20_000), rng.uniform(-40, 40, 20_000), [0, 2**0.5, -(2**0.5), 128**0.5, 38, -38]])
    np.testing.assert_array_equal([normal.ndtr(float(one)) for one in x], ndtr(x))
