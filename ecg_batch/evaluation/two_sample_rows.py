"""The rows of the two-sample test: a dataset against its donors' own recordings, where it is told, and how strong the test is."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ecg_batch.donors.bank import Bank
from ecg_batch.evaluation.labelled import Labelled, from_rows
from ecg_batch.evaluation.sets import Settings
from ecg_batch.evaluation.two_sample import (
    BANDS,
    PARTS,
    Side,
    Told,
    alike_in_rhythm,
    at_100_hz,
    auc,
    gaussian,
    rhythms_of,
    same_leads,
    tell_apart,
    windows_of,
)
from ecg_batch.evaluation.usefulness import read_lines
from ecg_batch.leads import twelve_leads
from ecg_batch.progress import progress, track
from ecg_batch.reading.synthetic import OpenDataset

GAUSSIAN, REAL = "beats with Gaussian noise", "real against real"
FAIR, AS_THEY_ARE = "synthetic against its donors", "synthetic against the files as they are"
LEAST_TOLD = 0.95  # the test is strong enough where it tells Gaussian noise at least so surely


def two_sample_section(sides: tuple[Side, Side], bank: Bank, out: Path, settings: Settings, data: str) -> dict:
    """Each row {"AUC": mean, "interval", "of seeds"}; those in OUT/two_sample.jsonl of the same settings and data are kept.

    sides: synthetic records and their donors' recordings.
    """
    made, real = sides
    rhythms, fs_hz = (rhythms_of(made), rhythms_of(real)), bank.table.fs_hz
    weight = alike_in_rhythm(*rhythms)
    held = np.isin(bank.table.patient_id, made.patient)
    halves = np.random.default_rng(0).random(len(real)) < 0.5
    fair = same_leads(real)
    noise = gaussian(bank.skeleton[held], bank.texture[held])
    own = twelve_leads(bank.skeleton[held].astype(np.int32) + bank.texture[held]).astype(np.int16)
    patient = bank.table.patient_id[held]
    noise, own = (Side(at_100_hz(ecg, fs_hz), patient) for ecg in (noise, own))
    few, seeds = {"seeds": 1, "steps": settings.told_steps}, {"seeds": settings.told_seeds, "steps": settings.told_steps}
    rows: dict[str, Callable[[], Told]] = {
        REAL: lambda: tell_apart(fair.take(halves), fair.take(~halves), **few),
        GAUSSIAN: lambda: tell_apart(noise, own, **few),
        FAIR: lambda: tell_apart(made, fair, **seeds, weight=weight),
        AS_THEY_ARE: lambda: tell_apart(made, real, **seeds, weight=weight),
    }
    for band in BANDS:
        rows[f"{FAIR}, {band}"] = lambda band=band: tell_apart(made, fair, **few, weight=weight, bands=(band,))
    for part in PARTS:
        rows[f"{FAIR}, {part}"] = lambda part=part: tell_apart(made, fair, **few, weight=weight, part=part)
    return {
        "records": [len(made), len(real)],
        "rows": _once_each(rows, out / "two_sample.jsonl", {"data": data, "settings": asdict(settings)}),
        "rhythm alone, before records are weighted by it": {
            name: _alone(*(of_side[:, at] for of_side in rhythms)) for at, name in enumerate(("heart rate", "beat to beat"))
        },
    }


def _alone(made: np.ndarray, real: np.ndarray) -> float:
    """AUC of how far a value is from the median of real ones."""
    value, side = np.concatenate([made, real]), np.repeat([True, False], [len(made), len(real)])
    known = np.isfinite(value)
    far = np.abs(np.log(np.maximum(value[known], 1e-3) / np.nanmedian(np.maximum(real, 1e-3))))
    return float(auc(far, side[known], np.ones(known.sum())))


def sides_of(made: Labelled, real: Labelled) -> tuple[Side, Side]:
    """(synthetic records, the recordings of their donors), at 100 Hz."""
    donors = real.take(np.isin(real.ecg_id, made.ecg_id))
    made = made.take(np.isin(made.ecg_id, donors.ecg_id))
    return tuple(Side(at_100_hz(part.ecg, part.fs_hz), part.patient_id) for part in (made, donors))


def in_windows(dataset: OpenDataset, count: int) -> Labelled:
    """About `count` windows of ten seconds of long records, of each record the same number: labelled as their records are."""
    each, rng, windows = max(count // len(dataset), 1), np.random.default_rng(0), []
    for record in track(range(len(dataset)), "reading long records", "records"):
        windows.append(windows_of(dataset.raw[record], each, rng, 10 * dataset.fs_hz))
    of = np.repeat(np.arange(len(dataset)), each)
    return from_rows(np.concatenate(windows), dataset.records.take(of), dataset.fs_hz)


def _once_each(rows: dict[str, Callable[[], Told]], log: Path, key: dict) -> dict[str, dict]:
    """What each row says, from the file where it is there already."""
    done = {line["row"]: line["told"] for line in read_lines(log) if line["key"] == key}
    with open(log, "a", encoding="utf-8") as file, progress(len(rows), "two-sample test", "rows") as shown:
        for name, told_of in rows.items():
            shown.note = name
            if name not in done:
                told = told_of()
                done[name] = {"AUC": told.auc, "interval": list(told.interval), "of seeds": list(told.of_seeds)}
                file.write(json.dumps({"row": name, "key": key, "told": done[name]}) + "\n")
                file.flush()
            shown.update()
    return {name: done[name] for name in rows}
