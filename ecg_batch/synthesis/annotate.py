"""Annotate: the marks of donors carried into records of 10 s, through the very time maps by which their samples were read.

A mark lies where the map shows the donor's, so it is as exact as the donor's own; what multiplies or adds to samples moves none.
"""

import numpy as np
import pyarrow as pa

from ecg_batch.dataset.beats import AFTER, BEFORE, RHYTHM, WAVES, beats_table
from ecg_batch.synthesis.batch import Batch
from ecg_batch.synthesis.donor_marks import Marks
from ecg_batch.synthesis.retime import CORNERS, Timing
from ecg_batch.synthesis.synthesizer import Synthesizer
from ecg_batch.synthesis.units import NOBODY


def batch_beats(synthesizer: Synthesizer, batch: Batch) -> pa.Table:
    """The rows of beats.parquet of a batch. Of blends they are the first donor's, which the others were brought in time with."""
    request, of_bank, count = synthesizer.request, synthesizer.marks, len(batch.donor_row)
    at, r, symbol, marks, near = carried(of_bank, batch.donor_row, batch.timings, request.samples, request.fs_hz)
    lent = np.concatenate([of_beats[:-1] for of_beats in batch.texture_of_beats])[near]
    kept, sample, symbol, wave_ms = stated(r, symbol, marks, request.samples, request.fs_hz)
    return beats_table(
        batch.queries.record[np.concatenate([np.arange(count), at[kept]])],
        np.concatenate([np.zeros(count, np.int64), sample]),
        np.concatenate([np.full(count, RHYTHM), symbol]),
        np.concatenate([of_bank.rhythm[batch.donor_row], np.full(len(kept), "")]),
        np.concatenate([np.full((count, len(WAVES)), np.nan), wave_ms]),
        np.concatenate([np.full(count, NOBODY), lenders_of(synthesizer, lent[kept])]),
    )


def lenders_of(synthesizer: Synthesizer, row: np.ndarray) -> np.ndarray:
    """ecg_id of these rows of the bank, NOBODY of NOBODY: (beat,)."""
    return np.where(row == NOBODY, NOBODY, synthesizer.bank.table.ecg_id[row])


def carried(of_bank: Marks, donor_row: np.ndarray, timings: list[Timing], samples: int, fs_hz: int):
    """(record, r, symbol (beat,), marks (beat, wave)) of the beats inside each record and one on either side, in its samples; and
    which these are of all placed beats but each record's last.

    All maps are inverted as one: the loops' times of each record begin where those of the one before end.
    """
    counts = np.array([len(timing.placed) - 1 for timing in timings])
    record = np.repeat(np.arange(len(timings)), counts)
    r = np.concatenate([timing.placed[:-1] for timing in timings])
    out, loop_time = (np.concatenate([timing.corners[side] for timing in timings]) for side in (0, 1))
    first, last = loop_time[CORNERS * (np.cumsum(counts) - counts)], loop_time[CORNERS * np.cumsum(counts) - 1]
    begins = np.concatenate([[0.0], np.cumsum(last - first + 1)[:-1]]) - first
    loop_time += np.repeat(begins, CORNERS * counts)
    inside = (r >= 0) & (r < samples)  # never the first and the last of a record
    near = inside.copy()
    near[1:] |= inside[:-1]
    near[:-1] |= inside[1:]
    record, donor = record[near], donor_row[record[near]]
    beat = of_bank.first[donor] + np.concatenate([timing.source[:-1] for timing in timings])[near]
    marks = loop_time[::CORNERS][near, None] + of_bank.wave_ms[donor, beat] * (fs_hz / 1000)
    return record, r[near], of_bank.symbol[donor, beat], np.interp(marks, loop_time, out), near


def stated(r: np.ndarray, symbol: np.ndarray, marks: np.ndarray, samples: int, fs_hz: int):
    """(which of the beats are rows, sample, symbol, wave_ms) of beats at r with these marks, all in samples of the record.

    A beat outside the record is a row where one of its marks is inside: at the record's first or last sample, under another symbol.
    At rates over those of guarantee E2 a map may run back: marks then keep their order.
    """
    marks = np.where(np.isnan(marks), np.nan, np.fmax.accumulate(marks, axis=1))
    inside = (r >= 0) & (r < samples)
    kept = np.flatnonzero(inside | ((marks >= 0) & (marks <= samples - 1)).any(axis=1))
    r, symbol, inside = r[kept], symbol[kept], inside[kept]
    sample = np.clip(r, 0, samples - 1)
    wave_ms = (marks[kept] - sample[:, None]) * (1000 / fs_hz)
    return kept, sample, np.where(inside, symbol, np.where(r < 0, BEFORE, AFTER)), wave_ms
