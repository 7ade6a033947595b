"""Recordings that people marked: waves in each lead, as LUDB has them, and beats, as MIT-BIH. Any folder with that layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS
from ecg_batch.rhythm_words import BEATS

WAVES = {"p": 0, "N": 1, "t": 2}  # LUDB's symbols; P, QRS, T


@dataclass(frozen=True)
class Waves:
    """What a reader marked in one lead. kind (wave,): 0 P, 1 QRS, 2 T; on_s, end_s (wave,), NaN where not marked."""

    kind: np.ndarray
    on_s: np.ndarray
    end_s: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    def edges(self, kind: int, end: int) -> np.ndarray:
        """Onsets (end = 0) or ends (end = 1) of one kind, seconds, ascending."""
        found = (self.end_s if end else self.on_s)[self.kind == kind]
        return np.sort(found[~np.isnan(found)])

    def within_s(self) -> tuple[float, float]:
        """From the first mark to the last: outside, nobody marked anything."""
        marks = np.concatenate([self.on_s, self.end_s])
        marks = marks[~np.isnan(marks)]
        return (float(marks.min()), float(marks.max())) if len(marks) else (0.0, 0.0)


@dataclass(frozen=True)
class Delineated:
    """A record of LUDB's layout. ecg float64 (lead, time) as stored, since gains of some headers are odd; waves of each lead."""

    name: str
    ecg: np.ndarray
    fs_hz: int
    waves: tuple[Waves, ...]


@dataclass(frozen=True)
class Beats:
    """A record of MIT-BIH's layout. ecg_mv float32 (lead, time); beats_s (beat,); flutter_s: (from, to) that have no beats."""

    name: str
    ecg_mv: np.ndarray
    fs_hz: int
    beats_s: np.ndarray
    flutter_s: tuple[tuple[float, float], ...]


def names_in(folder: Path, suffix: str, records: Sequence[str] | None = None) -> list[str]:
    """Names of records of a folder with annotations of this suffix, by number. UserError where one of `records` is none."""
    there = {path.stem for path in folder.glob(f"*.{suffix}")} & {path.stem for path in folder.glob("*.hea")}
    if not there:
        raise UserError(f"{folder}: no record with NAME.hea and NAME.{suffix}; needed the folder of a WFDB database")
    if absent := sorted(set(records or ()) - there):
        raise UserError(f"{folder}: no record {', '.join(absent[:5])}{' ...' * (len(absent) > 5)} with NAME.hea and NAME.{suffix}")
    return sorted(set(records or there), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def read_delineated(folder: Path, name: str) -> Delineated:
    import wfdb

    record = wfdb.rdrecord(str(folder / name), physical=False)
    lead_of = {lead.lower(): at for at, lead in enumerate(record.sig_name)}
    ecg = record.d_signal.T[[lead_of[lead.lower()] for lead in LEADS]].astype(np.float64)
    waves = (_waves(wfdb.rdann(str(folder / name), lead.lower()), record.fs) for lead in LEADS)
    return Delineated(name, ecg, int(record.fs), tuple(waves))


def _waves(found, fs_hz: float) -> Waves:
    """An onset is "(" just before the peak's symbol, an end ")" just after it."""
    symbols, at_s = ["", *found.symbol, ""], [np.nan, *(found.sample / fs_hz), np.nan]
    rows = [
        (WAVES[symbol], at_s[at - 1] if symbols[at - 1] == "(" else np.nan, at_s[at + 1] if symbols[at + 1] == ")" else np.nan)
        for at, symbol in enumerate(symbols) if symbol in WAVES
    ]  # fmt: skip
    kind, on_s, end_s = np.array(rows, np.float64).reshape(-1, 3).T
    return Waves(kind.astype(np.int64), on_s, end_s)


def read_beats_of(folder: Path, name: str) -> Beats:
    import wfdb

    record, found = wfdb.rdrecord(str(folder / name)), wfdb.rdann(str(folder / name), "atr")
    at_s, symbols = found.sample / record.fs, np.array(found.symbol)
    begins, ends = at_s[symbols == "["], at_s[symbols == "]"]
    length_s = record.sig_len / record.fs
    flutter = tuple((float(begin), float(min([*ends[ends > begin], length_s]))) for begin in begins)
    ecg_mv = np.nan_to_num(record.p_signal.T).astype(np.float32)
    return Beats(name, ecg_mv, int(record.fs), at_s[np.isin(symbols, list(BEATS))], flutter)


def spans_to_masks(on_s: np.ndarray, end_s: np.ndarray, samples: int, fs_hz: float) -> np.ndarray:
    """1 in the samples from each onset to its end, 0 elsewhere: uint8 (wave class, time) of seconds (wave class, wave), or NaN."""
    edges = np.zeros((len(on_s), samples + 1), np.int64)
    for row, on, end in zip(edges, on_s, end_s, strict=True):
        there = ~(np.isnan(on) | np.isnan(end))
        first = np.clip(np.ceil(on[there] * fs_hz - 1e-4), 0, samples).astype(np.int64)
        stop = np.clip(np.floor(end[there] * fs_hz + 1e-4) + 1, 0, samples).astype(np.int64)
        np.add.at(row, first[stop > first], 1)
        np.add.at(row, stop[stop > first], -1)
    return (np.cumsum(edges, axis=1)[:, :samples] > 0).astype(np.uint8)
