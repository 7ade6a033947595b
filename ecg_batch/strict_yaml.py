"""YAML as whoever wrote it means it: the types of YAML 1.2, every key once, and nothing that stands for something else.

YAML 1.1, which PyYAML reads, takes the last of two equal keys, 1:00:00 for 3600, 010 for 8, `no` for false and nothing for null.
"""

import math
import re
from collections.abc import Callable

import yaml

from ecg_batch.errors import UserError, clipped, shown

DEEPEST = 16  # brackets within brackets
MOST_DIGITS = 20  # of a whole number: 2**63 has 19
WORDS = {"null": None, "Null": None, "NULL": None, "~": None, "true": True, "True": True, "TRUE": True, "false": False,
         "False": False, "FALSE": False}  # fmt: skip
WHOLE = re.compile(r"[-+]?[0-9]+")
REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")

Key = tuple[str | int, ...]  # ("mix", "hr_bpm", "uniform", 0)


def dotted(key: Key) -> str:
    """A key as messages write it and --set takes it: mix.hr_bpm."""
    return clipped(".".join(map(str, key)))


def parse_yaml(text: str, said_at: Callable[[int], str], below: Key = ()) -> tuple[object, dict[Key, int]]:
    """(value, line of each key) of a document. said_at: line -> the beginning of a message; below: the key that the value is of.

    UserError where the text is no YAML, or can be read in more than one way.
    """
    reader, lines = None, {}
    try:
        reader = _Composer(text)
        node = reader.get_single_node()
        return (None if node is None else _value(node, below, lines)), lines
    except _Refused as fault:
        raise UserError(f"{said_at(fault.line)}: {fault}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"{said_at(mark.line + 1)}: not valid YAML: {clipped(error.problem or error.context)}. Mend it") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{said_at(line)}: not valid YAML: the character {error.character:#x}. Remove it") from None
    except (ValueError, OverflowError):  # of chr, for an escape beyond the last character
        raise UserError(f"{said_at(reader.line + 1)}: not valid YAML: an escape that is no character. Mend it") from None
    finally:
        if reader:
            reader.dispose()


class _Refused(Exception):
    def __init__(self, mark: yaml.Mark, words: str) -> None:
        super().__init__(words)
        self.line = mark.line + 1


class _Composer(yaml.SafeLoader):
    """Nodes without anchors, aliases and tags, and not too deep: ten lines of aliases can stand for gigabytes."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise _Refused(
                event.start_mark, f"'{clipped(event.anchor)}' is an anchor or alias (& or *). Write the value out, or quote it"
            )
        if event.tag:
            raise _Refused(event.start_mark, f"'{clipped(event.tag)}' is a tag. Leave it out; in quotes a value is text")
        if self.depth == DEEPEST:
            raise _Refused(event.start_mark, f"nested over {DEEPEST} deep; no key needs that. Remove brackets")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _value(node: yaml.Node, key: Key, lines: dict[Key, int]):
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*key, place), lines) for place, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, key)
    found = {}
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise _Refused(name.start_mark, "a key is a list or a mapping; needed a word before the colon")
        inner = (*key, _text(name, (*key, name.value)))
        if name.value in found:
            raise _Refused(name.start_mark, f"{dotted(inner)} is given twice, on line {lines[inner]} too. Keep one of them")
        lines[inner] = name.start_mark.line + 1
        found[name.value] = _value(value, inner, lines)
    return found


def _text(node: yaml.ScalarNode, key: Key) -> str:
    if "\0" in node.value or any("\ud800" <= letter <= "\udfff" for letter in node.value):
        raise _Refused(node.start_mark, f"{shown(dotted(key))} holds what no text may hold. Remove the escape")
    return node.value


def _scalar(node: yaml.ScalarNode, key: Key):
    """Quoted and block scalars are text; plain ones what YAML 1.2's core schema says, or refused."""
    text = _text(node, key)
    if node.style is not None:
        return text
    if text == "":
        raise _Refused(node.start_mark, f"{dotted(key)} has no value. Give one, or leave the key out")
    if text in WORDS:
        return WORDS[text]
    for pattern, reading in ((LEADING_ZERO, "octal"), (SEXAGESIMAL, "base 60")):
        if pattern.fullmatch(text):
            words = f"{dotted(key)} is {clipped(text)}, which YAML 1.1 reads as {reading}"
            raise _Refused(node.start_mark, f"{words}. Write a plain number in the key's unit, or '{clipped(text)}' in quotes")
    if WHOLE.fullmatch(text) and len(text) <= MOST_DIGITS:
        return int(text)
    if REAL.fullmatch(text):
        return _number(float(text), node, key)
    return text


def _number(value: float, node: yaml.ScalarNode, key: Key) -> float | int:
    """1e6 is the whole number that it says."""
    if math.isinf(value):
        raise _Refused(node.start_mark, f"{dotted(key)} is {clipped(node.value)}, too large for a number. Write a smaller one")
    return int(value) if "." not in node.value and abs(value) < 2**53 and value.is_integer() else value
