"""WFDB annotation files: the very bytes that wfdb's own writer makes, which takes 5 ms a file: as long as all else of an export.

A file is 16-bit words: code and time since the last annotation, with further words where a time is long, or a subtype or a text
is to be said (https://wfdb.io/spec/annotation-files.htm).
"""

import numpy as np

from ecg_batch.dataset.beats import WAVES

CODES = {"N": 1, "V": 5, "A": 8, "/": 12, "Q": 13, "~": 14, "p": 24, "t": 27, "+": 28, "(": 39, ")": 40}
SKIP, SUBTYPE, AUX = 59, 61, 63
LONGEST = 1023  # samples that fit beside a code
END_OF_HEAD = bytes((0, 236, 255, 255, 255, 255, 1, 0))
# of each wave, as in LUDB (doi:10.1109/ACCESS.2020.3029211): onset, peak and end; the peak of a QRS is R, the row's own sample
PEAKS = (("p_on", "p_peak", "p_end", "p"), ("qrs_on", None, "qrs_end", "N"), ("t_on", "t_peak", "t_end", "t"))


def encoded(sample: np.ndarray, symbol: np.ndarray, fs_hz: int, aux: np.ndarray | None = None, subtype: np.ndarray | None = None):
    """An annotation file of these arrays over annotations, ascending in sample. aux: texts, "" for none; subtype: 0 for none."""
    codes = np.zeros(len(sample), np.int64)
    for name in np.unique(symbol):
        codes[symbol == name] = CODES[str(name)]
    since = np.diff(sample, prepend=0)
    far = since > LONGEST
    subtype = np.zeros(len(sample), np.int64) if subtype is None else subtype
    words = np.stack([np.full(len(sample), SKIP << 10), since >> 16, since & 0xFFFF, (codes << 10) + np.where(far, 0, since),
                      (SUBTYPE << 10) + subtype], axis=1).astype("<u2")  # fmt: skip
    said = np.stack([far, far, far, np.ones(len(sample), bool), subtype > 0], axis=1)
    ends = np.cumsum(said.sum(axis=1))
    flat, parts, done = words[said], [_head(fs_hz)], 0
    for row in np.flatnonzero(aux != "") if aux is not None else ():
        parts += [flat[done : ends[row]].tobytes(), _text(str(aux[row]))]
        done = ends[row]
    return b"".join([*parts, flat[done:].tobytes(), bytes(2)])


def _head(fs_hz: int) -> bytes:
    """A note that says at which rate samples are counted."""
    return bytes((0, 22 << 2)) + _text(f"## time resolution: {fs_hz}") + END_OF_HEAD


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    return bytes((len(data), AUX << 2)) + data + bytes(len(data) % 2)


def wave_annotations(sample: np.ndarray, wave_ms: np.ndarray, samples: int, fs_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """(samples, symbols) of the waves of these rows, ( p ) ( N ) ( t ), in the order of time; those wholly inside the record."""
    at = np.rint(sample[:, None] + wave_ms * (fs_hz / 1000))  # (row, wave)
    found, symbols = [], []
    for on, peak, end, name in PEAKS:
        each = np.stack([at[:, WAVES.index(on)], at[:, WAVES.index(peak)] if peak else sample, at[:, WAVES.index(end)]], axis=1)
        whole = ((each >= 0) & (each < samples)).all(axis=1)
        found.append(np.where(whole[:, None], each, np.nan))
        symbols.append(["(", name, ")"])
    found, symbols = np.concatenate(found, axis=1), np.tile(np.concatenate(symbols), (len(sample), 1))
    there = ~np.isnan(found)
    found, symbols = found[there].astype(np.int64), symbols[there]
    order = np.argsort(found, kind="stable")
    return found[order], symbols[order]
