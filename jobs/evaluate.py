"""Hold a finished dataset against real ECGs: python jobs/evaluate.py DIR --ptbxl PTBXL --out REPORT

Writes REPORT/report.html (opens offline), REPORT/report.json and REPORT/trainings.jsonl. A killed evaluation keeps the trainings
that were done: run the same command again.
"""

import argparse
import sys
from pathlib import Path

SECTIONS = ("judge", "fidelity", "distortion", "clinical validity", "diversity and privacy", "refinement", "usefulness")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="a finished dataset")
    parser.add_argument("--ptbxl", type=Path, required=True, help="PTB-XL in its original layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--judges", type=Path, help="folder of judge.safetensors and encoder.safetensors (default: bundled)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="folds, few_folds, seeds, steps, records, "
                        "compared, delineated, workers")  # fmt: skip
    parser.add_argument("--skip", nargs="+", default=[], choices=SECTIONS, metavar="SECTION", help=f"any of: {', '.join(SECTIONS)}")
    args = parser.parse_args()
    from ecg_batch.errors import UserError

    try:
        return run(args)
    except UserError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    from train import settings

    from ecg_batch.errors import need

    need("evaluate", "sklearn", "neurokit2")
    from ecg_batch.evaluate import Settings
    from ecg_batch.evaluate_report import evaluate_dataset
    from ecg_batch.request import BUNDLED

    (chosen,) = settings(args.set, Settings(), fixed=())
    report = evaluate_dataset(args.dataset, args.ptbxl, args.out, chosen, tuple(args.skip), args.judges or BUNDLED)
    for line in report["first lines"]:
        print(line)
    for bar in report["bars"]:
        print(
            f"{ {True: 'met', False: 'NOT MET', None: 'not measured'}[bar['met']] }: {bar['what']}: {bar['found']} ({bar['bar']})"
        )
    print(f"{args.out}/report.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
