"""Spread: a number that is drawn by record, as a request file has it, and the Distribution that it is checked into; and shares."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from ecg_batch.keys import Meaning, Needs, Range
from ecg_batch.request.model import Distribution
from ecg_batch.settings import Written
from ecg_batch.strict_yaml import Key, dotted

ROUNDED = 1e-14  # shares that miss 1 by no more have been divided by their sum already


@dataclass(frozen=True)
class Spread:
    """How a number is drawn: {uniform: [low, high]} or {normal: [mean, sd], within: [low, high]}."""

    uniform: tuple[float, float] | None = None
    normal: tuple[float, float] | None = None
    within: tuple[float, float] | None = None


def drawn(low: float, high: float, meaning: str):
    words = f"a number from {low:g} to {high:g}, {{uniform: [low, high]}} or {{normal: [mean, sd], within: [low, high]}}"
    return Annotated[Annotated[float, Range(low, high)] | Spread, Needs(words), Meaning(meaning)]


def distribution(asked: float | Spread | None, limits: tuple[float, float], key: Key, written: Written) -> Distribution | None:
    if asked is None or not isinstance(asked, Spread):
        return None if asked is None else Distribution(float(asked), float(asked))
    if (asked.uniform is None) == (asked.normal is None) or (asked.within and not asked.normal):
        raise written.error(key, f"{dotted(key)}: needed either uniform: [low, high], or normal: [mean, sd] with or without "
                                 "within: [low, high]")  # fmt: skip
    if asked.uniform:
        return Distribution(*_interval(asked.uniform, limits, (*key, "uniform"), written))
    low, high = _interval(asked.within or limits, limits, (*key, "within"), written)
    mean, sd = asked.normal
    refuse_outside(mean, limits, (*key, "normal"), written, " mean")
    refuse_outside(sd, (0.001, 1000.0), (*key, "normal"), written, " sd")
    cut = Distribution(low, high, mean, sd).within(low, high)
    if cut is None:
        raise written.error(
            key, f"{dotted(key)}: normal [{mean:g}, {sd:g}] has next to nothing within [{low:g}, {high:g}]; widen it"
        )
    return cut


def _interval(pair: tuple[float, float], limits: tuple[float, float], key: Key, written: Written) -> tuple[float, float]:
    for value in pair:
        refuse_outside(value, limits, key, written)
    low, high = pair
    if low > high:
        raise written.error(key, f"{dotted(key)} is [{low:g}, {high:g}]; the lower number comes first: [{high:g}, {low:g}]")
    return pair


def refuse_outside(value: float, limits: tuple[float, float], key: Key, written: Written, part: str = "") -> None:
    low, high = limits
    if not low <= value <= high:
        raise written.error(key, f"{dotted(key)}{part} is {value:g}; needed a number from {low:g} to {high:g}")


def parts_of_one(weights: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Weights over their sum, sorted by name, so that the order in the file changes nothing; those that are shares already, as they
    are. Zeros are dropped.
    """
    whole = math.fsum(weights.values())
    whole = 1.0 if abs(whole - 1) <= ROUNDED else whole
    return tuple((name, weights[name] / whole) for name in sorted(weights) if weights[name] > 0)
