"""Verify a dataset: every file against its sum, every record against the lead identities. Exit 0, or 1 with each
problem named.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the --out of jobs/synthesize.py, finished or not")
    parser.add_argument("--repair", action="store_true", help="delete the receipts of damaged shards, so that the command which "
                        "made the dataset makes just these again")  # fmt: skip
    arguments = parser.parse_args()
    from ecg_batch.errors import UserError
    from ecg_batch.plan import find_run
    from ecg_batch.repair import describe_repair
    from ecg_batch.verify import verify

    problems = 0
    try:
        folder = find_run(arguments.dataset)
        for problem in verify(folder):
            print(problem)
            problems += 1
        if problems and arguments.repair:
            print(describe_repair(folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{folder}: {problems} problem{'s'[: problems != 1]} found" if problems else f"{folder}: all is well")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
