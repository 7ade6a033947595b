"""Write one page about a finished dataset: what was asked, what was made, from whom, and records on ECG paper.

The page is one HTML file of 3 MB at most. It needs nothing else, on a phone or on paper, and loads nothing.
"""

from argparse import ArgumentParser, Namespace

from ecg_batch.cli.parser import folder

EXAMPLES = """examples:
  ecg-batch report runs/demo
  ecg-batch report runs/demo --out demo.html
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=folder, metavar="DIR", help="a finished dataset")
    parser.add_argument("--out", type=folder, metavar="HTML", help="default: DIR.report.html, beside the dataset")


def run(arguments: Namespace) -> int:
    from ecg_batch.report.page import write_report

    folder = arguments.dataset.resolve()
    out = arguments.out or folder.with_name(f"{folder.name}.report.html")
    written = write_report(folder, out)
    print(f"{out}: {written / 1e6:.2f} MB")
    return 0
