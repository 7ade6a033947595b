"""Compose: skeleton + alpha * texture, low-passed, bounded, as twelve leads of stored integers.

Both parts are low-passed first (the filter is linear, so it is the same as filtering their sum). Then the difference between a
record and its skeleton is alpha * texture exactly, its PRD is known before anything is written, and a record over the
limit gets less texture.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfiltfilt

from ecg_batch.leads import MV_PER_STEP, to_steps, twelve_leads

FILTER_ORDER = 4
# Sum over the 12 leads of the squared largest rounding error, in steps: 8 leads 1/2, III and aVR 1, aVL and aVF 5/4.
ROUNDING_STEPS2 = 8 * 0.5**2 + 2 * 1.0**2 + 2 * 1.25**2


@dataclass(frozen=True)
class Composed:
    """Finished records. steps: int32 (record, 12, time); prd_pct, alpha: what was reached and what was used, (record,)."""

    steps: np.ndarray
    prd_pct: np.ndarray
    alpha: np.ndarray


def low_pass(ecg_mv: np.ndarray, edge_hz: float, fs_hz: float) -> np.ndarray:
    """Zero-phase Butterworth low-pass along time: no peak moves."""
    return sosfiltfilt(butter(FILTER_ORDER // 2, edge_hz, fs=fs_hz, output="sos"), ecg_mv, axis=-1)


def compose(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float) -> Composed:
    """Adds low-passed parts, float64 (record, 8 leads, time) mV. PRD = 100 |record - skeleton| / |skeleton| over 12 leads."""
    skeleton, texture = twelve_leads(skeleton_mv), twelve_leads(texture_mv)
    share = _allowed_share(skeleton, texture, alpha, prd_limit_pct)
    mixed = skeleton_mv + (alpha * share)[:, None, None] * texture_mv
    steps = twelve_leads(to_steps(mixed))
    prd_pct = 100 * _norm(steps * MV_PER_STEP - skeleton) / np.maximum(_norm(skeleton), 1e-9)
    return Composed(steps, prd_pct, alpha * share)


def _allowed_share(skeleton: np.ndarray, texture: np.ndarray, alpha: float, prd_limit_pct: float) -> np.ndarray:
    """Share of alpha that keeps each record (record, 12, time) under the limit: (record,)."""
    rounding_mv = MV_PER_STEP * np.sqrt(ROUNDING_STEPS2 * skeleton.shape[-1])  # must not carry a record over the limit
    allowed_mv = np.maximum(prd_limit_pct / 100 * _norm(skeleton) - rounding_mv, 0.0)
    return np.minimum(1.0, allowed_mv / np.maximum(alpha * _norm(texture), 1e-9))


def allowed_alpha(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float) -> float:
    """The alpha that keeps one stretch (8 leads, time) under the limit."""
    share = _allowed_share(twelve_leads(skeleton_mv)[None], twelve_leads(texture_mv)[None], alpha, prd_limit_pct)
    return alpha * float(share[0])


def _norm(ecg: np.ndarray) -> np.ndarray:
    """Root of the sum of squares of each record: (record, lead, time) -> (record,)."""
    return np.sqrt(np.square(ecg).sum(axis=(-1, -2)))
