"""Scores of multi-label classifiers, with bootstrap intervals over records. Arrays are (record, class)."""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

BINS = 10


def macro_auroc(truth: np.ndarray, probability: np.ndarray) -> float:
    """Mean over the classes that have both kinds of records; NaN where none has."""
    both = (truth.min(0) == 0) & (truth.max(0) == 1)
    if not both.any():
        return float("nan")
    return float(roc_auc_score(truth[:, both], probability[:, both], average="macro"))


def fast_macro_auroc(truth: np.ndarray, probability: np.ndarray) -> float:
    """The same by ranks (Mann and Whitney 1947), ties counted half: a hundred times faster, for bootstraps."""
    ranks, held = rankdata(probability, axis=0), truth.astype(bool)
    positive = held.sum(0)
    negative = len(truth) - positive
    both = (positive > 0) & (negative > 0)
    if not both.any():
        return float("nan")
    u = (ranks * held).sum(0) - positive * (positive + 1) / 2
    return float((u[both] / (positive * negative)[both]).mean())


def thresholds_of(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The threshold of each class with the highest F1: (class,). To be taken on fold 9 and kept."""
    out = []
    for y, p in zip(truth.T, probability.T, strict=True):
        order = np.argsort(-p, kind="stable")
        hits = np.cumsum(y[order])
        f1 = 2 * hits / (np.arange(1, len(y) + 1) + max(y.sum(), 1))
        at = int(np.argmax(f1))
        below = p[order[at + 1]] if at + 1 < len(y) else 0.0
        out.append((p[order[at]] + below) / 2)
    return np.array(out)


def macro_f1(truth: np.ndarray, probability: np.ndarray, thresholds: np.ndarray) -> float:
    """Mean over classes of F1 at each class's threshold; 0 for a class that nobody holds and nobody is said to hold."""
    predicted, held = probability >= thresholds, truth.astype(bool)
    return float(np.mean(2 * (predicted & held).sum(0) / np.maximum(predicted.sum(0) + held.sum(0), 1)))


def calibration(truth: np.ndarray, probability: np.ndarray) -> tuple[float, np.ndarray]:
    """Expected calibration error over all class decisions in ten equal bins, and the bins: (bin, [predicted, happened, share])."""
    y, p = truth.ravel().astype(float), probability.ravel()
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    rows = [(p[bins == k].mean(), y[bins == k].mean(), (bins == k).mean()) for k in range(BINS) if (bins == k).any()]
    rows = np.array(rows)
    return float((np.abs(rows[:, 0] - rows[:, 1]) * rows[:, 2]).sum()), rows


def bootstrap(
    score, *arrays: np.ndarray, draws: int = 1000, seed: int = 0, of: np.ndarray | None = None
) -> tuple[float, float]:
    """95 % percentile interval of score(*arrays) over records drawn with replacement, of the draws that have a score.

    of: the patient of each record; patients are drawn then, each with all records.
    """
    rng, count = np.random.default_rng(seed), len(arrays[0])
    groups = np.arange(count) if of is None else np.unique(of, return_inverse=True)[1]
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups)
    rows_of = np.split(order, np.cumsum(sizes)[:-1]) if count else []
    picked = (rng.integers(0, len(sizes), len(sizes)) for _ in range(draws))
    rows = (np.concatenate([rows_of[at] for at in one]) if len(one) else one for one in picked)
    drawn = [score(*(x[at] for x in arrays)) for at in rows]
    known = [x for x in drawn if np.isfinite(x)]
    return tuple(float(x) for x in np.percentile(known, [2.5, 97.5])) if known else (float("nan"), float("nan"))
