"""Keys: what a field of a dataclass says of the key that it is in a settings file. Light, for settings.py alone loads pydantic."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of an int or a float, and what it means."""

    low: float
    high: float
    meaning: str = ""

    def __get_pydantic_core_schema__(self, kind, handler):
        word = "a whole number" if kind is int else "a number"
        return _says(handler(kind) | {"ge": self.low, "le": self.high}, f"{word} from {self.low:,} to {self.high:,}")

    def __get_pydantic_json_schema__(self, schema, handler):
        return handler(schema) | ({"description": self.meaning} if self.meaning else {})


@dataclass(frozen=True)
class Needs:
    """What is said to be needed where a value has none of several forms."""

    words: str

    def __get_pydantic_core_schema__(self, kind, handler):
        return _says(handler(kind), self.words)


@dataclass(frozen=True)
class Meaning:
    """What a key means, for editors."""

    meaning: str

    def __get_pydantic_json_schema__(self, schema, handler):
        return handler(schema) | {"description": self.meaning}


@dataclass(frozen=True)
class Line(Meaning):
    """The same for text that is a name or a path: not empty, and without control characters."""

    def __get_pydantic_core_schema__(self, kind, handler):
        return _says(handler(kind) | {"min_length": 1, "pattern": r"^[^\x00-\x1f\x7f]+$"}, "text, on one line")


def _says(schema, words: str):
    from pydantic_core.core_schema import custom_error_schema

    return custom_error_schema(schema, custom_error_type="needed", custom_error_message=words)
