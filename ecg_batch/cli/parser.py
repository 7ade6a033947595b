"""What the parsers of all subcommands share: one spelling of errors, -v and -q anywhere, and types of arguments."""

import argparse
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ecg_batch.cli.outcome import print_error
from ecg_batch.errors import UserError, clipped, shown
from ecg_batch.remote.url import is_url, local_path, refuse_url

WHOLE = "[0-9]{1,9}"
SHORTEST_S, LONGEST_S = 0.1, 86_400  # of a pause


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, as the rest of the command does."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{message}. {self.prog} --help tells more")
        self.exit(2)


def verbosity() -> Parser:
    """-v and -q, for the command and each of its subcommands. Nothing is set where neither is given."""
    parser = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    either = parser.add_mutually_exclusive_group()
    option = {"dest": "verbosity", "action": "store_const"}
    either.add_argument("-v", "--verbose", const=logging.DEBUG, help="tell also of kernels, times and questions to Slurm", **option)
    either.add_argument("-q", "--quiet", const=logging.WARNING, help="tell of nothing but results, warnings and errors", **option)
    return parser


def add_command(commands, name: str, text: str, examples: str, add_arguments: Callable) -> Parser:
    """A subcommand. text: its description, whose first sentence says what it does; examples: for the end of its help."""
    first = text.strip().splitlines()[0].split(". ")[0].rstrip(".")
    command = commands.add_parser(
        name,
        help=first[0].lower() + first[1:],
        description=text,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[verbosity()],
    )
    add_arguments(command)
    return command


# Types of arguments ---------------------------------------------------------------------------------------------------


def folder(text: str) -> Path:
    """A folder of this machine."""
    try:
        refuse_url(text, "this command works")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return local_path(text)


def place(text: str) -> Path | str:
    """A folder, or a URL as it stands."""
    return text if is_url(text) else local_path(text)


def positive(text: str) -> int:
    if not re.fullmatch(rf"{WHOLE}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{clipped(text)}; needed a whole number from 1 to 999,999,999")
    return int(text)


def seconds(text: str) -> float:
    """Of a pause: one that time.sleep takes, and that ends."""
    try:
        pause_s = float(text)
    except ValueError:
        pause_s = math.nan
    if not SHORTEST_S <= pause_s <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{clipped(text)}; needed seconds from {SHORTEST_S:g} to {LONGEST_S:,}")
    return pause_s


def numbers(text: str) -> list[int]:
    if not re.fullmatch(rf"{WHOLE}(,{WHOLE})*", text):
        raise argparse.ArgumentTypeError(f"{shown(text)}; needed numbers with commas, for example 17,31")
    return [int(part) for part in text.split(",")]


def shards(text: str) -> frozenset[int]:
    return frozenset(numbers(text))


def span(text: str) -> slice:
    if not re.fullmatch(rf"({WHOLE})?:({WHOLE})?", text):
        raise argparse.ArgumentTypeError(f"{shown(text)}; needed FIRST:STOP, for example 0:1000")
    return slice(*(int(part) if part else None for part in text.split(":")))


def pair(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{shown(text)}; needed COLUMN=VALUE, for example label=AFIB")
    return text


def setting(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{shown(text)}; needed KEY=VALUE. Whatever else the command takes stands before --set")
    return text
