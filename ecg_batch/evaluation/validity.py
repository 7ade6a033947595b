"""Clinical validity: what a cardiologist would measure, by two delineators, synthetic against real and real against real.

The first delineator is delineate.py on eight leads, the second NeuroKit2's wavelets on lead II. Each is applied to both sides,
so its own bias cancels in the distance; how far the two disagree on real records is reported as their calibration.
"""

import warnings

import numpy as np
from scipy.stats import ks_2samp

from ecg_batch.evaluation.labelled import Labelled
from ecg_batch.leads import LEADS, MODELLED, MODELLED_INDEX, MV_PER_UV, identity_residual
from ecg_batch.signal.beats import detect_beats, heart_rate_bpm, windows
from ecg_batch.signal.delineate import delineate
from ecg_batch.statements import SUPERCLASSES

MEASURES = {"HR": "bpm", "PR": "ms", "QRS": "ms", "QT": "ms", "QTc": "ms", "P": "mV", "T": "mV", "axis": "degrees"}
SECOND = ("PR", "QRS", "QT", "QTc")  # what NeuroKit2 is asked for
FEWEST = 8  # records of a class below which no distribution is compared


def measure(ecg: np.ndarray, fs_hz: float) -> dict[str, float]:
    """Measures of one record, int16 (12, time), on its median beat; NaN where there is none. QTc by Fridericia.

    P and T: largest deflection from the PR level in lead II. axis: of the net QRS area in I and aVF, frontal plane.
    """
    x = ecg[list(MODELLED_INDEX)] * MV_PER_UV
    out = dict.fromkeys(MEASURES, float("nan"))
    beats = detect_beats(x, fs_hz)
    if len(beats) < 3:
        return out
    points, rr_s = delineate(x, beats, fs_hz), float(np.median(np.diff(beats))) / fs_hz
    out |= points.intervals_ms(fs_hz)
    out |= {"HR": heart_rate_bpm(beats, fs_hz), "QTc": out["QT"] / np.cbrt(rr_s)}
    reach = round(0.7 * fs_hz)
    beat = np.median(windows(x, beats, reach), axis=0)  # (lead, time), R at `reach`
    qrs_on, qrs_off, t_end = reach + points.qrs_on, reach + points.qrs_off, min(reach + points.t_end, 2 * reach)
    level = np.median(beat[:, max(qrs_on - 3, 0) : qrs_on], axis=1, keepdims=True)
    beat = beat - level
    ii = beat[MODELLED.index("II")]
    if np.isfinite(out["PR"]):
        out["P"] = largest(ii[max(reach + points.p_on, 0) : qrs_on])
    out["T"] = largest(ii[qrs_off:t_end])
    area_i, area_ii = (beat[MODELLED.index(lead), qrs_on:qrs_off].sum() for lead in ("I", "II"))
    out["axis"] = float(np.degrees(np.arctan2((area_ii - area_i / 2) * 2 / np.sqrt(3), area_i)))  # aVF is augmented
    return out


def largest(x: np.ndarray) -> float:
    return float(x[np.argmax(np.abs(x))]) if len(x) else float("nan")


def measure_by_neurokit(ecg: np.ndarray, fs_hz: float) -> dict[str, float]:
    """The intervals by NeuroKit2 (doi:10.3758/s13428-020-01516-y), lead II at 500 Hz; NaN where it finds none."""
    import neurokit2
    from scipy.signal import resample_poly

    out, fs = dict.fromkeys(SECOND, float("nan")), 500
    x = resample_poly(ecg[LEADS.index("II")] * MV_PER_UV, fs, round(fs_hz))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clean = neurokit2.ecg_clean(x, fs)
            r = neurokit2.ecg_peaks(clean, fs)[1]["ECG_R_Peaks"]
            _, found = neurokit2.ecg_delineate(clean, r, fs, method="dwt")
            ms = {name: np.asarray(places, float) * 1000 / fs for name, places in found.items()}
            begin, end = ms["ECG_R_Onsets"], ms["ECG_R_Offsets"]
            spans = {"PR": begin - ms["ECG_P_Onsets"], "QRS": end - begin, "QT": ms["ECG_T_Offsets"] - begin}
            out |= {name: float(np.nanmedian(span)) for name, span in spans.items() if np.isfinite(span).any()}
            out["QTc"] = out["QT"] / np.cbrt(np.median(np.diff(r)) / fs)
    except (ValueError, IndexError, KeyError, ZeroDivisionError):  # its way of saying that it found no beats
        pass
    return out


def table(records: Labelled, by=measure) -> dict[str, np.ndarray]:
    """Each measure over records."""
    rows = [by(ecg, records.fs_hz) for ecg in records.ecg]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def ks_by_class(x: dict, x_labels: np.ndarray, y: dict, y_labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Kolmogorov-Smirnov distance of each measure within each superclass, NaN where either side has too few."""
    return {
        name: {measure: ks(x[measure][x_labels[:, k]], y[measure][y_labels[:, k]]) for measure in x}
        for k, name in enumerate(SUPERCLASSES)
    }


def ks(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x[np.isfinite(x)], y[np.isfinite(y)]
    return float(ks_2samp(x, y).statistic) if min(len(x), len(y)) >= FEWEST else float("nan")


def asked_and_got(rows) -> dict:
    """What was asked against what came, from records.parquet (a pyarrow Table)."""
    out = {}
    for name, got in (("hr_bpm_requested", "hr_bpm_measured"), ("age_requested", "age"), ("sex_requested", "sex")):
        asked, came = (rows[key].to_numpy(zero_copy_only=False).astype(float) for key in (name, got))
        both = np.isfinite(asked) & np.isfinite(came)
        gap = np.abs(asked - came)[both]
        if len(gap):
            out[name.removesuffix("_requested")] = {
                "N": len(gap),
                "median gap": float(np.median(gap)),
                "95 %": float(np.quantile(gap, 0.95)),
            }
    if "hr_bpm" in out:
        asked, came = (rows[f"hr_bpm_{key}"].to_numpy(zero_copy_only=False).astype(float) for key in ("requested", "measured"))
        out["hr_bpm"]["within 3 bpm"] = float((np.abs(asked - came) <= 3)[np.isfinite(asked)].mean())
    return out


def identities(ecg: np.ndarray) -> float:
    """Largest violation of the lead identities over records, in stored steps."""
    return float(identity_residual(ecg).max())
