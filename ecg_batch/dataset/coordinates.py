"""Coordinates: the values along the axes lead and time, as they lie beside the samples in Zarr and in HDF5."""

import numpy as np

from ecg_batch.leads import LEADS


def coordinates(samples: int | None, fs_hz: int) -> dict[str, tuple[np.ndarray, dict]]:
    """Axis -> its values and their attributes, in types that every reader of Zarr v3 and HDF5 knows. samples: None where a time for
    each would be too much; a day's are 69 MB, and fs_hz says the same.

    lead: numbers, with their names as CF has them (Climate and Forecast Conventions 1.11, 3.5). time: seconds as float64, each
    k / fs_hz, which is the very number that a user writes: 2.03, not 203 * 0.01.
    """
    named = {"long_name": "lead", "flag_values": list(range(len(LEADS))), "flag_meanings": " ".join(LEADS)}
    found = {"lead": (np.arange(len(LEADS), dtype=np.int8), named)}
    if samples is not None:
        found["time"] = (np.arange(samples) / fs_hz, {"units": "s", "long_name": "time since the start of the record"})
    return found
