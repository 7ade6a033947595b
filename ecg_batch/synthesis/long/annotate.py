"""Annotate: what beats.parquet says of a long record: beats with their marks, as stitch.py carried them, and all else."""

import numpy as np

from ecg_batch.dataset.beats import LONE_P, QUALITY, RHYTHM, WAVES, beats_table
from ecg_batch.request.model import Request
from ecg_batch.synthesis.annotate import stated
from ecg_batch.synthesis.donor_marks import stated_symbols
from ecg_batch.synthesis.long.begin import LongRecord
from ecg_batch.synthesis.long.events.stock import HOST
from ecg_batch.synthesis.long.stitch import carried
from ecg_batch.synthesis.units import NOBODY

P_MARKS = WAVES.index("p_end") + 1


def record_beats(
    record: int,
    made: LongRecord,
    quality: list[tuple[int, str]],
    texture_ecg_id: np.ndarray,
    request: Request,
    ecg_id: np.ndarray,
):
    """The rows of beats.parquet of one record, a pyarrow Table: rhythm changes, remarks on quality ("~" in WFDB) with their first
    samples, beats, P waves that no beat follows. texture_ecg_id: of each placed beat (beat,), see beats_table; ecg_id: of the bank.
    """
    r = made.placed.r.astype(np.int64)
    symbol = stated_symbols(made.donor.symbol[made.placed.source], "PACE" in made.donor.codes)
    marks, lent = carried(made.donor, made.placed), np.full(len(r), NOBODY)
    if made.atrial:
        row = made.lent[made.placed.source]
        lent = np.where(row == HOST, NOBODY, ecg_id[row])
        marks[:, :P_MARKS] = np.where(np.isnan(made.atrial.p_marks), marks[:, :P_MARKS], made.atrial.p_marks)
    kept, sample, symbol, wave_ms = stated(r, symbol, marks, request.samples, request.fs_hz)
    rows = [(round(time_s * request.fs_hz), RHYTHM, aux) for time_s, aux in made.changes]
    rows += [(start, QUALITY, said) for start, said in quality]
    rows += made.overlays.annotations() if made.overlays else []
    peak, lone_ms = _lone(made, request)
    at, kinds, aux = zip(*rows, strict=True)
    return beats_table(
        np.full(len(rows) + len(sample) + len(peak), record),
        np.concatenate([at, sample, peak]),
        np.concatenate([kinds, symbol, np.full(len(peak), LONE_P)]),
        np.concatenate([aux, np.full(len(sample) + len(peak), "")]),
        np.concatenate([np.full((len(rows), len(WAVES)), np.nan), wave_ms, lone_ms]),
        np.concatenate([np.full(len(rows), NOBODY), texture_ecg_id[kept], np.full(len(peak), NOBODY)]),
        np.concatenate([np.full(len(rows), NOBODY), lent[kept], np.full(len(peak), NOBODY)]),
    )


def _lone(made: LongRecord, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """(sample of the peak, waves in ms) of P waves that no beat follows and whose peak lies in the record; an edge may cut them, as
    it may cut the waves of beats.
    """
    marks = made.atrial.lone if made.atrial else np.empty((0, P_MARKS))
    peak = np.rint(marks[:, 1]).astype(np.int64)
    inside = (peak >= 0) & (peak < request.samples)
    marks, peak = marks[inside], peak[inside]
    wave_ms = np.full((len(peak), len(WAVES)), np.nan)
    wave_ms[:, :P_MARKS] = (marks - peak[:, None]) * (1000 / request.fs_hz)
    return peak, wave_ms
