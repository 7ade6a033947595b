"""Annotate: the marks of single beats carried into a long record, as stitch.py moves their samples.

A beat's P wave and QRS onset lie in the interval before its R, where it is the one that comes (B there); QRS end and T lie in the
interval after it, where it is the one that was (A). A wave that reaches beyond a splice ends, or begins, with it.
"""

import numpy as np

from ecg_batch.dataset.beats import QUALITY, RHYTHM, WAVES, beats_table
from ecg_batch.request.model import Request
from ecg_batch.synthesis.annotate import stated
from ecg_batch.synthesis.donor_marks import stated_symbols
from ecg_batch.synthesis.long.begin import LongRecord
from ecg_batch.synthesis.long.donor import LongDonor
from ecg_batch.synthesis.long.stitch import Placed, intervals
from ecg_batch.synthesis.units import NOBODY

BEFORE_R = WAVES.index("qrs_on") + 1  # marks that lie before R


def record_beats(record: int, made: LongRecord, quality: list[tuple[int, str]], texture_ecg_id: np.ndarray, request: Request):
    """The rows of beats.parquet of one record, a pyarrow Table: rhythm changes, remarks on quality ("~" in WFDB) with their first
    samples, beats. texture_ecg_id: of each placed beat (beat,), see beats_table.
    """
    r = made.placed.r.astype(np.int64)
    symbol = stated_symbols(made.donor.symbol[made.placed.source], "PACE" in made.donor.codes)
    kept, sample, symbol, wave_ms = stated(r, symbol, carried(made.donor, made.placed), request.samples, request.fs_hz)
    rows = [(round(time_s * request.fs_hz), RHYTHM, aux) for time_s, aux in made.changes]
    rows += [(start, QUALITY, said) for start, said in quality]
    at, kinds, aux = zip(*rows, strict=True)
    return beats_table(
        np.full(len(rows) + len(sample), record),
        np.concatenate([at, sample]),
        np.concatenate([kinds, symbol]),
        np.concatenate([aux, np.full(len(sample), "")]),
        np.concatenate([np.full((len(rows), len(WAVES)), np.nan), wave_ms]),
        np.concatenate([np.full(len(rows), NOBODY), texture_ecg_id[kept]]),
    )


def carried(donor: LongDonor, placed: Placed) -> np.ndarray:
    """The marks of all placed beats in samples of the record: (beat, wave)."""
    i = intervals(donor, placed, np.arange(len(placed.r) - 1))
    marks = np.full((len(placed.r), len(WAVES)), np.nan)
    a, b = i.before, i.after
    at, of_donor = [np.zeros(len(a)), i.qrs_off, i.t_end, i.splice], [donor.r[a], donor.qrs_off[a], donor.t_end[a], i.donor_out]
    marks[:-1, BEFORE_R:] = _moved(donor, a, of_donor, at)[:, BEFORE_R:] + i.start[:, None]
    at = [i.splice, i.p_on, i.qrs_on, i.qrs_on + (donor.r - donor.qrs_on)[b]]
    of_donor = [i.donor_in, donor.p_on[b], donor.qrs_on[b], donor.r[b]]
    marks[1:, :BEFORE_R] = _moved(donor, b, of_donor, at)[:, :BEFORE_R] + i.start[:, None]
    return marks


def _moved(donor: LongDonor, beats: np.ndarray, of_donor: list[np.ndarray], at: list[np.ndarray]) -> np.ndarray:
    """The marks of these beats (beat,) where the straight pieces between corners bring them: (beat, wave). of_donor, at: of each
    corner its samples of the donor's x and of the interval, (beat,). All pieces as one map, each beat's behind the one before.
    """
    of_donor, at = np.stack(of_donor, axis=1).astype(np.float64), np.stack(at, axis=1)
    apart = np.arange(len(beats))[:, None] * (donor.x.shape[1] + 1.0)
    marks = np.clip(donor.r[beats][:, None] + donor.waves[beats], of_donor[:, :1], of_donor[:, -1:])
    return np.interp(marks + apart, (of_donor + apart).ravel(), at.ravel())
