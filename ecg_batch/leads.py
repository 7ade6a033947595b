"""The twelve leads and the four identities between them.

Einthoven (III = II - I) and Goldberger (aVR, aVL, aVF) leave eight independent leads: those are modelled, the other four
are derived, so the identities hold by construction.
"""

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MODELLED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
MODELLED_INDEX = tuple(LEADS.index(lead) for lead in MODELLED)

UV_PER_STEP = 1  # stored integers are microvolts: int16 then spans +-32.767 mV
MV_PER_STEP = 1e-3


def twelve_leads(modelled: np.ndarray) -> np.ndarray:
    """All 12 leads from the 8 modelled ones: (..., 8, time) -> (..., 12, time), same unit, float or integer.

    Integers stay integers: III is exact, and the halves of aVR, aVL and aVF round down, so the residual is at most half a step.
    """
    i, ii = modelled[..., 0, :], modelled[..., 1, :]
    half = (lambda x: x // 2) if np.issubdtype(modelled.dtype, np.integer) else (lambda x: x / 2)
    limb = np.stack([i, ii, ii - i, -half(i + ii), i - half(ii), ii - half(i)], axis=-2)
    return np.concatenate([limb, modelled[..., 2:, :]], axis=-2)


def identity_residual(ecg: np.ndarray) -> np.ndarray:
    """Largest violation of the four identities, in the unit of `ecg` (..., 12, time) -> (...)."""
    i, ii, iii, avr, avl, avf = (ecg[..., lead, :].astype(np.float64) for lead in range(6))
    residuals = (iii - (ii - i), avr + (i + ii) / 2, avl - (i - ii / 2), avf - (ii - i / 2))
    return np.max([np.abs(residual).max(axis=-1) for residual in residuals], axis=0)


def to_steps(ecg_mv: np.ndarray) -> np.ndarray:
    """mV -> stored integer steps (int32, so a caller can still see what would not fit int16)."""
    return np.rint(ecg_mv / MV_PER_STEP).astype(np.int32)
