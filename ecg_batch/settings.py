"""Settings: the one reader of what users write, whether in a request, a cluster file or behind --set.

What may be written is a dataclass: its fields are the keys, with their defaults, and their types say what they take, as in
`alpha: Annotated[float, Range(0, 2, "share of texture")] = 0.6`. pydantic checks values against it and makes its JSON schema.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar, get_args, get_origin, get_type_hints

from ecg_batch.errors import UserError, clipped, shown, suggestion
from ecg_batch.strict_yaml import Key, dotted, parse_yaml

Kind = TypeVar("Kind")
MOST_BYTES = 2**18  # of a settings file
STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
NEEDED = {"string_type": "text", "dict_type": "keys with values, as {a: 1, b: 2}", "list_type": "a list, as [a, b]",
          "tuple_type": "a list, as [a, b]"}  # fmt: skip


# What a user wrote ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Values by key as a user wrote them, and where: the name of the file, what --set added, the line of each key."""

    values: dict
    path: str
    overrides: tuple[str, ...] = ()
    lines: dict[Key, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return self._at("")

    def error(self, key: Key, words: str) -> UserError:
        """What is wrong with a key, with the line of the key or of the one above it."""
        line = next((self.lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self.lines), None)
        return UserError(f"{self._at(f', line {line}' if line else '')}: {words}")

    def _at(self, line: str) -> str:
        return f"{self.path}{line}" + (f" with --set {clipped(' '.join(self.overrides))}" if self.overrides else "")

    def checked(self, kind: type[Kind], at: Key = ()) -> Kind:
        """The values, or those below a key, as this dataclass. UserError for the first key that is unknown or does not fit."""
        from pydantic import ValidationError

        values = self.values
        for name in at:
            values = values[name]
        try:
            return _adapter(kind).validate_json(json.dumps(values))
        except ValidationError as error:
            faults = error.errors(include_url=False)
        fault = next((one for one in faults if one["type"] == "unexpected_keyword_argument"), faults[0])
        raise self.error((*at, *fault["loc"]), _words(kind, fault, at))


def read_settings(path: Path, what: str, overrides: Sequence[str] = ()) -> Written:
    """A YAML file that a user wrote, with `key=value` pairs put over it. UserError naming the file; what: to say what was read."""
    values, lines = parse_yaml(_read_text(Path(path), what), lambda line: f"{path}, line {line}")
    if not isinstance(values, dict):
        raise UserError(f"{path}: {what} is {shown(values)}; needed 'key: value' lines, as in the files of ecg-batch configs")
    for key in put_over(values, overrides):
        lines = {other: line for other, line in lines.items() if other[: len(key)] != key}
    return Written(values, str(path), tuple(overrides), lines)


def put_over(values: dict, overrides: Sequence[str]) -> list[Key]:
    """Puts `key=value` pairs into values: dotted for nested keys, values as YAML. Returns the keys. UserError naming the pair."""
    keys: list[Key] = []
    for override in overrides:
        name, equals, text = override.partition("=")
        *parents, last = key = tuple(name.split("."))
        said = f"--set {clipped(override)}"
        if not (equals and all(key)):
            raise UserError(f"{said}: needed key=value, for example --set records=100 or --set mix.hr_bpm=70")
        if any(key[: len(other)] == other[: len(key)] for other in keys):
            raise UserError(f"{said}: {dotted(key)} is set twice. Keep one of the two")
        if not text.strip():
            raise UserError(f"{said}: {dotted(key)} has no value (an empty variable of the shell?). Give one, or leave it out")
        keys.append(key)
        inner = values
        for parent in parents:
            if not isinstance(inner.get(parent), dict):
                inner[parent] = {}
            inner = inner[parent]
        inner[last], _ = parse_yaml(text, lambda line, said=said: said, key)
    return keys


def _read_text(path: Path, what: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: cannot read {what}: not a regular file. Give the path of a YAML file")
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{clipped(str(path))}: cannot read {what}: {clipped(str(error))}. Give the path of a YAML file") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path}: cannot read {what}: over {MOST_BYTES // 1024} KiB. Give the path of a YAML file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: cannot read {what}: not UTF-8. Save it as UTF-8") from None


# What pydantic makes of a dataclass -----------------------------------------------------------------------------------


def schema(kind: type) -> dict:
    """The JSON schema of a settings file, by which editors check and complete it."""
    made = _without_titles(_adapter(kind).json_schema())
    made["properties"] = {one.name: made["properties"][one.name] for one in fields(kind) if one.init}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


@cache
def _adapter(kind: type):
    from pydantic import TypeAdapter

    kind.__pydantic_config__ = STRICT  # where pydantic looks for it; it holds for the dataclasses inside as well
    return TypeAdapter(kind)


def _words(kind: type, fault: dict, at: Key = ()) -> str:
    """One sentence from one of pydantic's errors. at: the key below which the dataclass was read."""
    inner, key, value = fault["loc"], (*at, *fault["loc"]), fault["input"]
    if fault["type"] == "unexpected_keyword_argument":
        known = _keys_at(kind, inner[:-1])
        return f"unknown key '{dotted(key)}'{suggestion(str(key[-1]), known)}; known keys: {', '.join(known)}"
    if fault["type"] == "missing" and isinstance(key[-1], str):
        return f"{dotted(key)} is missing"
    needed = NEEDED.get(fault["type"]) or fault["msg"].removeprefix("Input should be ").replace("'", "")
    if fault["type"] == "dataclass_type":
        needed = f"keys below it: {', '.join(_keys_at(kind, inner))}"
    hint = ""
    if value is None:
        hint = ". Leave the key out for its default"
    elif needed.startswith("text") and isinstance(value, int | float):
        hint = f": write '{value}' in quotes"
    return f"{dotted(key)} is {shown(value)}; needed {needed}{hint}"


def _keys_at(kind: type, key: Key) -> list[str]:
    """The keys of the dataclass that a key leads to."""
    for name in key:
        kind = next(_dataclasses_in(get_type_hints(kind, include_extras=True)[name]))
    return sorted(one.name for one in fields(kind) if one.init)


def _dataclasses_in(hint):
    if get_origin(hint) is Annotated:
        yield from _dataclasses_in(get_args(hint)[0])
    elif is_dataclass(hint):
        yield hint
    else:
        for inner in get_args(hint):
            yield from _dataclasses_in(inner)


def _without_titles(value):
    """pydantic writes a title beside every key, which says the key again."""
    if isinstance(value, dict):
        return {key: _without_titles(held) for key, held in value.items() if key != "title" or not isinstance(held, str)}
    return [_without_titles(held) for held in value] if isinstance(value, list) else value
