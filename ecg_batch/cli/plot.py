"""Draw records of a finished dataset on ECG paper, each beside its donor; of long records one, with its rhythm."""

from argparse import ArgumentParser, Namespace

from ecg_batch.cli.parser import folder, numbers

EXAMPLES = """examples:
  ecg-batch plot runs/demo
  ecg-batch plot runs/demo --records 3,4 --out two.png
  ecg-batch plot runs/day --records 0 --at 43200        ten seconds from noon on, of a record that begins at midnight
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=folder, metavar="DIR", help="a finished dataset")
    parser.add_argument("--records", type=numbers, metavar="N,N,...", help="which records (default: the first of three labels)")
    parser.add_argument("--out", type=folder, metavar="PNG", help="default: DIR.png, beside the dataset")
    parser.add_argument("--at", type=float, metavar="SECONDS", help="where the strip of a long record begins (default: at an "
                        "ectopic beat, or in the middle)")  # fmt: skip


def run(arguments: Namespace) -> int:
    from ecg_batch.arrow import leave_pandas_out
    from ecg_batch.plot.records import plot_dataset

    leave_pandas_out()
    out = arguments.out or arguments.dataset.with_name(f"{arguments.dataset.name}.png")
    chosen = plot_dataset(arguments.dataset, out, arguments.records, arguments.at)
    print(f"record{'s'[: len(chosen) != 1]} {', '.join(map(str, chosen))} on ECG paper: {out}")
    return 0
