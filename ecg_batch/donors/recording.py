"""One recording of twelve leads in WFDB's format as integers of 1 uV, or the reason why it cannot be had.

A header says how samples become volts and what they sum up to. Both are used: what is not calibrated in volts, or is not what its
header's checksums say, is not read. Format: https://wfdb.io/spec/header-files.html
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ecg_batch.leads import LEADS, MV_PER_UV

RECORD_S = 10  # every record of PTB-XL
MOST_WINDOWS = 30  # five minutes of a longer recording are looked at
MOST_SAMPLES, MOST_HZ = 1_000_000, 20_000  # of a lead, a quarter of an hour at 1 kHz: 100 MB of mV
MOST_FILE_BYTES = 100_000_000
MOST_RATIO = 1000  # of rates, in a resampling: 1e-6 off at most, which is 10 us in ten seconds
MV_PER_UNIT = {"mV": 1.0, "mv": 1.0, "uV": 1e-3, "uv": 1e-3, "µV": 1e-3, "μV": 1e-3, "V": 1e3, "v": 1e3}
SIGNAL_LINE = re.compile(r"(\S+)\s+(\S+)(?:\s+([-+.0-9eE]+)(?:\([-+]?[0-9]+\))?(?:/(\S+))?)?(?:\s.*)?")
PLAIN_RECORD = re.compile(r"[\w-]+[ \t]+(\d{1,3})[ \t]+(\d{1,5})[ \t]+(\d{1,8})(?:[ \t].*)?", re.ASCII)
PLAIN_SIGNAL = re.compile(  # file, offset, gain, baseline, ADC zero, checksum, lead
    r"([\w.-]+)[ \t]+16(?:x1)?(?:\+(\d{1,6}))?[ \t]+(\d{1,9}(?:\.\d{0,9})?)(?:\((-?\d{1,6})\))?/\S+[ \t]+\d{1,2}"
    r"[ \t]+(-?\d{1,6})[ \t]+-?\d{1,6}[ \t]+(-?\d{1,6})[ \t]+\d{1,6}[ \t]+(\w+)", re.ASCII,
)  # fmt: skip
MISSING = -32768  # a sample of 16 bits that is none
MOST_BYTES = 100_000  # of a header: PTB-XL's have 600


class Unreadable(ValueError):
    """A recording that cannot be used; its text is the reason in a few words, the same words for the same reason."""


def read_recording(path: Path, fs_hz: int) -> np.ndarray:
    """int16 (12 leads in our order, time), of ten seconds at this rate. path: without suffix. Raises Unreadable only."""
    with _in_words(path):
        return _read(path, fs_hz)


def read_windows(path: Path, fs_hz: int) -> Iterator[tuple[float, np.ndarray]]:
    """The ten-second stretches of a recording of any rate, brought to this one, one after another from its beginning: (second at
    which it begins, as read_recording). Those in which a sample is missing are left out. Raises Unreadable only.

    What is shorter than ten seconds is not read: a bank's arrays hold ten, texture to their end, and the rest would be invented.
    A lower rate is not read either, since what lies above half of it is not there.
    """
    with _in_words(path):
        ecg_mv, rate_hz = _read_whole(path, fs_hz)
        length = round(RECORD_S * rate_hz)
        starts = [round(RECORD_S * rate_hz * at) for at in range(MOST_WINDOWS)]
        whole = [at for at in starts if at + length <= ecg_mv.shape[1]]
        resampled = _resampled(ecg_mv, rate_hz, fs_hz)
        windows = [resampled[:, (begin := round(at / rate_hz * fs_hz)) : begin + RECORD_S * fs_hz] for at in whole]
        complete = [(at, window) for at, window in zip(whole, windows, strict=True)
                    if window.shape[1] == RECORD_S * fs_hz and np.isfinite(window).all()]  # fmt: skip
        if not complete:
            raise Unreadable("missing samples")
    for at, window in complete:
        yield at / rate_hz, in_uv(window)


def _read_whole(path: Path, fs_hz: int) -> tuple[np.ndarray, float]:
    """(mV (12 leads in our order, time), Hz) as recorded, up to the last stretch that is looked at."""
    text = _header_text(path.with_name(f"{path.name}.hea"))
    mv_per_unit = _calibration(path, text)
    header = _plain_header(text) or _wfdb_header(path)
    if not fs_hz <= header.fs_hz <= MOST_HZ:
        raise Unreadable(f"{header.fs_hz:g} Hz, under {fs_hz}" if header.fs_hz < fs_hz else f"over {MOST_HZ:,} Hz")
    if (header.samples or 0) > MOST_SAMPLES:
        raise Unreadable(f"over {MOST_SAMPLES:,} samples a lead")
    if any(path.with_name(line.split()[0]).stat().st_size > MOST_FILE_BYTES for line in _lines(text)[1:]):
        raise Unreadable(f"a file of over {MOST_FILE_BYTES // 10**6} MB")
    if header.samples and header.samples < round(RECORD_S * header.fs_hz):
        raise Unreadable(f"shorter than {RECORD_S} s")
    at = lead_positions(header.names)
    ecg = _signals(path, header, header.samples)[: round(RECORD_S * MOST_WINDOWS * header.fs_hz), at].T
    if ecg.shape[1] < round(RECORD_S * header.fs_hz):
        raise Unreadable(f"shorter than {RECORD_S} s")
    return ecg * np.array(mv_per_unit)[at][:, None], header.fs_hz


def _resampled(ecg_mv: np.ndarray, rate_hz: float, fs_hz: int) -> np.ndarray:
    """(lead, time) at another rate, by scipy's polyphase filter; beyond the ends it goes on as the first and last sample."""
    if rate_hz == fs_hz:
        return ecg_mv
    from scipy.signal import resample_poly

    ratio = Fraction(fs_hz / rate_hz).limit_denominator(MOST_RATIO)
    return resample_poly(ecg_mv, ratio.numerator, ratio.denominator, axis=1, padtype="edge")


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:  # a reader of other people's files raises what it likes
        sentence = " ".join(str(error).replace(str(path.parent), "").replace(path.name, "").split())
        raise Unreadable(f"unreadable ({type(error).__name__}: {sentence:.80})") from error


@dataclass(frozen=True)
class Header:
    """What a header says of its signals. samples: None where it does not say; plain: (file, offset in bytes) of int16 samples."""

    fs_hz: float
    samples: int | None
    names: list[str | None]
    checksums: list[int | None]
    gain: np.ndarray  # steps a unit
    baseline: np.ndarray
    plain: tuple[str, int] | None = None


def _read(path: Path, fs_hz: int) -> np.ndarray:
    text = _header_text(path.with_name(f"{path.name}.hea"))
    mv_per_unit = _calibration(path, text)
    header = _plain_header(text) or _wfdb_header(path)
    if round(header.fs_hz) != fs_hz:
        raise Unreadable(f"{header.fs_hz:g} Hz, not {fs_hz}")
    if header.samples not in (None, RECORD_S * fs_hz):
        raise Unreadable(f"not {RECORD_S} s long")
    at = lead_positions(header.names)
    ecg_mv = _signals(path, header, RECORD_S * fs_hz).T[at]  # (lead, time), in the header's units
    scale = np.array(mv_per_unit)[at]
    if (scale != 1).any():
        ecg_mv = ecg_mv * scale[:, None]
    if not np.isfinite(ecg_mv).all():
        raise Unreadable("missing samples")
    return in_uv(ecg_mv)


def in_uv(ecg_mv: np.ndarray) -> np.ndarray:
    """mV as int16 microvolts; what lies beyond becomes the largest."""
    return np.clip(np.rint(ecg_mv / MV_PER_UV), -32768, 32767).astype(np.int16)


def _header_text(path: Path) -> str:
    """A header as text, read here because wfdb drops what is no ASCII: to it, µV is V."""
    if not path.is_file():
        raise Unreadable("no header")
    if path.stat().st_size > MOST_BYTES:
        raise Unreadable("a header of over 100 kB")
    return path.read_bytes().decode("utf-8", errors="replace")


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def _plain_header(text: str) -> Header | None:
    """The header of samples of 16 bits in one file, as nearly all are; None for any other, which wfdb reads: that takes 7 ms.

    What follows the number of samples (a date) is not looked at. wfdb refuses those of the challenge of 2020: 12-May-2020.
    """
    record, *signals = _lines(text) or [""]
    said, found = PLAIN_RECORD.fullmatch(record), [PLAIN_SIGNAL.fullmatch(line) for line in signals]
    if not said or not all(found) or len(found) != int(said[1]) or len({one.group(1, 2) for one in found}) != 1:
        return None
    return Header(
        fs_hz=float(said[2]),
        samples=int(said[3]),
        names=[one[7] for one in found],
        checksums=[int(one[6]) for one in found],
        gain=np.array([float(one[3]) for one in found]),
        baseline=np.array([int(one[4] or one[5]) for one in found]),
        plain=(found[0][1], int(found[0][2] or 0)),
    )


def _wfdb_header(path: Path) -> Header:
    import wfdb

    header = wfdb.rdheader(str(path))
    if not isinstance(header, wfdb.Record):
        raise Unreadable("made of segments")
    return Header(header.fs, header.sig_len, header.sig_name or [], header.checksum, header.adc_gain, header.baseline)


def _signals(path: Path, header: Header, samples: int | None) -> np.ndarray:
    """float64 (time, signal) in the header's units, NaN where a sample is missing; held against this length and the checksums."""
    steps = _plain_steps(path, header) if header.plain else None
    if steps is None:
        import wfdb

        record = wfdb.rdrecord(str(path), physical=False)
        steps, sums = record.d_signal, record.calc_checksum()
    else:
        sums = np.sum(steps, axis=0, dtype=np.int64) % 65536
    if samples and len(steps) != samples:
        raise Unreadable(f"not {samples / header.fs_hz:g} s long")
    if any(said is not None and (said - found) % 65536 for said, found in zip(header.checksums, sums, strict=True)):
        raise Unreadable("its samples are not those that the header's checksums tell of")
    if not header.plain:
        return record.dac()
    values = (steps - header.baseline) / header.gain
    values[steps == MISSING] = np.nan
    return values


def _plain_steps(path: Path, header: Header) -> np.ndarray | None:
    """int16 (time, signal); None where the file is too short, of which wfdb says what it thinks."""
    name, offset = header.plain
    count = header.samples * len(header.names)
    steps = np.fromfile(path.with_name(name), "<i2", count, offset=offset)
    return steps.reshape(header.samples, -1) if len(steps) == count else None


def _calibration(path: Path, text: str) -> list[float]:
    """mV a unit of each signal of a header.

    Raises Unreadable where a gain is 0 or absent, for which wfdb takes 200 steps a mV, and where the samples lie elsewhere.
    """
    mv_per_unit, there = [], set()
    for line in _lines(text)[1:]:
        found = SIGNAL_LINE.fullmatch(line)
        if not found:
            raise Unreadable("a line of the header that describes no signal")
        name, _, gain, unit = found.groups()
        if name not in there and (not re.fullmatch(r"[\w.-]+", name) or not path.with_name(name).is_file()):
            raise Unreadable("no file of samples beside the header")
        there.add(name)
        if gain is None or not _is_gain(gain):
            raise Unreadable("not calibrated: gain 0 or absent")
        if (unit or "mV") not in MV_PER_UNIT:
            raise Unreadable("not calibrated in mV, uV or V")
        mv_per_unit.append(MV_PER_UNIT[unit or "mV"])
    return mv_per_unit


def _is_gain(text: str) -> bool:
    try:
        return np.isfinite(float(text)) and float(text) > 0
    except ValueError:
        return False


def lead_positions(signals: list[str | None]) -> list[int]:
    """Where our twelve leads are among the header's signals."""
    names = [re.sub(r"^(ecg|lead)[ _]+", "", (name or "").lower()).strip() for name in signals]
    wanted = [lead.lower() for lead in LEADS]
    if missing := [lead for lead, name in zip(LEADS, wanted, strict=True) if name not in names]:
        raise Unreadable(f"no lead {', '.join(missing)}" if len(missing) < len(LEADS) else "no lead names")
    if any(names.count(name) > 1 for name in wanted):
        raise Unreadable("two leads of one name")
    return [names.index(name) for name in wanted]
