"""Beats: what beats.parquet says of a record: each beat with its type and its waves, and which rhythm begins where.

A row is an annotation as WFDB has it. Times of waves are milliseconds from its sample: finer than a sample at 100 Hz, in two bytes.
"""

import numpy as np
import pyarrow as pa

from ecg_batch.signal.marks import MARKS

WAVES = tuple(name for name in MARKS if name != "r")  # in the order of time; R is the row's sample
WAVE_COLUMNS = tuple(f"{name}_ms" for name in WAVES)
BEAT_COLUMNS = ("record", "sample", "symbol", "aux", *WAVE_COLUMNS, "texture_ecg_id", "beat_ecg_id")
# normal, ventricular, atrial, paced, none of these; aberrated atrial, junctional, fusion, ventricular and junctional escape; with a
# bundle branch block
BEAT_SYMBOLS = ("N", "V", "A", "/", "Q", "a", "J", "F", "E", "j", "B")
LONE_P = "x"  # a P wave that is not conducted
RHYTHM, QUALITY = "+", "~"
# WFDB's words that records have in `aux`
RHYTHMS = ("(N", "(AFIB", "(AFL", "(SVTA", "(B", "(P", "(SBR", "(VT", "(T", "(IVR", "(NOD", "(BII", "(AB", "(BI", "(BIII", "(PREX")
BEFORE, AFTER = "t", "p"  # a beat outside the record of which something is inside, most often its T wave, or its P wave


def beats_table(record, sample, symbol, aux, wave_ms: np.ndarray, texture_ecg_id=None, beat_ecg_id=None) -> pa.Table:
    """The rows of these annotations in the order of record and sample, equal ones as given: arrays over rows.

    wave_ms: (row, wave), NaN is absent; texture_ecg_id: negative where the noise under a beat was recorded from nobody;
    beat_ecg_id: negative where the beat is the record's donor's own.
    """
    order = np.lexsort((sample, record))
    ids = [np.full(len(order), -1) if each is None else each for each in (texture_ecg_id, beat_ecg_id)]
    wave_ms, ids = wave_ms[order], [each[order].astype(np.int32) for each in ids]
    absent = np.isnan(wave_ms)
    whole = np.rint(np.where(absent, 0, wave_ms)).astype(np.int16)
    columns = {
        "record": pa.array(record[order].astype(np.int64)),
        "sample": pa.array(sample[order].astype(np.int64)),
        "symbol": pa.array(symbol[order], pa.string()),
        "aux": pa.array(aux[order], pa.string()),
        **{name: pa.array(whole[:, at], mask=absent[:, at]) for at, name in enumerate(WAVE_COLUMNS)},
        **{name: pa.array(each, mask=each < 0) for name, each in zip(("texture_ecg_id", "beat_ecg_id"), ids, strict=True)},
    }
    return pa.table(columns)


def waves_ms(table: pa.Table) -> np.ndarray:
    """The waves of rows, milliseconds from their samples: float32 (row, wave), NaN is absent."""
    return np.stack([table[name].to_numpy().astype(np.float32) for name in WAVE_COLUMNS], axis=1)


def in_order(wave_ms: np.ndarray) -> bool:
    """Whether no mark of a beat lies before one that is earlier in WAVES."""
    return not (wave_ms < np.fmax.accumulate(wave_ms, axis=1)).any()
