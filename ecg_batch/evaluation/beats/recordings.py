"""Recordings whose beats and rhythms people marked, as MIT-BIH and CinC 2017 have them: one lead at the rate that networks see."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.evaluation.beats.features import FEWEST, HZ, at_rate
from ecg_batch.rhythm_words import AAMI, RHYTHMS

LABELS = ("N", "A", "O", "~")
REFERENCES = ("REFERENCE-v3.csv", "REFERENCE.csv")  # the newest first
SEEN_FIRST = ("MLII", "II")  # the lead that is read where it is there, else the first


@dataclass(frozen=True)
class Recording:
    """lead (time,) mV at HZ; r int64 (beat,) samples; symbol str (beat,); rhythms: (sample, WFDB's string), ascending."""

    name: str
    lead_name: str
    lead: np.ndarray
    r: np.ndarray
    symbol: np.ndarray
    rhythms: tuple[tuple[int, str], ...]

    def rhythm_at(self, sample: np.ndarray) -> np.ndarray:
        return rhythm_at(self.rhythms, sample)


@dataclass(frozen=True)
class Labelled:
    """A record of CinC 2017: lead (time,) mV at HZ, and its label: N normal, A fibrillation, O another rhythm, ~ too noisy."""

    name: str
    lead: np.ndarray
    label: str


def rhythm_at(rhythms: Sequence[tuple[int, str]], sample: np.ndarray) -> np.ndarray:
    """Which rhythm there is at samples, "" before the first is named: str (len(sample),). rhythms: (sample, string), ascending."""
    begins, names = np.array([begin for begin, _ in rhythms]), np.array(["", *(name for _, name in rhythms)])
    return names[np.searchsorted(begins, sample, side="right")]


def read_recording(folder: Path, name: str) -> Recording:
    """UserError where it cannot be read or has hardly a beat."""
    import wfdb

    path = str(folder / name)
    try:
        record, found = wfdb.rdrecord(path), wfdb.rdann(path, "atr")
        lead = next((record.sig_name.index(lead) for lead in SEEN_FIRST if lead in record.sig_name), 0)
        x = at_rate(np.nan_to_num(record.p_signal[:, lead]), record.fs)
    except Exception as error:  # whatever wfdb raises on a file that is none
        raise UserError(f"{path}: cannot be read ({type(error).__name__}: {error!s:.150}); needed {name}.hea, its signals and "
                        f"{name}.atr as WFDB has them") from None  # fmt: skip
    at = np.rint(np.asarray(found.sample) * (HZ / record.fs)).astype(np.int64)
    is_beat = np.array([symbol in AAMI for symbol in found.symbol], bool) & (at < len(x))
    if is_beat.sum() < FEWEST:
        raise UserError(f"{path}.atr: {is_beat.sum()} beats; needed {FEWEST} at least. Leave the record out with --records")
    said = [text.strip("\x00 ") for text in found.aux_note]
    rhythms = tuple((int(sample), text) for sample, text in zip(at, said, strict=True) if text in RHYTHMS)
    return Recording(name, record.sig_name[lead], x, at[is_beat], np.array(found.symbol)[is_beat], rhythms)


def labels_in(folder: Path, records: Sequence[str] | None = None) -> dict[str, str]:
    """Name -> label of CinC 2017's layout, in the order of the names. UserError where one of `records` is none."""
    path = next((folder / name for name in REFERENCES if (folder / name).exists()), folder / REFERENCES[-1])
    try:
        rows = [line.strip().split(",") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error!s:.150}); needed the folder of CinC 2017, with NAME,LABEL lines") from None
    odd = [number for number, row in enumerate(rows, 1) if len(row) != 2 or row[1] not in LABELS]
    if odd or not rows:
        where = f", line {odd[0]}: {','.join(rows[odd[0] - 1])[:60]!r}" if odd else ": empty"
        raise UserError(f"{path}{where}; needed NAME,LABEL with a label of {', '.join(LABELS)}")
    labels = dict(sorted((name, label) for name, label in rows))
    if absent := sorted(set(records or ()) - set(labels)):
        raise UserError(f"{path}: no record {', '.join(absent[:5])}{' ...' * (len(absent) > 5)}")
    return {name: label for name, label in labels.items() if not records or name in set(records)}


def read_labelled(folder: Path, name: str, label: str) -> Labelled:
    """UserError where it cannot be read."""
    import wfdb

    try:
        record = wfdb.rdrecord(str(folder / name))
        x = at_rate(np.nan_to_num(record.p_signal[:, 0]), record.fs)
    except Exception as error:  # whatever wfdb raises on a file that is none
        raise UserError(f"{folder / name}: cannot be read ({type(error).__name__}: {error!s:.150}); needed {name}.hea and its "
                        "signal as WFDB has them") from None  # fmt: skip
    return Labelled(name, x, label)
