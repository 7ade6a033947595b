"""Scores of waves and beats: which marks were found, by how much they are off, and intervals over records.

A mark of the reader and one of the detector are a pair where they lie within the tolerance; each is in one pair at most, the
nearest first. F1 = 2 pairs / (marks of the reader + marks of the detector). An interval draws records again with their leads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecg_batch.evaluation.waves.delineator import SAID_HZ
from ecg_batch.evaluation.waves.marked import Waves

TOLERANCE_S = 0.15  # as the literature on LUDB and ANSI/AAMI EC57 have it
BOUNDARIES = ("P onset", "P end", "QRS onset", "QRS end", "T onset", "T end")
LEAST_S = {0: 0.03, 1: 0.03, 2: 0.05}  # shorter waves are none
GAP_S = 0.04  # two pieces of one wave that are nearer than this are one
REFRACTORY_S = 0.25  # 240 a minute
P_BEFORE_S, NEAR_S, P_SHARE = 0.4, 5.0, 0.5  # P begins so near before its QRS; of the QRS so near, so many must have one
DRAWS = 1000


@dataclass(frozen=True)
class Scored:
    """Of one record. counts (boundary, 3): found, extra, missed, over leads; off_ms: of each boundary, ours less theirs."""

    counts: np.ndarray
    off_ms: tuple[np.ndarray, ...]


def pairs(theirs: np.ndarray, ours: np.ndarray, tolerance_s: float = TOLERANCE_S) -> np.ndarray:
    """Which of theirs and of ours are the same, nearest first, each once: (pair, 2). Both in seconds, ascending."""
    within_s = tolerance_s + 1e-9  # of two that are exactly so far apart, whichever is whose
    near = np.searchsorted(ours, theirs - within_s), np.searchsorted(ours, theirs + within_s, side="right")
    among = [(abs(theirs[i] - ours[j]), i, j) for i, (low, high) in enumerate(zip(*near, strict=True)) for j in range(low, high)]
    used, found = (set(), set()), []
    for _, i, j in sorted(among):
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            found.append((i, j))
    return np.array(found, np.int64).reshape(-1, 2)


def score_lead(theirs: Waves, ours: Waves) -> Scored:
    """A mark of ours that belongs to none of theirs is extra where it lies between their first and their last: in most records
    nobody marked the first and last beat.
    """
    low, high = theirs.within_s()
    counts, off = np.zeros((len(BOUNDARIES), 3), np.int64), []
    for at in range(len(BOUNDARIES)):
        a, b = theirs.edges(at // 2, at % 2), ours.edges(at // 2, at % 2)
        same = pairs(a, b)
        unpaired = np.delete(b, same[:, 1])
        extra = ((unpaired >= low) & (unpaired <= high)).sum() if len(theirs) else 0
        counts[at] = len(same), extra, len(a) - len(same)
        off.append(1000 * (b[same[:, 1]] - a[same[:, 0]]))
    return Scored(counts, tuple(off))


def together(parts: Sequence[Scored]) -> Scored:
    """Leads of a record, or records."""
    off = tuple(np.concatenate(each) for each in zip(*(part.off_ms for part in parts), strict=True))
    return Scored(np.sum([part.counts for part in parts], axis=0), off)


def f1(counts: np.ndarray) -> np.ndarray:
    """(..., 3) found, extra, missed -> (...)."""
    return 2 * counts[..., 0] / np.maximum(2 * counts[..., 0] + counts[..., 1] + counts[..., 2], 1)


def macro(counts: np.ndarray) -> np.ndarray:
    """Counts (..., boundary, 3) -> mean F1 over boundaries (...)."""
    return f1(counts).mean(-1)


def interval(counts: np.ndarray, score=macro, against: np.ndarray | None = None) -> list[float]:
    """[value, low, high]: the score of counts (record, ..., 3), less that of `against`, and where 95 % of it lie when records are
    drawn again.
    """
    drawn = np.random.default_rng(0).integers(0, len(counts), (DRAWS, len(counts)))
    sides = [counts] if against is None else [counts, against]
    whole = [float(score(side.sum(0))) for side in sides]
    again = [score(np.array([side[rows].sum(0) for rows in drawn])) for side in sides]
    value, spread = (whole[0], again[0]) if against is None else (whole[0] - whole[1], again[0] - again[1])
    return [value, *np.percentile(spread, [2.5, 97.5]).tolist()]


# From what the network says to marks ----------------------------------------------------------------------------------


def waves_of(said: np.ndarray, rate_hz: float = SAID_HZ) -> Waves:
    """Waves of what the network says of a lead (4, time): where one is probable by over a half, edges between samples."""
    rows = [(kind, *piece) for kind in range(3) for piece in pieces(said[kind + 1], rate_hz, LEAST_S[kind])]
    kind, on_s, end_s = np.array(rows, np.float64).reshape(-1, 3).T
    kept = (kind != 0) | _p_recurs(on_s[kind == 0], on_s[kind == 1], on_s)
    return Waves(kind[kept].astype(np.int64), on_s[kept], end_s[kept])


def _p_recurs(p_s: np.ndarray, qrs_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Whether, near each of at_s, P_SHARE of the QRS have a P wave: ripples of fibrillation look like one now and then."""
    before = qrs_s[:, None] - p_s  # (QRS, P)
    has_p = ((before > 0) & (before <= P_BEFORE_S)).any(axis=1)
    near = np.abs(at_s[:, None] - qrs_s) <= NEAR_S
    return (near & has_p).sum(axis=1) >= P_SHARE * near.sum(axis=1)


def pieces(p: np.ndarray, rate_hz: float, least_s: float) -> list[tuple[float, float]]:
    """Seconds between which p (time,) is over a half; those nearer than GAP_S joined, then those shorter than least_s left out."""
    edge = np.diff(np.concatenate([[0], (p > 0.5).astype(np.int8), [0]]))
    first, last = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1) - 1
    before, after = p[np.maximum(first - 1, 0)], p[np.minimum(last + 1, len(p) - 1)]
    on = first - np.where(first > 0, (p[first] - 0.5) / np.maximum(p[first] - before, 1e-9), 0)
    end = last + np.where(last < len(p) - 1, (p[last] - 0.5) / np.maximum(p[last] - after, 1e-9), 0)
    joined: list[list[float]] = []
    for a, b in zip(on / rate_hz, end / rate_hz, strict=True):
        if joined and a - joined[-1][1] < GAP_S:
            joined[-1][1] = b
        else:
            joined.append([a, b])
    return [(a, b) for a, b in joined if b - a >= least_s]


def beats_of(said: np.ndarray, rate_hz: float = SAID_HZ) -> np.ndarray:
    """R of a lead by what the network says (4, time): the middle of each QRS, seconds; of two within REFRACTORY_S the surer one."""
    p = said[2]
    found = [(a, b, p[int(a * rate_hz) : int(b * rate_hz) + 2].mean() * (b - a)) for a, b in pieces(p, rate_hz, LEAST_S[1])]
    kept: list[tuple[float, float]] = []
    for a, b, sure in found:
        middle = (a + b) / 2
        if kept and middle - kept[-1][0] < REFRACTORY_S:
            kept[-1] = max(kept[-1], (middle, sure), key=lambda beat: beat[1])
        else:
            kept.append((middle, sure))
    return np.array([middle for middle, _ in kept])


def score_beats(theirs_s: np.ndarray, ours_s: np.ndarray, left_out: Sequence[tuple[float, float]] = ()) -> np.ndarray:
    """Found, extra, missed (3,), without what lies in the stretches left out, a tolerance more on either side."""
    for start, stop in left_out:
        theirs_s, ours_s = (at[(at < start - TOLERANCE_S) | (at > stop + TOLERANCE_S)] for at in (theirs_s, ours_s))
    same = len(pairs(theirs_s, ours_s))
    return np.array([same, len(ours_s) - same, len(theirs_s) - same])
