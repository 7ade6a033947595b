"""The codes in which a Mamba writes which beat comes next, and when (model.py).

A code stands for the type of a beat and for the RR before it, over the mean RR: steps of 1 % where most lie, wider ones beyond. The
condition of a sequence is which statements of rhythm its record holds, its mean RR and its patient's age. What is slow, as the day
or breathing, is not in a code: synthesis/long/rhythm.py moves the mean.
"""

import json
import math

import numpy as np

SYMBOLS = ("N", "V", "A")  # WFDB's
STATEMENTS = ("SR", "SARRH", "SBRAD", "STACH", "AFIB", "AFLT", "SVTAC", "PSVT", "SVARR", "PACE", "BIGU", "TRIGU", "PVC", "PAC",
              "1AVB", "2AVB", "3AVB")  # fmt: skip
# Where steps end: logarithms of RR over its mean, and the same below it
_ABOVE = [*(at / 100 for at in range(12)), *(0.12 + 0.03 * at for at in range(12)), *(0.48 + 0.09 * at for at in range(9))]
EDGES = np.array(sorted({round(sign * at, 2) for at in _ABOVE for sign in (-1, 1)}))
STEPS = len(EDGES) + 1
CODES = len(SYMBOLS) * STEPS
_RATIOS = np.array([round(math.exp(at), 6) for at in [EDGES[0] - 0.09, *EDGES, EDGES[-1] + 0.09]])  # the same on any machine
USUAL_RR_S, USUAL_AGE = 0.8, 60.0
ALPHABET = json.dumps({"symbols": SYMBOLS, "statements": STATEMENTS, "edges": EDGES.tolist()})  # as weight files state it


def codes_of(symbol: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Codes int64 of beats (beat,): symbol, an index into SYMBOLS, and the RR before each over the mean."""
    return symbol * STEPS + np.searchsorted(EDGES, np.log(ratio))


def beats_of(codes: np.ndarray, uniforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index into SYMBOLS, RR over its mean) of each code; within a step by a uniform number of [0, 1)."""
    symbol, step = np.divmod(codes, STEPS)
    return symbol, _RATIOS[step] + uniforms * (_RATIOS[step + 1] - _RATIOS[step])


def said(held: np.ndarray, mean_rr_s: np.ndarray, age: np.ndarray) -> np.ndarray:
    """What a condition is made of, float32 (b, said): held bool (b, statement) of STATEMENTS; seconds; years, NaN not known."""
    rr = np.array([math.log(one / USUAL_RR_S) for one in mean_rr_s]) / 0.25
    age = (np.clip(np.where(np.isnan(age), USUAL_AGE, age), 0, 100) - USUAL_AGE) / 20
    return np.concatenate([held, rr[:, None], age[:, None]], axis=1).astype(np.float32)
