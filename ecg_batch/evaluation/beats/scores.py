"""Scores of beat types at places that are given: sensitivity, precision and F1 of a class, by the confusion of each recording."""

from collections.abc import Callable

import numpy as np

from ecg_batch.evaluation.beats.classifier import SAID
from ecg_batch.evaluation.scores import bootstrap
from ecg_batch.evaluation.waves.scores import f1
from ecg_batch.rhythm_words import BEAT_CLASSES

SCORES = {
    "F1": f1,
    "Se": lambda counts: counts[..., 0] / np.maximum(counts[..., 0] + counts[..., 2], 1),
    "P+": lambda counts: counts[..., 0] / np.maximum(counts[..., 0] + counts[..., 1], 1),
}  # of found, extra, missed (..., 3)


def confusion(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """How many beats of each of BEAT_CLASSES are said to be each of SAID: (5, 3)."""
    counts = np.zeros((len(BEAT_CLASSES), len(SAID)), np.int64)
    np.add.at(counts, (truth, said), 1)
    return counts


def of_class(confusions: np.ndarray, name: str) -> np.ndarray:
    """Confusions (..., 5, 3) -> found, extra, missed (..., 3) of a class. Fusions and unknown beats are nobody's mistake."""
    at, counted = SAID.index(name), confusions[..., : len(SAID), :]
    found = counted[..., at, at]
    return np.stack([found, counted[..., :, at].sum(-1) - found, counted[..., at, :].sum(-1) - found], axis=-1)


def scored(confusions: np.ndarray, name: str) -> dict[str, list[float]]:
    """Of confusions (recording, 5, 3): each score with its interval over recordings."""
    return {score: over_recordings(of, of_class(confusions, name)) for score, of in SCORES.items()}


def less(confusions: np.ndarray, others: np.ndarray, name: str) -> list[float]:
    """F1 of a class less that of another row, drawing the same recordings for both."""
    return over_recordings(f1, of_class(confusions, name), of_class(others, name))


def over_recordings(of: Callable, counts: np.ndarray, others: np.ndarray | None = None) -> list[float]:
    """[value, low, high]: the score of found, extra, missed (recording, 3), less that of `others`, and where 95 % of it lie when
    recordings are drawn again. A draw without any of what is sought has no score.
    """

    def score(rows: np.ndarray, more: np.ndarray) -> float:
        whole = rows.sum(axis=0)
        less = 0.0 if others is None else of(more.sum(axis=0))
        return float(of(whole) - less) if whole[0] + whole[2] else float("nan")

    more = counts if others is None else others
    return [score(counts, more), *bootstrap(score, counts, more)]
