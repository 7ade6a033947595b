"""Public QRS detectors on one lead (time,) mV: R samples."""

import numpy as np


def xqrs(lead_mv: np.ndarray, fs_hz: int) -> np.ndarray:
    from scipy.signal import resample_poly
    from wfdb.processing import xqrs_detect

    return np.rint(xqrs_detect(resample_poly(lead_mv, 250 // 50, fs_hz // 50), 250, verbose=False) * fs_hz / 250).astype(int)


def neurokit(lead_mv: np.ndarray, fs_hz: int) -> np.ndarray:
    import neurokit2

    return np.asarray(neurokit2.ecg_peaks(neurokit2.ecg_clean(lead_mv, fs_hz), fs_hz)[1]["ECG_R_Peaks"])
