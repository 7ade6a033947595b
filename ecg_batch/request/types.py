"""Types: whether the values of a dataclass are of the types that its fields state. Light: `status` asks it of every plan."""

import math
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from ecg_batch.keys import Range

LARGEST = 2**63 - 1


def odd_field(value) -> str | None:
    """The first field of a dataclass, or of those in it, whose value is not of its type, or None."""
    hints = _hints(type(value))
    return next((field.name for field in fields(value) if not _fits(getattr(value, field.name), hints[field.name])), None)


@cache
def _hints(kind: type) -> dict:
    return get_type_hints(kind, include_extras=True)


def _fits(value, hint, low: float = -LARGEST) -> bool:
    """Numbers are finite, and whole ones at least the lowest of their Range: what they may be at most has changed with versions."""
    kind, given = get_origin(hint), get_args(hint)
    if kind is Annotated:
        limits = next((note for note in hint.__metadata__ if isinstance(note, Range)), None)
        return _fits(value, given[0], limits.low if limits else low)
    if kind in (Union, UnionType):
        return any(_fits(value, one, low) for one in given)
    if kind is Literal:
        return any(type(value) is type(one) and value == one for one in given)
    if kind is tuple:
        kinds = [given[0]] * len(value) if given[-1] is ... and isinstance(value, tuple) else given
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint is int:
        return type(value) is int and low <= value <= LARGEST
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, hint) and (not is_dataclass(value) or odd_field(value) is None)
