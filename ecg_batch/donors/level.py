"""How loud texture is under each beat, lead by lead and band by band."""

import numpy as np

from ecg_batch.donors.split import BEFORE_R_RR, BEFORE_R_S, END_S, QRS_S
from ecg_batch.signal.filters import band
from ecg_batch.signal.noise import LEVEL_BANDS_HZ, LEVEL_STEP, NO_UNIT

SILENCE_UV = 0.5  # added to the RMS: what rounding leaves


def tp_before_r(rr: np.ndarray, fs_hz: float) -> np.ndarray:
    """How long before R a beat's cell begins, samples, of the RR before it."""
    return np.minimum(BEFORE_R_S * fs_hz, BEFORE_R_RR * rr).astype(np.int64)


def unit_levels(texture: np.ndarray, r: np.ndarray, fs_hz: float, most: int) -> np.ndarray:
    """Level of a texture (lead, time) in microvolts under each beat, from TP to TP without the QRS, where texture is silent.

    int8 (most, lead, band) in steps of the logarithm of the RMS (signal/noise.py). Row i is of beat i + 1: the first and the last
    beat, whose cells the ends of the recording may cut, have none; NO_UNIT in what is left.
    """
    end, before, after = round(END_S * fs_hz), round(-QRS_S[0] * fs_hz), round(QRS_S[1] * fs_hz)
    counts = np.ones(texture.shape[-1])
    counts[:end] = counts[-end:] = 0
    for beat in r:
        counts[max(beat - before, 0) : beat + after + 1] = 0
    x = texture.astype(np.float64)
    parts = [band(x, (low, high), fs_hz) if high else x - band(x, (None, low), fs_hz) for low, high in LEVEL_BANDS_HZ]
    power = _running_sum(np.square(np.stack(parts, axis=1)) * counts)  # (lead, band, time + 1)
    begins = r[1:] - tp_before_r(np.diff(r), fs_hz)  # of each cell but the first
    start, stop = begins[:-1], begins[1:]
    samples = np.maximum(_running_sum(counts)[stop] - _running_sum(counts)[start], 1)
    level = np.log(np.sqrt((power[..., stop] - power[..., start]) / samples) + SILENCE_UV)  # (lead, band, beat)
    out = np.full((most, *level.shape[:2]), NO_UNIT, np.int8)
    whole = min(len(start), most)
    out[:whole] = np.clip(np.rint(level / LEVEL_STEP), NO_UNIT + 1, 127).transpose(2, 0, 1)[:whole]
    return out


def _running_sum(x: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2 ... samples: (..., time) -> (..., time + 1)."""
    return np.concatenate([np.zeros((*x.shape[:-1], 1)), np.cumsum(x, axis=-1)], axis=-1)
