"""Labelled synthetic 12-lead ECGs at scale: from a request to a finished, verified dataset."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from ecg_batch.cli import configs, doctor, evaluate, export, plot, prepare, report, status, synthesize, train, verify
from ecg_batch.cli.completion import PrintCompletion
from ecg_batch.cli.logs import log_from
from ecg_batch.cli.outcome import exit_status
from ecg_batch.cli.parser import Parser, add_command, verbosity
from ecg_batch.errors import UserError

COMMANDS = {
    "configs": configs,
    "synthesize": synthesize,
    "status": status,
    "verify": verify,
    "plot": plot,
    "report": report,
    "export": export,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "doctor": doctor,
}
EXAMPLES = """examples:
  ecg-batch configs                                             copies the example requests into ./configs
  ecg-batch synthesize configs/demo.yaml --out runs/demo        2,048 records in some seconds
  ecg-batch plot runs/demo
  ecg-batch COMMAND --help

exit status: 0 done; 1 shards failed, or problems were found; 2 something you can mend; 130 interrupted
"""


class PrintVersion(argparse.Action):
    """As argparse's own, but for what is looked up only when asked for."""

    def __call__(self, parser, *given) -> None:
        from importlib.metadata import version

        from ecg_batch.kernels.build import kernels

        print(f"ecg-batch {version('ecg-batch')}, kernels {kernels()}")
        parser.exit()


def main(words: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those it was called with. Returns the exit status."""
    return exit_status(lambda: _run(sys.argv[1:] if words is None else words))


def _run(words: Sequence[str]) -> int:
    arguments = build_parser().parse_args(words)
    if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path that a terminal cannot show is no reason to fail
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own, inherited by its shell, is nothing that matplotlib knows here
    log_from(getattr(arguments, "verbosity", logging.INFO))
    if arguments.run is not doctor.run:  # which tells of it
        refuse_other_encoding(words, sys.getfilesystemencoding())
    return arguments.run(arguments)


def refuse_other_encoding(words: Sequence[str], encoding: str) -> None:
    """UserError where names of files are not read as UTF-8 and a word has letters beyond ASCII: what reads Parquet takes all
    names for UTF-8, so that it would find nothing, and files would seem damaged.
    """
    if encoding.lower().replace("-", "") != "utf8" and not all(word.isascii() for word in words):
        raise UserError(
            f"names of files are read as {encoding} here, and one that was given has letters beyond ASCII; needed UTF-8. Set "
            "PYTHONUTF8=1, or give paths of plain ASCII"
        )


def build_parser() -> Parser:
    parser = Parser(
        prog="ecg-batch",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[verbosity()],
    )
    parser.add_argument(
        "--print-completion", action=PrintCompletion, choices=("bash", "zsh", "tcsh"), help="print a completion script for a shell"
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version, and which kernels run here")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = add_command(commands, name, module.__doc__, module.EXAMPLES, module.add_arguments)
        command.set_defaults(run=module.run)
    return parser
