"""Public delineators and detectors, as their makers use them, on one lead (time,)."""

import warnings

import numpy as np

from ecg_batch.evaluation.waves.marked import Waves

NEUROKIT = (("ECG_P_Onsets", "ECG_P_Offsets"), ("ECG_R_Onsets", "ECG_R_Offsets"), ("ECG_T_Onsets", "ECG_T_Offsets"))


def neurokit_waves(lead: np.ndarray, fs_hz: int) -> Waves:
    """NeuroKit2's wavelets (Makowski 2021, doi:10.3758/s13428-020-01516-y). Where it raises an error it has found nothing."""
    import neurokit2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clean = neurokit2.ecg_clean(lead, fs_hz)
            r = neurokit2.ecg_peaks(clean, fs_hz)[1]["ECG_R_Peaks"]
            _, found = neurokit2.ecg_delineate(clean, r, fs_hz, method="dwt")
        except Exception:  # whatever numpy, scipy or pandas raise in there on an odd lead
            found = {}
    named = [(found.get(on, ()), found.get(end, ())) for on, end in NEUROKIT]
    rows = [(kind, *edges) for kind, both in enumerate(named) for edges in zip(*both, strict=True)]
    kind, on, end = np.array(rows, np.float64).reshape(-1, 3).T
    return Waves(kind.astype(np.int64), on / fs_hz, end / fs_hz)


def xqrs(lead_mv: np.ndarray, fs_hz: int) -> np.ndarray:
    """WFDB's detector: R in seconds."""
    from wfdb.processing import xqrs_detect

    return xqrs_detect(np.asarray(lead_mv, np.float64), fs_hz, verbose=False) / fs_hz


def sleepecg(lead_mv: np.ndarray, fs_hz: int) -> np.ndarray:
    """SleepECG's detector (Brunner 2023, doi:10.21105/joss.05411), after Pan and Tompkins: R in seconds."""
    from sleepecg import detect_heartbeats

    return detect_heartbeats(np.asarray(lead_mv, np.float64), fs_hz) / fs_hz
