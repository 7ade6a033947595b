"""Activity: somebody with a Holter climbs stairs. The rate rises within tens of seconds, stays, and falls back over minutes, and
muscles are heard as long as it lasts.

The rate falls back exponentially (as Imai et al. 1994 describe it, doi:10.1016/0735-1097(94)90150-3), and its mean is driven to
nine tenths of the fastest that age allows at most, 208 - 0.7 * age (Tanaka et al. 2001, doi:10.1016/S0735-1097(00)01054-8), but by
a tenth at least. Both papers are cited from memory: check them before citing. How much and how fast is our choice.
"""

from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.request.events import usual_s
from ecg_batch.request.model import Distribution, Noise, Request
from ecg_batch.request.places import Place, until_next
from ecg_batch.synthesis.ask import quantile
from ecg_batch.synthesis.long.events.patient import Asked

NAME = "activity"
RISE_BY, RISES_S, FALLS_S = (0.2, 0.8), (10.0, 40.0), (30.0, 90.0)
SNR_DB = (3.0, 18.0)  # beats to muscle noise
MUSCLE = Noise(Distribution(*SNR_DB), (("muscle", 1.0),))


@dataclass(frozen=True)
class Activity:
    """From start_s to stop_s the rate is higher by the factor 1 + by, which it nears and leaves with these time constants."""

    start_s: float
    stop_s: float
    by: float
    rises_s: float
    falls_s: float

    def surge(self, time_s: np.ndarray) -> np.ndarray:
        """By how much the rate is higher: (time,)."""
        active_s = np.clip(time_s - self.start_s, 0, self.stop_s - self.start_s)
        return self.by * (1 - np.exp(-active_s / self.rises_s)) * np.exp(-np.clip(time_s - self.stop_s, 0, None) / self.falls_s)


def drawn_activity(
    asked: Asked, places: tuple[Place, ...], duration_s: float, most: float, draws, draws_of_places
) -> list[Activity]:
    """When a record has it, and what it is, by time: at its places, and by chance where it meets none. most: by which no rate
    rises.
    """
    length = asked.lengths()[NAME]
    placed = [_drawn(one.start_s, one.length, length, until_s, most, draws_of_places)
              for one, until_s in until_next(places, NAME, duration_s)]  # fmt: skip
    found, gap_s = list(placed), np.inf
    if rate := asked.per_hour.get(NAME):
        (event,) = (event for event in asked.events if event.name == NAME)
        gap_s = max(3600 / rate - usual_s(event), 1.0)
    at_s = gap_s * draws.exponential()
    while at_s < duration_s:
        one = _drawn(at_s, None, length, duration_s, most, draws)
        if not any(one.start_s < other.stop_s and other.start_s < one.stop_s for other in placed):
            found.append(one)
        at_s = one.stop_s + gap_s * draws.exponential()
    return sorted((one for one in found if one.stop_s - one.start_s > 1), key=lambda one: one.start_s)


def _drawn(start_s: float, seconds: float | None, length: Distribution, until_s: float, most: float, draws) -> Activity:
    drawn_s = float(quantile(length, draws.random(1))[0])
    by, rises_s, falls_s = draws.uniform(*zip(RISE_BY, RISES_S, FALLS_S, strict=True))
    return Activity(start_s, min(start_s + (seconds or drawn_s), until_s), min(by, most), rises_s, falls_s)


def most_surge(age: float, mean_hr_bpm: float) -> float:
    """By how much a heart of this age, in years, NaN is not known, that beats so fast on average may beat faster."""
    return max(0.9 * (208 - 0.7 * (50.0 if np.isnan(age) else age)) / mean_hr_bpm - 1, 0.1)


def quickened(rr_s: np.ndarray, time_s: np.ndarray, activities: list[Activity]) -> np.ndarray:
    """The current RR (time,) with the rate higher where there is activity."""
    return rr_s / (1 + np.max([one.surge(time_s) for one in activities], axis=0)) if activities else rr_s


def with_muscles(request: Request) -> Request:
    """The request as noise_episodes.py needs it for the noise of activity."""
    return replace(request, noise=MUSCLE)
