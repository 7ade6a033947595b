"""Show how far a run is: shards done, running, failed, by node; speed; energy; time left; stragglers. From files alone."""

import argparse
import sys
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the --out of jobs/synthesize.py, finished or not")
    parser.add_argument("--watch", nargs="?", type=float, const=5.0, metavar="SECONDS", help="show it again every 5 s, or SECONDS, "
                        "until the run is finished")  # fmt: skip
    arguments = parser.parse_args()
    from ecg_batch.errors import UserError
    from ecg_batch.plan import find_run
    from ecg_batch.status import describe

    try:
        text, well = describe(folder := find_run(arguments.dataset))
        while arguments.watch is not None and folder.suffix == ".partial":
            print(f"\033[2J\033[H{text}" if sys.stdout.isatty() else f"{text}\n", flush=True)
            time.sleep(max(arguments.watch, 0.1))
            text, well = describe(folder := find_run(arguments.dataset))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
