"""Candidates take turns; the median counts."""

import statistics
import time
from collections.abc import Callable


def median_seconds(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Wall seconds of each candidate: one warm-up, then the median over rounds in which each runs once."""
    seconds = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()
    for _ in range(rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
