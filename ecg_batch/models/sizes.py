"""Which sizes and settings of networks and trainings can be: asked before anything is loaded, and of every weight file.

Ranges stand beside the fields (keys.Range); here is how they are held against values that no settings file was read for, and
what no network can have together.
"""

import json
import math
from dataclasses import fields
from typing import TypeVar, get_args, get_type_hints

from ecg_batch.errors import UserError
from ecg_batch.keys import Range

Sizes = TypeVar("Sizes")
MOST_IN_A_LIST = 64


def fault_of(settings) -> str | None:
    """What cannot be in a dataclass of sizes or settings, in words, or None: 'codes is 0; needed a whole number from 2 ...'."""
    hints = get_type_hints(type(settings), include_extras=True)
    found = (_fault(field.name, getattr(settings, field.name), hints[field.name]) for field in fields(settings))
    return next(filter(None, found), None) or _contradiction(settings)


def read_sizes(kind: type[Sizes], text: str) -> Sizes:
    """The sizes that a weight file states as JSON. ValueError or TypeError where they are none that such a network can have."""
    stated = dict(json.loads(text))
    # a file of before does not state a size that came later; its layers each file states
    if absent := [field.name for field in fields(kind) if isinstance(field.default, tuple) and field.name not in stated]:
        raise ValueError(f"{absent[0]} is not stated")
    sizes = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()})
    if fault := fault_of(sizes):
        raise ValueError(fault)
    return sizes


def refuse(settings, where: str) -> None:
    """UserError where a size or setting cannot be. where: who asks, for the message."""
    if fault := fault_of(settings):
        raise UserError(f"{where}: {fault}")


def _fault(name: str, value, hint) -> str | None:
    """hint: Annotated[int, Range(...)] or a tuple of such."""
    is_list = getattr(hint, "__origin__", None) is tuple
    kind, *notes = get_args(get_args(hint)[0] if is_list else hint) or (hint,)
    if not (limits := next((note for note in notes if isinstance(note, Range)), None)):
        return None
    values = value if is_list else (value,)
    if not isinstance(values, tuple) or not 1 <= len(values) <= MOST_IN_A_LIST:
        return f"{name} is {value!s:.200}; needed 1 to {MOST_IN_A_LIST} values"
    kinds = (int,) if kind is int else (int, float)
    if all(type(one) in kinds and math.isfinite(one) and limits.low <= one <= limits.high for one in values):
        return None
    word = ("whole numbers" if is_list else "a whole number") if kind is int else "a number"
    return f"{name} is {value!s:.200}; needed {word} from {limits.low:,} to {limits.high:,}"


def _contradiction(settings) -> str | None:
    """Sizes that no network can have together."""
    has = {field.name: getattr(settings, field.name) for field in fields(settings)}
    if has.get("noise_channels", 0) % has.get("leads", 1):
        return f"noise_channels is {has['noise_channels']}; needed a multiple of {has['leads']}, as many for each lead"
    if has.get("drift_tokens", 0) % 2:
        return f"drift_tokens is {has['drift_tokens']}; needed an even number, as many to either side"
    if "widths" in has and has["kernel"] % 2 == 0:
        return f"kernel is {has['kernel']}; needed an odd number, so that a block keeps its length"
    if has.get("steps") == 5:  # a fifth of five is one step, and OneCycleLR divides by one less
        return "steps is 5; needed another number, 6 or more"
    return None
