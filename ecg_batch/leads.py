"""The twelve leads and the four identities between them.

Einthoven (III = II - I) and Goldberger (aVR, aVL, aVF) leave eight independent leads: those are modelled, the other four
are derived, so the identities hold by construction.
"""

import sys

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MODELLED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
MODELLED_INDEX = tuple(LEADS.index(lead) for lead in MODELLED)

MV_PER_UV = 1e-3


def library_of(x):
    """numpy or torch, whichever made the array: what computes on both is written once."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


def twelve_leads(modelled):
    """All 12 leads from the 8 modelled ones: (..., 8, time) -> (..., 12, time), same unit, float or integer, numpy or torch.

    Integers stay integers: III is exact, and the halves of aVR, aVL and aVF round down, so the residual is at most half a step.
    """
    xp, i, ii = library_of(modelled), modelled[..., 0, :], modelled[..., 1, :]
    half = (lambda x: x / 2) if _is_float(modelled) else (lambda x: x // 2)
    limb = xp.stack([i, ii, ii - i, -half(i + ii), i - half(ii), ii - half(i)], -2)
    return xp.concatenate([limb, modelled[..., 2:, :]], -2)


def _is_float(x) -> bool:
    return x.dtype.kind == "f" if isinstance(x, np.ndarray) else x.dtype.is_floating_point


def identity_residual(ecg: np.ndarray) -> np.ndarray:
    """Largest violation of the four identities, in the unit of `ecg` (..., 12, time) -> (...)."""
    i, ii, iii, avr, avl, avf = (ecg[..., lead, :].astype(np.float64) for lead in range(6))
    residuals = (iii - (ii - i), avr + (i + ii) / 2, avl - (i - ii / 2), avf - (ii - i / 2))
    return np.max([np.abs(residual).max(axis=-1) for residual in residuals], axis=0)


def to_uv(ecg_mv):
    """mV -> stored integer steps, numpy or torch (int32, so a caller can still see what would not fit int16)."""
    xp = library_of(ecg_mv)
    steps = xp.round(ecg_mv / MV_PER_UV)  # halves to the even one
    return steps.astype(np.int32) if xp is np else steps.to(xp.int32)
