"""R peaks in MIT-BIH, as recorded and under recorded noise: the networks of evaluation/waves/compare.py beside public detectors."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ecg_batch.evaluation.waves.compare import COPIES, SYNTHETIC, Job, WaveSettings, trained
from ecg_batch.evaluation.waves.delineator import NETWORK_HZ, Delineator, probabilities
from ecg_batch.evaluation.waves.marked import Beats, names_in, read_beats_of
from ecg_batch.evaluation.waves.public import sleepecg, xqrs
from ecg_batch.evaluation.waves.residuals import mixed, noise_for, residuals
from ecg_batch.evaluation.waves.scores import beats_of, f1, interval, score_beats
from ecg_batch.progress import track

LEVELS_DB = (24, 12, 6, 0, -6)
XQRS, SLEEPECG = "XQRS", "SleepECG"
CLEAN = "as recorded"

Detector = Callable[[np.ndarray], np.ndarray]  # a lead (time,) mV at 250 Hz -> R in seconds


def beats_section(dataset: Path, mitdb: Path, ptbxl: Path | None, names: Sequence[str] | None, out: Path,
                  settings: WaveSettings) -> dict:  # fmt: skip
    """Each lead by itself; F1 pools all beats of all leads, an interval draws recordings again."""
    names = names_in(mitdb, "atr", names)
    jobs = [Job(source.split()[0], source, dataset, settings) for source in (SYNTHETIC, COPIES)]
    models = trained(jobs, out)
    detectors: dict[str, Detector] = {job.source: network_detector(models[job.name]) for job in jobs}
    detectors |= {XQRS: lambda lead: xqrs(lead, NETWORK_HZ), SLEEPECG: lambda lead: sleepecg(lead, NETWORK_HZ)}
    noise = residuals(ptbxl, settings.residuals) if ptbxl else None
    found = [of_recording(read_beats_of(mitdb, name), detectors, noise, settings.noisy_s, seed=at)
             for at, name in enumerate(track(names, "beats", "recordings"))]  # fmt: skip
    counts = {
        name: {condition: np.array([each[condition][name] for each in found]) for condition in found[0]} for name in detectors
    }  # (recording, lead, 3) each
    rows = {
        name: {condition: row(of, name == SYNTHETIC and counts[XQRS][condition]) for condition, of in each.items()}
        for name, each in counts.items()
    }
    of_recordings = {name: f1(each[CLEAN].sum(axis=1)).round(5).tolist() for name, each in counts.items()}
    return {
        "recordings": len(names), "noisy seconds": settings.noisy_s, "noise rows": 0 if noise is None else len(noise), "rows": rows,
        "by recording, as recorded": {name: dict(zip(names, each, strict=True)) for name, each in of_recordings.items()},
    }  # fmt: skip


def row(counts: np.ndarray, against) -> dict:
    """Of counts (recording, lead, 3); against: those of XQRS, or False."""
    whole = counts.sum(axis=1)
    found, extra, missed = whole.sum(axis=0).tolist()
    held = {"F1": interval(whole, f1), "F1 of first leads": interval(counts[:, 0], f1), "found": found, "extra": extra,
            "missed": missed}  # fmt: skip
    if against is False:
        return held
    return held | {"less XQRS": interval(whole, f1, against.sum(axis=1)),
                   "less XQRS, first leads": interval(counts[:, 0], f1, against[:, 0])}  # fmt: skip


def network_detector(model: Delineator) -> Detector:
    return lambda lead: beats_of(probabilities(model, lead[None], NETWORK_HZ)[0])


def of_recording(record: Beats, detectors: dict[str, Detector], noise, noisy_s: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Condition -> detector -> found, extra, missed (lead, 3). noise: rows of residuals(), or None."""
    out: dict[str, dict[str, np.ndarray]] = {}
    leads = len(record.ecg_mv)
    for at, lead in enumerate(at_rate(record.ecg_mv, record.fs_hz)):
        end_s = min(noisy_s, len(lead) / NETWORK_HZ)
        part = lead[: round(end_s * NETWORK_HZ)]
        added = None if noise is None else noise_for(noise, len(part), seed=leads * seed + at)
        conditions = {CLEAN: lead} if noise is None else {CLEAN: lead} | {f"{db} dB": mixed(part, added, db) for db in LEVELS_DB}
        for condition, heard in conditions.items():
            until_s = len(heard) / NETWORK_HZ
            for name, detector in detectors.items():
                theirs = record.beats_s[record.beats_s < until_s]
                counts = score_beats(theirs, detector(heard), record.flutter_s)
                out.setdefault(condition, {}).setdefault(name, np.zeros((leads, 3), np.int64))[at] = counts
    return out


def at_rate(ecg_mv: np.ndarray, fs_hz: int) -> np.ndarray:
    """Leads (lead, time) at 250 Hz, otherwise as recorded."""
    from scipy.signal import resample_poly

    ratio = Fraction(NETWORK_HZ, fs_hz)
    return ecg_mv if ratio == 1 else resample_poly(ecg_mv, ratio.numerator, ratio.denominator, axis=1).astype(np.float32)
