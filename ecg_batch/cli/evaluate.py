"""Hold a finished dataset against real ECGs: fidelity, clinical validity, privacy, usefulness.

Writes REPORT/report.html (opens offline), REPORT/report.json and REPORT/trainings.jsonl. An evaluation that was killed keeps the
trainings that were done: run the same command again. Of records longer than ten seconds only the two-sample test is made.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import setting
from ecg_batch.cli.settings import settings

SECTIONS = ("judge", "fidelity", "distortion", "clinical validity", "diversity and privacy", "two-sample test", "refinement",
            "usefulness")  # fmt: skip
EXAMPLES = """examples:
  ecg-batch evaluate runs/augment --ptbxl PTBXL --out runs/report
  ecg-batch evaluate runs/augment --ptbxl PTBXL --out runs/report --skip usefulness --set workers=8
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DIR", help="a finished dataset")
    parser.add_argument("--ptbxl", type=Path, required=True, metavar="DIR", help="PTB-XL in its original layout")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT", help="folder for the report")
    parser.add_argument("--judges", type=Path, metavar="DIR", help="folder of judge.safetensors and encoder.safetensors (default: "
                        "bundled)")  # fmt: skip
    parser.add_argument("--set", nargs="+", type=setting, action="extend", default=[], metavar="KEY=VALUE",
                        help="folds, few_folds, seeds, steps, records, compared, delineated, workers, told_seeds, told_steps"
                        )  # fmt: skip
    parser.add_argument("--skip", nargs="+", action="extend", default=[], choices=SECTIONS, metavar="SECTION",
                        help=f"any of: {', '.join(SECTIONS)}")  # fmt: skip


def run(arguments: Namespace) -> int:
    from ecg_batch.errors import need

    need("evaluate", "sklearn", "neurokit2")
    from ecg_batch.bundled import BUNDLED
    from ecg_batch.evaluation.report import evaluate_dataset
    from ecg_batch.evaluation.sections import Settings

    (chosen,) = settings(arguments.set, Settings())
    skip, judges = tuple(arguments.skip), arguments.judges or BUNDLED
    report = evaluate_dataset(arguments.dataset, arguments.ptbxl, arguments.out, chosen, skip, judges)
    for line in report["first lines"]:
        print(line)
    verdict = {True: "met", False: "NOT MET", None: "not measured"}
    for bar in report["bars"]:
        print(f"{verdict[bar['met']]}: {bar['what']}: {bar['found']} ({bar['bar']})")
    print(f"{arguments.out}/report.html")
    return 0
