"""ecg-batch --print-completion SHELL: a script that completes subcommands, options and files, made by shtab."""

import argparse
from pathlib import Path

from ecg_batch.cli.parser import folder, place

FILES = ("REQUEST", "FILE", "PNG")  # metavars of arguments that are files; other paths are folders


class PrintCompletion(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        import shtab

        _mark_paths(parser, shtab)
        print(shtab.complete(parser, values))
        parser.exit(0)


def _mark_paths(parser: argparse.ArgumentParser, shtab) -> None:
    """Say of each argument that is a path whether a file or a folder completes it."""
    for action in parser._actions:  # argparse has no other way to its arguments; shtab goes the same
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_paths(command, shtab)
        elif action.type in (Path, folder, place):
            action.complete = shtab.FILE if action.metavar in FILES else shtab.DIRECTORY
