"""Targets: what the annotations say of each record, as arrays to train on beside its samples. Made when a batch asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecg_batch.dataset.beats import BEAT_SYMBOLS, RHYTHM, RHYTHMS, WAVES, waves_ms
from ecg_batch.errors import UserError, shown
from ecg_batch.reading.labels import names_of
from ecg_batch.reading.records import Records
from ecg_batch.rhythm_words import AAMI, BEAT_CLASSES

TARGETS = ("labels", "waves", "beats", "rhythm")
WAVE_CLASSES = (("p_on", "p_end"), ("qrs_on", "qrs_end"), ("t_on", "t_end"))  # P, QRS, T
CLASS_OF = np.array([BEAT_CLASSES.index(AAMI[symbol]) for symbol in BEAT_SYMBOLS], np.int32)
NO_BEAT, RHYTHM_ROW = -1, -2  # what fills up records of fewer beats; a row that begins a rhythm
UNKNOWN_RHYTHM = 255


@dataclass(frozen=True)
class Targets:
    """Of the records of a training set, in its order. About 20 bytes a beat.

    first (record + 1,): where the rows of each record begin in the arrays over rows; sample (row,); kind int8 (row,): index in
    BEAT_SYMBOLS, RHYTHM_ROW, or -1; rhythm uint8 (row,): index in RHYTHMS where one begins; spans (row, wave class, 2): first
    sample, and the one after the last.
    """

    names: tuple[str, ...]
    samples: int
    first: np.ndarray
    sample: np.ndarray
    kind: np.ndarray
    rhythm: np.ndarray
    spans: np.ndarray
    most_beats: int

    def of(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> array of these records: waves uint8 (record, 3, time); beats int32 (record, beat, 2), R and class; rhythm uint8
        (record, time).
        """
        counts = self.first[records + 1] - self.first[records]
        ends = np.cumsum(counts)
        rows = np.arange(counts.sum()) + np.repeat(self.first[records] - (ends - counts), counts)
        record = np.repeat(np.arange(len(records)), counts)
        return {name: getattr(self, f"_{name}")(rows, record, len(records)) for name in self.names}

    def _waves(self, rows: np.ndarray, record: np.ndarray, count: int) -> np.ndarray:
        spans = self.spans[rows] + self.samples * record[:, None, None]
        return np.stack([_filled(spans[:, at], count * self.samples).reshape(count, -1) for at in range(len(WAVE_CLASSES))], axis=1)

    def _beats(self, rows: np.ndarray, record: np.ndarray, count: int) -> np.ndarray:
        found = np.full((count, self.most_beats, 2), NO_BEAT, np.int32)
        is_beat = self.kind[rows] >= 0
        rows, record = rows[is_beat], record[is_beat]
        place = np.arange(len(rows)) - np.searchsorted(record, record)
        found[record, place, 0], found[record, place, 1] = self.sample[rows], CLASS_OF[self.kind[rows]]
        return found

    def _rhythm(self, rows: np.ndarray, record: np.ndarray, count: int) -> np.ndarray:
        begins = self.kind[rows] == RHYTHM_ROW
        at = self.samples * record[begins] + self.sample[rows[begins]]
        lengths = np.diff(at, append=count * self.samples)
        return np.repeat(self.rhythm[rows[begins]], lengths).reshape(count, self.samples)


def _filled(spans: np.ndarray, size: int) -> np.ndarray:
    """1 inside spans (span, 2), which ascend, 0 elsewhere: uint8 (size,)."""
    edges = np.maximum.accumulate(np.concatenate([[0], spans.ravel(), [size]]))
    values = np.zeros(len(edges) - 1, np.uint8)
    values[1::2] = 1
    return np.repeat(values, np.diff(edges))


def make_targets(names: Sequence[str], sources: Sequence[Records], record: np.ndarray, source: np.ndarray) -> Targets | None:
    """Targets of these names (labels are no annotations) for the records of a training set. UserError where a source lacks them."""
    names = (names,) if isinstance(names, str) else names_of(names, "targets")
    if unknown := [name for name in names if name not in TARGETS]:
        raise UserError(f"targets names {shown(unknown[0])}; needed some of {', '.join(TARGETS)}")
    names = tuple(name for name in TARGETS if name in names and name != "labels")
    if not names:
        return None
    samples = sources[0].chunks.shape[2]
    parts = [_rows_of(one, record[source == at], samples) for at, one in enumerate(sources)]
    counts, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    first = np.concatenate([[0], np.cumsum(counts)])
    beats = np.concatenate([[0], np.cumsum(columns[1] >= 0)])[first]
    return Targets(names, samples, first, *columns, most_beats=int(np.diff(beats).max()))


def _rows_of(source: Records, record: np.ndarray, samples: int) -> tuple[np.ndarray, ...]:
    """(count (record,), sample, kind, rhythm, spans (row,)) of these records of a source, ascending; some may come repeatedly."""
    wanted, times = np.unique(record, return_counts=True)
    groups = [_columns(table, samples, source.fs_hz) for table in source.annotations(wanted)]
    of, *columns = (np.concatenate(column) for column in zip(*groups, strict=True))
    count = np.diff(np.searchsorted(of, np.append(wanted, wanted[-1] + 1)))
    if times.max() == 1:
        return count, *columns
    begins, counts = np.repeat(np.cumsum(count) - count, times), np.repeat(count, times)
    rows = np.arange(counts.sum()) + np.repeat(begins - (np.cumsum(counts) - counts), counts)
    return counts, *(column[rows] for column in columns)


def _columns(table, samples: int, fs_hz: int) -> tuple[np.ndarray, ...]:
    """(record, sample, kind, rhythm, spans) of rows of beats.parquet."""
    sample = table["sample"].to_numpy()
    kind = _coded(table["symbol"], {name: at for at, name in enumerate(BEAT_SYMBOLS)} | {RHYTHM: RHYTHM_ROW}, NO_BEAT, np.int8)
    rhythm = _coded(table["aux"], {name: at for at, name in enumerate(RHYTHMS)}, UNKNOWN_RHYTHM, np.uint8)
    at = sample[:, None] + waves_ms(table) * (fs_hz / 1000)
    spans = np.zeros((len(sample), len(WAVE_CLASSES), 2), np.int16)
    for wave, (on, end) in enumerate(WAVE_CLASSES):
        begins, stops = np.ceil(at[:, WAVES.index(on)] - 1e-4), np.floor(at[:, WAVES.index(end)] + 1e-4) + 1
        begins, stops = np.clip(begins, 0, samples), np.clip(stops, 0, samples)
        there = stops > begins  # False where it is absent, or outside
        spans[:, wave, 0], spans[:, wave, 1] = np.where(there, begins, 0), np.where(there, stops, 0)
    return table["record"].to_numpy(), sample.astype(np.int32), kind, rhythm, spans


def _coded(column, codes: dict[str, int], other: int, kind: type) -> np.ndarray:
    """The code of each text of a pyarrow column, `other` where it has none."""
    texts = column.combine_chunks().dictionary_encode()
    return np.array([codes.get(text, other) for text in texts.dictionary.to_pylist()], kind)[texts.indices.to_numpy()]
