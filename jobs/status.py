"""Show how far a run is: shards done, running, failed; speed; time left."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the --out of jobs/synthesize.py, finished or not")
    arguments = parser.parse_args()
    from ecg_batch.errors import UserError
    from ecg_batch.plan import find_run
    from ecg_batch.status import describe

    try:
        text, well = describe(find_run(arguments.dataset))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
