"""Show how far a run is: shards done, running, failed, by node; speed; energy; time left; stragglers.

It reads files alone, so it may be asked from any machine that sees the folder. Exit 1 where shards have failed.
"""

import sys
import time
from argparse import ArgumentParser, Namespace

from ecg_batch.cli.outcome import INTERRUPTED
from ecg_batch.cli.parser import place, seconds

EXAMPLES = """examples:
  ecg-batch status runs/demo
  ecg-batch status runs/demo --watch 10
"""
WATCH_S = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=place, metavar="DIR", help="the --out of ecg-batch synthesize, finished or not; or "
                        "the URL of a finished one")  # fmt: skip
    parser.add_argument("--watch", nargs="?", type=seconds, const=WATCH_S, metavar="SECONDS",
                        help=f"show it again every {WATCH_S:g} s, or SECONDS, until the run is finished")  # fmt: skip


def run(arguments: Namespace) -> int:
    from ecg_batch.dataset.run import find_folder
    from ecg_batch.run.status import describe

    text, well = describe(folder := find_folder(arguments.dataset))
    try:
        while arguments.watch is not None and folder.suffix == ".partial":
            print(f"\033[2J\033[H{text}" if sys.stdout.isatty() else f"{text}\n", flush=True)
            time.sleep(arguments.watch)
            text, well = describe(folder := find_folder(arguments.dataset))
    except KeyboardInterrupt:  # how a watch ends
        return INTERRUPTED
    print(text)
    return 0 if well else 1
