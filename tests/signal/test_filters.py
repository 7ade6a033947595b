"""The band filter is scipy's, bit by bit, without working out its beginning anew at each call."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from ecg_batch.signal.filters import ORDER, band


@pytest.mark.parametrize("fs_hz", [100, 500])
@pytest.mark.parametrize("edges_hz", [(None, 0.5), (None, 20.0), (2.0, 15.0), (5.0, 40.0)])
@pytest.mark.parametrize("shape", [(1000,), (8, 1000), (12, 8, 130), (3, 16), (2, 0, 50)])
def test_a_band_is_what_sosfiltfilt_gives(fs_hz, edges_hz, shape):
    x = np.random.default_rng(len(shape)).normal(size=shape).cumsum(axis=-1)
    kind = {"Wn": edges_hz[1]} if edges_hz[0] is None else {"Wn": edges_hz, "btype": "bandpass"}
    reference = sosfiltfilt(butter(ORDER, fs=fs_hz, output="sos", **kind), x, axis=-1)
    np.testing.assert_array_equal(band(x, edges_hz, fs_hz), reference)
    integers = np.rint(x).astype(np.int16)
    reference = sosfiltfilt(butter(ORDER, fs=fs_hz, output="sos", **kind), integers)
    np.testing.assert_array_equal(band(integers, edges_hz, fs_hz), reference)


def test_too_few_samples_are_refused_as_scipy_refuses_them():
    with pytest.raises(ValueError, match="padlen"):
        band(np.zeros((8, 5)), (None, 20.0), 100)
