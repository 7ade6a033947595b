"""What the fuzz asks of every input: refused in words or read as it says, at once, in bounded memory, and nothing is written.

Inputs are sound ones with a few things changed, so that most come past the first check. Beside this are their makers: of text
that is cut and spliced, and of JSON values that are put where others were.
"""

import os
import re
import resource
import signal
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from ecg_batch.errors import UserError

MOST_S = 20  # any one reading takes milliseconds
MOST_BYTES = 2 << 30  # more than was there before: the largest sound input takes a tenth
MOST_WORDS = 2000  # characters of a refusal

Key = tuple[str | int, ...]


def examples(share: float) -> settings:
    """So many of the profile's examples: tests differ in what one costs."""
    return settings(max_examples=max(1, round(share * settings.default.max_examples)))


# The properties -------------------------------------------------------------------------------------------------------


class Refused(str):
    """The words of a refusal."""


def answer(read: Callable, *named: str, folder: Path | None = None):
    """What read gives, or the words in which it refuses. Fails where it raises anything else, does not come back, takes more memory
    than it may, makes Python or numpy warn, changes a file of the folder, or where the words name none of `named`, are no one line
    or without end.
    """
    before = files_of(folder)
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            found = read()
    except UserError as error:
        found = Refused(error)
        assert found.isprintable(), repr(found)
        assert len(found) < MOST_WORDS, found
        assert not named or any(name in found for name in named), (named, found)
    assert files_of(folder) == before, "something was written"
    return found


def files_of(folder: Path | None) -> dict[str, tuple]:
    """Each file and folder below a folder, and its state."""
    if folder is None:
        return {}
    paths = [folder, *folder.rglob("*")]
    stats = {str(path): os.lstat(path) for path in paths}
    return {path: (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


@contextmanager
def bounded():
    """TimeoutError after MOST_S, MemoryError beyond MOST_BYTES more than there are."""

    def stop(number, frame):
        raise TimeoutError(f"not done after {MOST_S} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MOST_S)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def instead(path: Path, data: bytes | str):
    """The file with other content, and as it was again."""
    whole = path.read_bytes()
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", errors="surrogatepass"))
    try:
        yield path
    finally:
        path.write_bytes(whole)


# Text -----------------------------------------------------------------------------------------------------------------

ODD_TEXT = (
    "", " ", "0", "-1", "+1", "1.", ".5", "1e3", "1e400", "-1e-400", "nan", ".nan", "-.inf", "inf", "Infinity", "010", "0x1F",
    "1:30", "1_000", "9" * 25, "9" * 5000, "null", "~", "true", "yes", "None", "2026-11-28", "'", '"', "\\", "[]", "{}", "[" * 50,
    "{a: " * 50, "&a", "*a", "!!int 3", "#", "%", "---", "?", "|", ">", ",", ":", ";", "=", "\t", "\r", "\n", "\0", "\x1b[31m",
    "\x85", "\u2028", "\ufeff", "é", "µ", "１２", "٣", "²", "a" * 300, "../x", "/dev/zero", "~nosuchuser", "%j", "$(x)", "`x`",
    "a b", "x\ny",
)  # fmt: skip
pieces = st.sampled_from(ODD_TEXT) | st.text(max_size=12) | st.integers().map(str) | st.floats().map(repr)
WORD = re.compile(r"\w[\w.+-]*|\s+|[^\w\s]")


@st.composite
def changed_text(draw, text: str, most: int = 3, words: st.SearchStrategy = pieces) -> str:
    """The text with one to `most` of its words, marks, blanks or lines replaced by `words`, doubled, moved or removed."""
    for _ in range(draw(st.integers(1, most))):
        parts = draw(st.sampled_from((WORD.findall, lambda text: text.splitlines(True), list)))(text)
        if not parts:
            return draw(words)
        at, other = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        change = draw(st.sampled_from(("replace", "insert", "remove", "repeat", "move")))
        if change == "replace":
            parts[at] = draw(words)
        elif change == "insert":
            parts.insert(at, draw(words))
        elif change == "remove":
            del parts[min(at, other) : min(at, other) + draw(st.integers(1, 3))]
        elif change == "repeat":
            parts.insert(other, parts[at])
        else:
            parts.insert(other, parts.pop(at))
        text = "".join(parts)
    return text


@st.composite
def changed_bytes(draw, data: bytes) -> bytes:
    """The bytes with one to three stretches of them cut out, overwritten or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 40)))
        data = data[:start] + draw(st.binary(max_size=8) | st.just(data[start:stop] * 2)) + data[stop:]
    return data


# Values ---------------------------------------------------------------------------------------------------------------

ODD_VALUES = (None, True, False, 0, 1, -1, 2**31, 2**63, 10**40, 0.5, -0.0, 1e300, float("nan"), float("inf"), "", "x", "0", "zarr",
              "hdf5", "../x", "a\nb", "\x1b[31m", "x" * 500, "\0")  # fmt: skip
plain_values = st.sampled_from(ODD_VALUES) | st.integers() | st.floats()
odd_values = st.recursive(
    plain_values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2), max_leaves=4
)


def paths_of(value, below: Key = ()) -> list[Key]:
    """The key of every value inside a value of dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, held in inner for path in ((*below, key), *paths_of(held, (*below, key)))]


@st.composite
def changed_value(draw, value, odd=odd_values, most: int = 2):
    """The value with one to `most` of what it holds replaced by odd or by each other, removed, or under another key."""
    value = deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        if not (paths := paths_of(value)):
            return draw(odd)
        *way, last = draw(st.sampled_from(paths))
        holder = _at(value, way)
        change = draw(st.sampled_from(("odd", "odd", "odd", "near", "other", "remove", "add")))
        if change == "odd":
            holder[last] = draw(odd)
        elif change == "near":
            holder[last] = draw(_near(holder[last]))
        elif change == "other":
            holder[last] = deepcopy(_at(value, draw(st.sampled_from(paths))))
        elif change == "remove":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8) | st.sampled_from(sorted({str(path[-1]) for path in paths})))] = draw(odd)
        else:
            holder.insert(last, draw(odd))
    return value


def _at(value, way):
    for key in way:
        value = value[key]
    return value


def _near(value):
    """Values of the same type, or that print the same: what a hasty check lets through."""
    if isinstance(value, bool) or value is None:
        return st.sampled_from((None, True, False))
    if isinstance(value, int):
        return st.sampled_from((value + 1, value - 1, -value, 2 * value, float(value), str(value), [value])) | st.integers()
    if isinstance(value, float):
        return st.sampled_from((-value, 2 * value, round(value) if abs(value) < 1e9 else 0, str(value))) | st.floats()
    if isinstance(value, str):
        return changed_text(value, 1)
    return st.sampled_from(([], {}, list(value), dict.fromkeys(map(str, value))))
