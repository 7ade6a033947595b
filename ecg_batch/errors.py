"""The exceptions a user is meant to read: what came, what was needed, why, what to do next."""

from collections.abc import Iterable
from pathlib import Path

MOST_ECHO = 200  # characters of what came, in a message


class UserError(Exception):
    """Something the user can mend. The command prints its text without a traceback and exits with 2.

    The text is one line that a terminal shows as it stands, whatever names, values and errors of others are in it.
    """

    def __init__(self, text: object = "") -> None:
        super().__init__(printable(str(text)))


class ShardsFailed(Exception):
    """Some shards failed by themselves; the others are done and kept. The command exits with 1."""


def printable(text: str) -> str:
    """Text in which what breaks the line, moves a terminal's cursor or has no letter is written as its escape."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def clipped(text: str, most: int = MOST_ECHO) -> str:
    """Text for a message: whole where it is short, else its beginning and its length."""
    short = printable(text[: most + 1])
    return short if len(short) <= most else f"{short[:most]}... ({len(text):,} characters)"


def shown(value) -> str:
    """A value as a message shows it."""
    return "null" if value is None else clipped(repr(value))


def shown_path(path: Path | str) -> str:
    """A path as a message shows it, whatever its name holds."""
    text = str(path)
    return clipped(text if text.isprintable() else ascii(text))


def number_of(count: int, noun: str, verb: str = "") -> str:
    """'1 shard', '1,200 shards'. verb: 'are' or 'have', which follows, as 'is' or 'has' where it is one."""
    follows = {"are": "is", "have": "has"}.get(verb, "") if count == 1 else verb
    return f"{count:,} {noun}{'s' * (count != 1)}{' ' * bool(verb)}{follows}"


def suggestion(word: str, known: Iterable[str], most: int = 1) -> str:
    """' (did you mean x?)' where a known word is close, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word[:MOST_ECHO], list(known), n=most)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


# Packages that only extras install -------------------------------------------------------------------------------------

EXTRA_OF = {"torch": "synthesize", "submitit": "slurm", "sklearn": "train", "neurokit2": "evaluate"}


class MissingPackage(UserError, ImportError):
    """A package that only an extra of pyproject.toml installs is not there. An ImportError too, for whoever can do without."""


def need(extra: str, *modules: str) -> None:
    """MissingPackage where a package of an optional extra is not installed."""
    from importlib.util import find_spec

    if absent := [name for name in modules if find_spec(name) is None]:
        raise MissingPackage(
            f"{', '.join(absent)} not installed; this needs the extra '{extra}': pip install "
            f"'ecg-batch[{extra}]', or in a checkout pip install -e '.[{extra}]'"
        )


def in_words(error: ModuleNotFoundError, extra: str = "") -> ModuleNotFoundError | MissingPackage:
    """The error, or where an extra would have installed the package, by default that of EXTRA_OF, the sentence that names it."""
    if error.name not in EXTRA_OF:
        return error
    try:
        need(extra or EXTRA_OF[error.name], error.name)
    except MissingPackage as missing:
        return missing
    return error
