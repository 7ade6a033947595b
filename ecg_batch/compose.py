"""Compose: skeleton + alpha * texture, low-passed, bounded, as twelve leads of stored integers.

Both parts are low-passed first (the filter is linear, so it is the same as filtering their sum). Then the difference between a
record and its skeleton is alpha * texture exactly, its PRD is known before anything is written, and a record over the
limit gets less texture.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfiltfilt

from ecg_batch import finish_kernel
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
    if finish_kernel.library():
        return finish_kernel.filtfilt(ecg_mv, finish_kernel.sections(FILTER_ORDER // 2, edge_hz, "lowpass", fs_hz))
    return plain_low_pass(ecg_mv, edge_hz, fs_hz)


def plain_low_pass(ecg_mv: np.ndarray, edge_hz: float, fs_hz: float) -> np.ndarray:
    """low_pass in scipy: the reference, and what runs where no kernel does."""
    return sosfiltfilt(butter(FILTER_ORDER // 2, edge_hz, fs=fs_hz, output="sos"), ecg_mv, axis=-1)


def compose(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float) -> Composed:
    """Adds low-passed parts, float64 (record, 8 leads, time) mV. PRD = 100 |record - skeleton| / |skeleton| over 12 leads."""
    if finish_kernel.library():
        rounding_mv = rounding_bound_mv(skeleton_mv.shape[-1])
        return Composed(*finish_kernel.compose(skeleton_mv, texture_mv, alpha, prd_limit_pct, rounding_mv))
    return plain_compose(skeleton_mv, texture_mv, alpha, prd_limit_pct)


def rounding_bound_mv(samples: int) -> float:
    """The most that rounding to steps can move a record of so many samples: it must not carry one over the limit."""
    return MV_PER_STEP * np.sqrt(ROUNDING_STEPS2 * samples)


def plain_compose(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float) -> Composed:
    """compose in numpy: the reference, and what runs where no kernel does."""
    share = _allowed_share(skeleton_mv, texture_mv, alpha, prd_limit_pct)
    mixed = skeleton_mv + (alpha * share)[:, None, None] * texture_mv
    steps = twelve_leads(to_steps(mixed))
    error_mv = steps * MV_PER_STEP - twelve_leads(skeleton_mv)  # rounding included
    error = np.sqrt(np.einsum("rlt,rlt->r", error_mv, error_mv))
    return Composed(steps, 100 * error / np.maximum(norm(skeleton_mv), 1e-9), alpha * share)


def _allowed_share(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float) -> np.ndarray:
    """Share of alpha that keeps each record (record, 8 leads, time) under the limit: (record,)."""
    allowed_mv = np.maximum(prd_limit_pct / 100 * norm(skeleton_mv) - rounding_bound_mv(skeleton_mv.shape[-1]), 0.0)
    return np.minimum(1.0, allowed_mv / np.maximum(alpha * norm(texture_mv), 1e-9))


def allowed_alpha(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float) -> float:
    """The alpha that keeps one stretch (8 leads, time) under the limit."""
    return alpha * float(_allowed_share(skeleton_mv[None], texture_mv[None], alpha, prd_limit_pct)[0])


def norm(modelled: np.ndarray) -> np.ndarray:
    """Root of the sum of squares over all 12 leads, from the 8 modelled ones: (record, 8, time) -> (record,).

    The squares of I, II, III, aVR, aVL and aVF add up to 3.5 (I^2 + II^2 - I II), by their identities.
    """
    squares = np.einsum("rlt,rlt->rl", modelled, modelled)
    product = np.einsum("rt,rt->r", modelled[:, 0], modelled[:, 1])
    return np.sqrt(3.5 * (squares[:, 0] + squares[:, 1] - product) + squares[:, 2:].sum(axis=1))
