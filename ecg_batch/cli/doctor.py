"""Tell what a support thread would ask for: versions, kernels, memory, GPU, Slurm, folders. Exit 1 where a run could not work.

Paste what it prints into a report. Lines with ! would keep a run from working, those with ? are worth a look; both come again at
the end with what to do. Nothing is changed, and the one folder that it makes beside --out to try the file system is removed.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import folder

EXAMPLES = """examples:
  ecg-batch doctor
  ecg-batch doctor --out /scratch/me/million --cluster configs/slurm.yaml
  ecg-batch doctor --json
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=folder, metavar="DIR", help="where a dataset would go: its file system is tried "
                        "(default: the present folder)")  # fmt: skip
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="a cluster file: whether the nodes here could hold its tasks")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(arguments: Namespace) -> int:
    from ecg_batch.run.doctor.examine import examine, keeps_from_working
    from ecg_batch.run.doctor.facts import lines

    facts = examine(arguments.out, arguments.cluster)
    if arguments.json:
        import json
        from dataclasses import asdict

        print(json.dumps([asdict(fact) for fact in facts], indent=1))
    else:
        print("\n".join(lines(facts)))
    return 1 if keeps_from_working(facts) else 0
