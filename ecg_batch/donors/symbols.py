"""WFDB's symbols of the beats of donors: a shape and an interval, and what their statements speak of."""

import numpy as np

from ecg_batch.donors.split import UNLOCKED_ATRIAL
from ecg_batch.donors.usable import MIN_BEATS
from ecg_batch.rhythm_words import NO_P

PREMATURE = 0.85  # of the median RR: earlier beats of a donor with ectopic beats are those
VENTRICULAR, ATRIAL, IRREGULAR = frozenset({"PVC", "BIGU", "TRIGU"}), frozenset({"PAC"}), NO_P


def held(codes: tuple[str, ...], likelihood: np.ndarray, wanted: frozenset[str] | set[str]) -> np.ndarray:
    """Which donors hold one of the wanted statements: bool (donor,). codes (code,), likelihood (donor, code): of a bank's table."""
    return (likelihood[:, [codes.index(code) for code in sorted(wanted) if code in codes]] >= 0).any(axis=1)


def symbols_of(codes: tuple[str, ...], likelihood: np.ndarray, r: np.ndarray, types: np.ndarray) -> np.ndarray:
    """WFDB symbol of each beat, r and types (donor, beat), -1 is none; "" where a beat is neither of the main rhythm nor what the
    donor's statements speak of. codes, likelihood: see held.
    """
    ventricular, atrial, irregular, unlocked = (
        held(codes, likelihood, wanted)[:, None] for wanted in (VENTRICULAR, ATRIAL, IRREGULAR, UNLOCKED_ATRIAL)
    )
    rr = np.diff(r).astype(np.float64)
    premature = np.insert(rr < PREMATURE * _median(rr, r[:, 1:] >= 0)[:, None], 0, False, axis=1) | irregular
    recurs = np.zeros(types.shape, bool)  # a shape that is seen once or twice in 10 s would come hundreds of times an hour
    for kind in range(types.max() + 1):
        recurs |= (types == kind) & ((types == kind).sum(axis=1, keepdims=True) >= MIN_BEATS)
    symbol = np.where((types == 0) | (recurs & ~premature & ~ventricular), "N", "")
    symbol = np.where(ventricular & (types > 0) & premature, "V", symbol)
    return np.where(atrial & ~unlocked & (types == 0) & premature, "A", symbol)


def _median(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Of the valid ones of each row; 0 where there are none."""
    count, ordered = valid.sum(axis=1), np.sort(np.where(valid, values, np.inf), axis=1)
    low, high = (np.take_along_axis(ordered, at[:, None], axis=1)[:, 0] for at in (np.maximum(count - 1, 0) // 2, count // 2))
    return np.where(count > 0, (low + high) / 2, 0)
