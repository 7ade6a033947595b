"""The quality gate: what is measured on every record before it is written. A record that fails is drawn again, then flagged."""

import math

import numpy as np

from ecg_batch.leads import LEADS, MODELLED, MV_PER_UV
from ecg_batch.signal.beats import LEAD_II, detect_all, heart_rates_bpm, joined

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
    extremes = np.stack([ecg_uv.min(axis=-1), ecg_uv.max(axis=-1)], axis=-1)
    (measured,), (flags,) = check_all(ecg_uv[None], extremes[None], joined([beats]), np.array([hr_bpm]), fs_hz)
    return float(measured), flags


def check_all(
    ecg_uv: np.ndarray, extremes: np.ndarray, beats: tuple[np.ndarray, np.ndarray], hr_bpm: np.ndarray, fs_hz: float
) -> tuple[np.ndarray, list[list[str]]]:
    """check of each record, (record,) each: whole ecg_uv (record, 12, time); extremes (record, 12, 2): the least and the greatest
    of each lead; beats as joined has them; hr_bpm (record,).
    """
    lowest, highest = extremes[..., 0], extremes[..., 1]  # (record, lead)
    amplitude = np.maximum(highest, -lowest).max(axis=-1) * MV_PER_UV > MAX_MV
    flat = ((highest - lowest) * MV_PER_UV < FLAT_MV).any(axis=-1)
    found = detect_all(ecg_uv[:, RATE_LEAD] * MV_PER_UV, fs_hz)
    measured = heart_rates_bpm(*found, len(ecg_uv), fs_hz)
    wrong_rate = ~(np.abs(measured - hr_bpm) <= HR_WITHIN_BPM)
    wrong_beats = ~same_beats(found, beats, len(ecg_uv), ecg_uv.shape[-1], fs_hz)
    flags = [[] for _ in ecg_uv]
    add_flags(flags, dict(zip(FLAGS, (amplitude, flat, wrong_rate, wrong_beats), strict=False)))
    return measured, flags


def add_flags(flags: list[list[str]], faults: dict[str, np.ndarray]) -> None:
    """Add each flag to those of the records that have the fault, bool (record,)."""
    for flag, is_so in faults.items():
        for record in np.flatnonzero(is_so):
            flags[record].append(flag)


def same_beats(
    found: tuple[np.ndarray, np.ndarray], beats: tuple[np.ndarray, np.ndarray], records: int, samples: int, fs_hz: float
) -> np.ndarray:
    """Whether both, as joined has them, name the same beats of a record within 100 ms, those near the ends left out: (record,).

    Beats far outside a record are near nothing in it, and are left out first.
    """
    near, edge = BEAT_WITHIN_S * fs_hz, EDGE_S * fs_hz
    apart = samples + 4 * math.ceil(near)  # from one record to the next, when all lie one after another

    def placed(record: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(record, time among all records, whether it is away from the ends) of each beat."""
        close = (r > -near) & (r < samples + near)
        record, r = record[close], r[close]
        return record, r + apart * record, (r >= edge) & (r < samples - edge)

    both = placed(*found), placed(*beats)
    same = np.ones(records, bool)
    for (record, these, inner), (other_record, those, _) in (both, both[::-1]):
        count, there = (np.bincount(of, minlength=records) for of in (record[inner], other_record))
        same &= ((count > 0) & (there > 0)) | (count == there)
        padded = np.concatenate([[-apart], those, [apart * records + apart]])
        after = np.searchsorted(padded, these[inner])
        far = np.minimum(these[inner] - padded[after - 1], padded[after] - these[inner]) > near
        same[record[inner][far]] = False
    return same
