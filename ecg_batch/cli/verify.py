"""Verify a dataset: every file against its sum, every record against the lead identities.

Exit 0, or 1 with each problem named.
"""

from argparse import ArgumentParser, Namespace

from ecg_batch.cli.parser import place
from ecg_batch.errors import UserError
from ecg_batch.remote.url import is_url, shown_url

EXAMPLES = """examples:
  ecg-batch verify runs/demo
  ecg-batch verify s3://bucket/runs/demo
  ecg-batch verify runs/demo --repair        then the ecg-batch synthesize command again
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=place, metavar="DIR", help="the --out of ecg-batch synthesize, finished or not; or "
                        "the URL of a finished one")  # fmt: skip
    parser.add_argument("--repair", action="store_true", help="delete the receipts of damaged shards, so that the command which "
                        "made the dataset makes just these again")  # fmt: skip


def run(arguments: Namespace) -> int:
    from ecg_batch.dataset.run import find_folder
    from ecg_batch.dataset.verify import verify
    from ecg_batch.progress import beside_a_bar
    from ecg_batch.run.repair import describe_repair

    if arguments.repair and is_url(arguments.dataset):
        raise UserError(f"{shown_url(arguments.dataset)}: --repair works in a folder. Verify without it, and copy what it names "
                        "there again, or repair the folder that this is a copy of")  # fmt: skip
    folder, problems = find_folder(arguments.dataset), 0
    for problem in verify(folder):
        with beside_a_bar():
            print(problem, flush=True)
        problems += 1
    if problems and arguments.repair:
        print(describe_repair(folder))
    print(f"{folder}: {problems} problem{'s'[: problems != 1]} found" if problems else f"{folder}: all is well")
    return 1 if problems else 0
