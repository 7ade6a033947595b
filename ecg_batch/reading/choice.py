"""Choice: what where(column=value) means, for each kind of column and of value. One form has one meaning."""

from collections.abc import Iterable
from numbers import Real

import numpy as np

from ecg_batch.errors import UserError

FORMS = "needed a value, a list of values (any of them), or for numbers a pair (low, high) of which None is open"


def matches(name: str, column, value) -> np.ndarray:
    """Which rows of a pyarrow column have the value: bool (record,). Null is never a match.

    A list, set, array, or tuple of texts: any of its values. A tuple of two numbers, for a column of numbers: from low to high.
    UserError naming column and type for any other.
    """
    import pyarrow.types as types

    kind = column.type
    value = value.as_py() if hasattr(value, "as_py") else value
    if types.is_string(kind) or types.is_large_string(kind):
        return _is_in(column, [_text(name, kind, one) for one in several(value)])
    if types.is_boolean(kind):
        return _is_in(column, [_truth(name, kind, one) for one in several(value)])
    if types.is_integer(kind) or types.is_floating(kind):
        # as float64: null is NaN, which is equal to nothing; ids are below 2^53; 72.3 in a column of float32 is what it stores
        numbers, stored = np.asarray(column.to_numpy(), np.float64), kind.to_pandas_dtype()
        if isinstance(value, tuple):
            low, high = _pair(name, kind, value)
            return (numbers >= low) & (numbers <= high)
        wanted = np.array([_number(name, kind, one) for one in several(value)])
        return np.isin(numbers, wanted.astype(stored) if types.is_floating(kind) else wanted)
    raise UserError(f"where({name}=...): the column {name} holds {kind}, which cannot be chosen by. Make a mask of it and "
                    "give it to select()")  # fmt: skip


def _is_in(column, values: list) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.fill_null(pc.is_in(column, pa.array(values, column.type)), False).to_numpy()


def several(value) -> list:
    """The values of any iterable that is no text, or the one value."""
    value = value.as_py() if hasattr(value, "as_py") else value
    if isinstance(value, np.ndarray):
        return np.atleast_1d(value).ravel().tolist()
    is_several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict))
    return list(value) if is_several else [value]


def _pair(name: str, kind, value: tuple) -> tuple[float, float]:
    if len(value) != 2:
        raise _refusal(name, kind, value, "a tuple is a pair (low, high); give a list for any of several values")
    low, high = (end if one is None else _number(name, kind, one) for one, end in zip(value, (-np.inf, np.inf), strict=True))
    if low > high:
        raise _refusal(name, kind, value, "a pair is (low, high), and low is above high; give a list for any of several values")
    return low, high


def _number(name: str, kind, value) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise _refusal(name, kind, value)
    if value != value:
        raise _refusal(name, kind, value, "nan is equal to nothing")
    try:
        return float(value)
    except OverflowError:  # an int of more than 308 digits
        raise _refusal(name, kind, value) from None


def _text(name: str, kind, value) -> str:
    if not isinstance(value, str):
        why = "null is never a match, and a text has no range" if value is None else ""
        raise _refusal(name, kind, value, why)
    return str(value)


def _truth(name: str, kind, value) -> bool:
    if not isinstance(value, (bool, np.bool_)) and value not in (0, 1):
        raise _refusal(name, kind, value)
    return bool(value)


def _refusal(name: str, kind, value, why: str = "") -> UserError:
    said = repr(value)
    said = said if len(said) <= 60 else said[:60] + "..."
    return UserError(f"where({name}={said}): the column {name} holds {kind}, and this is {type(value).__name__}; "
                     f"{f'{why}; ' if why else ''}{FORMS}")  # fmt: skip
