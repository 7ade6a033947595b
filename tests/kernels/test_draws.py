"""The compiled draws are those of numpy's Philox, to the bit."""

import numpy as np
import pytest
from kernel_builds import RUNS_HERE, needs_kernel

from ecg_batch import draws
from ecg_batch.draws import Stream, each_generator, generator
from ecg_batch.kernels import draws as draws_kernel

RECORDS = np.array([0, 1, 5, 2**40, 2**63, 2**64 - 1], np.uint64)


@needs_kernel
@pytest.mark.parametrize("build", RUNS_HERE)
@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_the_numbers_are_those_of_numpy(build, seed):
    for stream in Stream:
        for count in (1, 4, 5, 64):
            theirs = np.stack([generator(seed, int(record), stream).random(count) for record in RECORDS])
            np.testing.assert_array_equal(draws_kernel.uniforms(seed, RECORDS, stream, count, build=build), theirs)


def test_with_and_without_the_kernel_the_same(monkeypatch):
    ours = draws.uniforms(3, np.arange(9), Stream.UNITS, 11)
    monkeypatch.setattr(draws_kernel, "library", lambda: None)
    np.testing.assert_array_equal(draws.uniforms(3, np.arange(9), Stream.UNITS, 11), ours)
    for row, drawn in zip(ours, each_generator(3, np.arange(9), Stream.UNITS), strict=True):
        np.testing.assert_array_equal(drawn.random(11), row)
    assert draws.uniforms(3, np.arange(0), Stream.UNITS, 11).shape == (0, 11)
