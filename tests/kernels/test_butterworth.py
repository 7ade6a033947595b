"""Our own design of a Butterworth filter is scipy's, to the bit: a sample of every record depends on it."""

import numpy as np
import pytest
from scipy.signal import butter, sosfilt_zi

from ecg_batch.kernels.butterworth import sections

RATES_HZ = (100, 128, 250, 257, 360, 500, 1000)


def assert_scipys(order, edge_hz, kind, fs_hz):
    sos, start = sections(order, edge_hz, kind, fs_hz)
    reference = butter(order, edge_hz, kind, output="sos", fs=fs_hz)
    np.testing.assert_array_equal(sos, reference)
    np.testing.assert_array_equal(start, sosfilt_zi(reference))


@pytest.mark.parametrize("fs_hz", RATES_HZ)
@pytest.mark.parametrize("order", [2, 4])
def test_a_low_pass(order, fs_hz):
    for edge_hz in (0.05, 2.0, 15.0, 40.0, 0.4999 * fs_hz, *np.random.default_rng(fs_hz).uniform(0.05, 0.49 * fs_hz, 50)):
        assert_scipys(order, edge_hz, "lowpass", fs_hz)


@pytest.mark.parametrize("fs_hz", RATES_HZ)
def test_a_band_pass(fs_hz):
    for edges_hz in ((5, 30), (0.5, 40), *np.sort(np.random.default_rng(fs_hz).uniform(0.1, 0.49 * fs_hz, (50, 2)), axis=1)):
        assert_scipys(2, tuple(edges_hz), "bandpass", fs_hz)


@pytest.mark.parametrize(("order", "edge_hz", "kind"), [
    (3, 10, "lowpass"), (2, 0, "lowpass"), (2, 50, "lowpass"), (2, float("nan"), "lowpass"), (2, (30, 5), "bandpass"),
    (2, (5, 60), "bandpass"),
])  # fmt: skip
def test_what_cannot_be_is_refused(order, edge_hz, kind):
    with pytest.raises(ValueError, match="needed an even order, and edges between 0 and 50 Hz"):
        sections(order, edge_hz, kind, 100)
