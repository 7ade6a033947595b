"""The quality gate: what is measured on every record before it is written. A record that fails is drawn again, then flagged."""

from collections.abc import Sequence

import numpy as np

from ecg_batch.leads import LEADS, MODELLED, MV_PER_UV
from ecg_batch.signal.beats import LEAD_II, detect_rows, heart_rate_bpm

OF_SAMPLES = ("amplitude", "flat")
FLAGS = (*OF_SAMPLES, "heart_rate", "beats", "rate_statement", "stretch", "ectopic")  # the last three are known from the beats
HR_WITHIN_BPM = 3.0
BEAT_WITHIN_S = 0.10
EDGE_S = 0.25  # a beat this close to an end may be missed
MAX_MV = 8.0  # donors.measure.MAX_ECG_UV: no donor has more
FLAT_MV = 0.02  # peak to peak over a whole lead
RATE_LEAD = LEADS.index(MODELLED[LEAD_II])


def check(ecg_uv: np.ndarray, beats: np.ndarray, hr_bpm: float, fs_hz: float) -> tuple[float, list[str]]:
    """(measured heart rate, flags) of one record: ecg_uv int32 (12, time), beats the skeleton's R samples, hr_bpm asked for.

    Flags: amplitude, flat, heart_rate (over 3 bpm off), beats (a beat missed or invented, seen by the detector in lead II).
    """
    return check_all(ecg_uv[None], [beats], [hr_bpm], fs_hz)[0]


def check_all(
    ecg_uv: np.ndarray, beats: Sequence[np.ndarray], hr_bpm: Sequence[float], fs_hz: float
) -> list[tuple[float, list[str]]]:
    """check of each record: ecg_uv int32 (record, 12, time)."""
    highest, lowest = ecg_uv.max(axis=-1), ecg_uv.min(axis=-1)  # (record, lead)
    amplitude = np.maximum(highest, -lowest).max(axis=-1) * MV_PER_UV > MAX_MV
    flat = ((highest - lowest) * MV_PER_UV < FLAT_MV).any(axis=-1)
    found = detect_rows(ecg_uv[:, RATE_LEAD] * MV_PER_UV, fs_hz)
    measured = [heart_rate_bpm(each, fs_hz) for each in found]
    wrong_rate = [not abs(is_bpm - asked) <= HR_WITHIN_BPM for is_bpm, asked in zip(measured, hr_bpm, strict=True)]
    wrong_beats = [not same_beats(*both, ecg_uv.shape[-1], fs_hz) for both in zip(found, beats, strict=True)]
    faults = zip(amplitude, flat, wrong_rate, wrong_beats, strict=True)
    return [
        (bpm, [flag for flag, is_so in zip(FLAGS, each, strict=False) if is_so]) for bpm, each in zip(measured, faults, strict=True)
    ]


def same_beats(found: np.ndarray, beats: np.ndarray, samples: int, fs_hz: float) -> bool:
    """Whether both lists name the same beats within 100 ms, those near the ends left out."""
    near, edge = BEAT_WITHIN_S * fs_hz, EDGE_S * fs_hz

    def inner(r: np.ndarray) -> np.ndarray:
        return r[(r >= edge) & (r < samples - edge)]

    return _all_near(inner(beats), found, near) and _all_near(inner(found), beats, near)


def _all_near(these: np.ndarray, those: np.ndarray, within: float) -> bool:
    if not len(these) or not len(those):
        return len(these) == len(those)
    return bool((np.abs(these[:, None] - those[None, :]).min(axis=1) <= within).all())
