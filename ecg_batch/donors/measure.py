"""One record of PTB-XL: its beats, waves, skeleton and texture, or in a few words why it cannot be used."""

from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.donors.level import unit_levels
from ecg_batch.donors.loop import find_loop
from ecg_batch.donors.ptbxl import SMALLEST_UV, Entry, Release, digest_of, read_stretches
from ecg_batch.donors.recording import Unreadable
from ecg_batch.donors.split import UNLOCKED_ATRIAL, Split, split
from ecg_batch.donors.trace import trace_of
from ecg_batch.leads import MODELLED_INDEX, MV_PER_UV, identity_residual, twelve_leads
from ecg_batch.rhythm_words import NO_P
from ecg_batch.signal.beats import LEAD_II, agree, detect_beats, detect_rows, heart_rate_bpm
from ecg_batch.signal.delineate import Fiducials, delineate, r_peaks
from ecg_batch.signal.filters import band
from ecg_batch.signal.marks import stored_marks
from ecg_batch.signal.waves import wave_marks

# In 1,987 records of PTB-XL the typical QRS is at least 0.74 mV high in the lead where it is highest, and 2.1 mV in half of them.
# Divided by ten 99.4 % have under 0.5 mV. (From lowest to highest sample of a record, which counts drift, 94 % had.)
MIN_QRS_UV, QRS_HALF_S = SMALLEST_UV, 0.06
MAX_ECG_UV, MAX_TEXTURE_UV, MAX_BURST_UV = 8000, 2000, 400
BURST_BAND_HZ = (5.0, 40.0)
MAX_IDENTITY_UV = 10  # PTB-XL's own rounding leaves up to 3
FLAT_S = 1.0
MAX_BEATS = 64  # of a recording, that a bank holds
XQRS_HZ = 250  # wfdb's XQRS fed 100 Hz directly is wrong half of the time
TOO_SMALL = f"QRS under {MIN_QRS_UV / 1000:g} mV in every lead"


@dataclass(frozen=True)
class Usable:
    """A record that can be a donor: R samples, the fiducials of its typical beat, its loop (samples)."""

    entry: Entry
    hr_bpm: float
    beats: np.ndarray
    types: np.ndarray  # of beats, 0 the most frequent
    fiducials: Fiducials
    loop: tuple[int, int]
    shift_ms: dict[str, float]  # of R, PR, QRS and QT from donor to skeleton
    digest: bytes  # of the recording
    unit_level: np.ndarray  # of its texture, beat by beat: level.py
    wave_ms: np.ndarray  # of its beats, from R: int16 (MAX_BEATS, mark), as marks.py stores them
    unfit: str = ""  # why it is no donor, although its texture is known: noise is what texture is
    start_s: float = 0.0  # of the ten seconds, in a recording that is longer
    trace: np.ndarray | None = None  # of a release of several registries: see trace.py


def measure(release: Release, entry: Entry) -> tuple[Usable, Split] | str:
    """Reads, measures and splits one record, or says in a few words why it cannot be used.

    Of a recording that is longer it is the first ten seconds that can be a donor; else the first whose texture is known; else the
    reason is that of its beginning.
    """
    if fault := entry_fault(entry):
        return fault
    found, textured = [], []
    try:
        for start_s, ecg in read_stretches(release, entry):
            result = _measured_or_why(ecg, entry, release)
            if isinstance(result, str):
                found.append(result)
                continue
            trace = trace_of(ecg, release.fs_hz) if release.folders else None
            textured.append((replace(result[0], start_s=start_s, trace=trace), result[1]))
            if not result[0].unfit:
                return textured[-1]
    except Unreadable as error:
        return str(error)
    return [*textured, *found][0]


def _measured_or_why(ecg: np.ndarray, entry: Entry, release: Release) -> tuple[Usable, Split] | str:
    try:
        return signal_fault(ecg, release.fs_hz) or _measured(ecg, entry, release.fs_hz)
    except Exception as error:  # one odd record of 20,000 must not end all, whatever it makes a detector do
        return f"cannot be measured ({type(error).__name__}: {error!s:.80})"


def entry_fault(entry: Entry) -> str | None:
    """What its row of the table lacks to be a donor, or None."""
    if not np.isfinite(entry.age) or entry.sex not in (0, 1):
        return "age or sex unknown"
    return None if entry.scp_codes else entry.unsaid or "no SCP statement"


def signal_fault(ecg: np.ndarray, fs_hz: float) -> str | None:
    """What makes an ECG unusable as it stands, int16 microvolts (12 leads, time), or None."""
    if np.ptp(ecg.astype(np.int32), axis=1).max() < MIN_QRS_UV:
        return TOO_SMALL
    if np.abs(ecg.astype(np.int32)).max() > MAX_ECG_UV:
        return f"amplitude over {MAX_ECG_UV / 1000:g} mV"
    if identity_residual(ecg) > MAX_IDENTITY_UV:
        return "limb leads contradict each other"
    if longest_run(ecg) >= FLAT_S * fs_hz:
        return "a lead is flat for a second or more"
    return None


def longest_run(ecg: np.ndarray) -> int:
    """Samples of the longest stretch without any change in one lead: (lead, time)."""
    changes = np.pad(np.diff(ecg, axis=1) != 0, [(0, 0), (1, 1)], constant_values=True)  # a lead's ends end what lasts to them
    return int(np.diff(np.flatnonzero(changes)).max())


def _measured(ecg: np.ndarray, entry: Entry, fs_hz: int) -> tuple[Usable, Split] | str:
    modelled = ecg[list(MODELLED_INDEX)]
    modelled_mv = modelled * MV_PER_UV
    by_lead = detect_rows(modelled_mv, fs_hz)
    beats = detect_beats(modelled_mv, fs_hz, by_lead)
    hr_bpm = heart_rate_bpm(beats, fs_hz)
    if len(beats) < 4:
        return "fewer than four beats found"
    if qrs_height_uv(modelled, beats, fs_hz) < MIN_QRS_UV:
        return TOO_SMALL
    if not _confirmed(modelled_mv, by_lead[LEAD_II], hr_bpm, fs_hz):
        return "heart rate unclear: the vote of eight leads against other detections"
    parts = split(modelled, beats, fs_hz, keep_atrial=bool(UNLOCKED_ATRIAL & set(entry.scp_codes)))
    typical = parts.beats[parts.types == 0]
    if len(typical) < 3:
        return "no three beats alike"
    fiducials = delineate(parts.skeleton, typical, fs_hz)
    loop = find_loop(parts.skeleton, parts.beats, fiducials, fs_hz)
    if loop is None:
        return "no loop of three whole beats"
    shift_ms = _shift_ms(modelled, parts, fiducials, fs_hz)
    unfit = texture_fault(parts.texture, fs_hz) or ""
    level = unit_levels(parts.texture, parts.beats[:MAX_BEATS], fs_hz, MAX_BEATS)
    waves = stored_marks(wave_marks_of(modelled, parts, fs_hz, frozenset(entry.scp_codes)), MAX_BEATS)
    return Usable(entry, hr_bpm, parts.beats, parts.types, fiducials, loop, shift_ms, digest_of(ecg), level, waves, unfit), parts


def wave_marks_of(modelled: np.ndarray, parts: Split, fs_hz: float, statements: frozenset[str] = frozenset()) -> np.ndarray:
    """wave_marks of the recording itself: the skeleton's P and T are its typical beats too, and its QRS are as recorded."""
    return wave_marks(twelve_leads(modelled * MV_PER_UV), parts.beats, parts.types, fs_hz, not NO_P & statements)


def texture_fault(texture: np.ndarray, fs_hz: float) -> str | None:
    """What makes a record no donor although its beats are clear, int16 microvolts (lead, time), or None."""
    if np.abs(texture).max() > MAX_TEXTURE_UV:
        return f"drift or artefact over {MAX_TEXTURE_UV / 1000:g} mV"
    if np.abs(band(texture, BURST_BAND_HZ, fs_hz)).max() > MAX_BURST_UV:
        return f"a beat or artefact over {MAX_BURST_UV / 1000:g} mV that recurs nowhere"
    return None


def _confirmed(modelled_mv: np.ndarray, beats_of_ii: np.ndarray, hr_bpm: float, fs_hz: float) -> bool:
    """Whether two other detections give this heart rate: of sleepecg's and XQRS's, in lead II and on the length of all leads.

    In lead II alone a wide or small beat is missed, a pacing spike counted: that lost half of the holders of bigeminy, trigeminy,
    complete block and pacing, whose beats a person sees at once.
    """
    length_mv = np.linalg.norm(modelled_mv - np.median(modelled_mv, axis=1, keepdims=True), axis=0)
    asked = (  # XQRS last: it takes fifty times as long, and two that agree decide, whichever they are
        lambda: beats_of_ii,
        lambda: detect_rows(length_mv[None], fs_hz)[0],
        lambda: _xqrs(modelled_mv[LEAD_II], fs_hz),
        lambda: _xqrs(length_mv, fs_hz),
    )
    agreed = (agree(hr_bpm, heart_rate_bpm(detection(), fs_hz)) for detection in asked)
    return any(agreed) and any(agreed)  # the second goes on where the first found one


def qrs_height_uv(modelled: np.ndarray, beats: np.ndarray, fs_hz: float) -> float:
    """Median over beats from lowest to highest sample about R, in the lead where it is largest: (lead, time), R samples (beat,)."""
    around = np.arange(-round(QRS_HALF_S * fs_hz), round(QRS_HALF_S * fs_hz) + 1)
    at = np.clip(beats[:, None] + around, 0, modelled.shape[1] - 1)  # (beat, time)
    return float(np.median(np.ptp(modelled[:, at].astype(np.int32), axis=2), axis=1).max())


def _shift_ms(modelled: np.ndarray, parts: Split, fiducials: Fiducials, fs_hz: int) -> dict[str, float]:
    """How far R, PR, QRS and QT of the skeleton are from those of the donor, found in the same way."""
    typical = parts.beats[parts.types == 0]
    skeleton, donor = fiducials.intervals_ms(fs_hz), delineate(modelled, typical, fs_hz).intervals_ms(fs_hz)
    r_shift = r_peaks(parts.skeleton, parts.beats, fs_hz) - r_peaks(modelled, parts.beats, fs_hz)
    return {"R": 1000 * float(np.median(np.abs(r_shift))) / fs_hz} | {name: skeleton[name] - donor[name] for name in donor}


def _xqrs(lead_mv: np.ndarray, fs_hz: float) -> np.ndarray:
    """R samples by wfdb's XQRS, which wants 250 Hz."""
    from scipy.signal import resample_poly
    from wfdb.processing import xqrs_detect

    resampled = resample_poly(lead_mv, XQRS_HZ, int(fs_hz))
    return xqrs_detect(resampled, XQRS_HZ, verbose=False) * fs_hz / XQRS_HZ
