"""WFDB annotation files: the very bytes that wfdb's own writer makes, which takes 5 ms a file: as long as all else of an export.

A file is 16-bit words: code and time since the last annotation, with further words where a time is long, or a subtype or a text
is to be said (https://wfdb.io/spec/annotation-files.htm).
"""

import numpy as np

from ecg_batch.dataset.beats import WAVES
from ecg_batch.rhythm_words import BEATS

OTHERS = {"~": 14, "s": 18, '"': 22, "p": 24, "t": 27, "+": 28, "x": 37, "(": 39, ")": 40}
CODES = {symbol: word.code for symbol, word in BEATS.items()} | OTHERS
SKIP, SUBTYPE, AUX = 59, 61, 63
LONGEST = 1023  # samples that fit beside a code
END_OF_HEAD = bytes((0, 236, 255, 255, 255, 255, 1, 0))
# of each wave, as in LUDB (doi:10.1109/ACCESS.2020.3029211): onset, peak and end; the peak of a QRS is R, the row's own sample
PEAKS = (("p_on", "p_peak", "p_end", "p"), ("qrs_on", None, "qrs_end", "N"), ("t_on", "t_peak", "t_end", "t"))


def annotation_files(fs_hz: int, record, sample, symbol, aux=None, subtype=None) -> dict[int, bytes]:
    """The file of each record: arrays over annotations in the order of record and sample. aux: texts, "" for none; subtype: 0 for
    none.
    """
    codes = np.zeros(len(sample), np.int64)
    for name, code in CODES.items():
        codes[symbol == name] = code
    begins = np.flatnonzero(np.diff(record, prepend=-1))  # of each record
    since = np.diff(sample, prepend=0)
    since[begins] = sample[begins]
    far = since > LONGEST
    subtype = np.zeros(len(sample), np.int64) if subtype is None else subtype
    words = np.stack([np.full(len(sample), SKIP << 10), since >> 16, since & 0xFFFF, (codes << 10) + np.where(far, 0, since),
                      (SUBTYPE << 10) + subtype], axis=1).astype("<u2")  # fmt: skip
    said = np.stack([far, far, far, np.ones(len(sample), bool), subtype > 0], axis=1)
    ends = 2 * np.cumsum(said.sum(axis=1))
    data, head = words[said].tobytes(), _head(fs_hz)
    told = np.flatnonzero(aux != "") if aux is not None else np.empty(0, int)
    each, made = np.append(begins, len(sample)), {}
    for first, stop in zip(each[:-1].tolist(), each[1:].tolist(), strict=True):
        parts, done = [head], ends[first - 1] if first else 0
        for row in told[np.searchsorted(told, first) : np.searchsorted(told, stop)].tolist():
            parts += [data[done : ends[row]], _text(str(aux[row]))]
            done = ends[row]
        made[int(record[first])] = b"".join([*parts, data[done : ends[stop - 1]], bytes(2)])
    return made


def _head(fs_hz: int) -> bytes:
    """A note that says at which rate samples are counted."""
    return bytes((0, 22 << 2)) + _text(f"## time resolution: {fs_hz}") + END_OF_HEAD


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    return bytes((len(data), AUX << 2)) + data + bytes(len(data) % 2)


def wave_annotations(record: np.ndarray, sample: np.ndarray, wave_ms: np.ndarray, samples: int, fs_hz: int):
    """(records, samples, symbols) of the waves of these rows that lie wholly inside their record, ( p ) ( N ) ( t ), in the order
    of record and time.
    """
    at = np.rint(sample[:, None] + wave_ms * (fs_hz / 1000))  # (row, wave)
    found = np.empty((len(sample), len(PEAKS), 3))
    for row, (on, peak, end, _) in enumerate(PEAKS):
        found[:, row, 0], found[:, row, 2] = at[:, WAVES.index(on)], at[:, WAVES.index(end)]
        found[:, row, 1] = at[:, WAVES.index(peak)] if peak else sample
    whole = ((found >= 0) & (found < samples)).all(axis=2)
    symbols = np.array([["(", name, ")"] for *_, name in PEAKS])
    times, record = found[whole].astype(np.int64), np.broadcast_to(record[:, None], whole.shape)[whole]
    times, record, symbols = times.ravel(), np.repeat(record, 3), np.broadcast_to(symbols, found.shape)[whole].ravel()
    order = np.lexsort((times, record))
    return record[order], times[order], symbols[order]
