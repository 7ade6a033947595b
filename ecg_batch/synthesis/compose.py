"""Compose: skeleton + alpha * texture, bounded, as twelve leads of stored integers.

The one composer, for arrays of numpy and tensors of torch.

Both parts come low-passed (the filter is linear, so it is the same as filtering their sum). Then the difference between a
record and its skeleton is alpha * texture exactly, its PRD is known before anything is written, and a record over the
limit gets less texture.
"""

from dataclasses import dataclass

import numpy as np

from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.leads import MV_PER_UV, library_of, to_uv, twelve_leads

# Sum over the 12 leads of the squared largest rounding error, in steps: 8 leads 1/2, III and aVR 1, aVL and aVF 5/4.
ROUNDING_UV2 = 8 * 0.5**2 + 2 * 1.0**2 + 2 * 1.25**2
LEAST_MV = 1e-9  # instead of a division by nothing
UNLIMITED_PCT = 1e9


@dataclass(frozen=True)
class Composed:
    """Finished records. ecg_uv: int32 (record, 12, time); prd_pct, alpha: what was reached and what was used, (record,)."""

    ecg_uv: np.ndarray
    prd_pct: np.ndarray
    alpha: np.ndarray


def compose(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None) -> Composed:
    """Adds low-passed parts, float64 (record, 8 leads, time) mV. PRD = 100 |record - skeleton| / |skeleton| over 12 leads.

    Without a limit every record gets alpha. Arrays of numpy go through the compiled kernel where there is one; tensors stay on
    their device.
    """
    if isinstance(skeleton_mv, np.ndarray) and finish_kernel.library():
        limit_pct, rounding_mv = prd_limit_pct or UNLIMITED_PCT, rounding_bound_mv(skeleton_mv.shape[-1])
        return Composed(*finish_kernel.compose(skeleton_mv, texture_mv, alpha, limit_pct, rounding_mv))
    return plain_compose(skeleton_mv, texture_mv, alpha, prd_limit_pct)


def plain_compose(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None) -> Composed:
    """compose in numpy or torch: the reference, and what runs where no kernel does."""
    xp = library_of(skeleton_mv)
    mixed, used = mix(skeleton_mv, texture_mv, alpha, prd_limit_pct)
    ecg_uv = twelve_leads(to_uv(mixed))
    error_mv = xp.asarray(ecg_uv, dtype=skeleton_mv.dtype) * MV_PER_UV - twelve_leads(skeleton_mv)  # rounding included
    error = xp.sqrt(xp.einsum("rlt,rlt->r", error_mv, error_mv))
    return Composed(ecg_uv, 100 * error / norm(skeleton_mv).clip(min=LEAST_MV), used)


def mix(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None):
    """(skeleton + used * texture, not yet rounded; used (record,)): at most alpha, and no more than keeps the limit."""
    used = alpha * _allowed_share(skeleton_mv, texture_mv, alpha, prd_limit_pct)
    return skeleton_mv + used[:, None, None] * texture_mv, used


def _allowed_share(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None):
    """Share of alpha that keeps each record (record, 8 leads, time) under the limit: (record,)."""
    limit_mv = (prd_limit_pct or UNLIMITED_PCT) / 100 * norm(skeleton_mv)
    allowed_mv = (limit_mv - rounding_bound_mv(skeleton_mv.shape[-1])).clip(min=0.0)
    return (allowed_mv / (alpha * norm(texture_mv)).clip(min=LEAST_MV)).clip(max=1.0)


def allowed_alpha(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float | None) -> float:
    """The alpha that keeps one stretch (8 leads, time) under the limit."""
    return alpha * float(_allowed_share(skeleton_mv[None], texture_mv[None], alpha, prd_limit_pct)[0])


def rounding_bound_mv(samples: int) -> float:
    """The most that rounding to microvolts can move a record of so many samples: it must not carry one over the limit."""
    return MV_PER_UV * float(np.sqrt(ROUNDING_UV2 * samples))


def norm(modelled):
    """Root of the sum of squares over all 12 leads, from the 8 modelled ones: (record, 8, time) -> (record,).

    The squares of I, II, III, aVR, aVL and aVF add up to 3.5 (I^2 + II^2 - I II), by their identities.
    """
    xp = library_of(modelled)
    squares = xp.einsum("rlt,rlt->rl", modelled, modelled)
    product = xp.einsum("rt,rt->r", modelled[:, 0], modelled[:, 1])
    return xp.sqrt(3.5 * (squares[:, 0] + squares[:, 1] - product) + squares[:, 2:].sum(1))
