"""Draw records of a finished dataset on ECG paper, each beside its donor; of long records one, with its rhythm."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="a finished dataset")
    parser.add_argument("--records", type=lambda text: [int(part) for part in text.split(",")], metavar="N,N,...",
                        help="which records (default: the first of three labels)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="PNG", help="default: DIR.png, beside the dataset")
    parser.add_argument("--at", type=float, metavar="SECONDS", help="where the strip of a long record begins (default: at an "
                        "ectopic beat, or in the middle)")  # fmt: skip
    arguments = parser.parse_args()
    from ecg_batch.errors import UserError
    from ecg_batch.plot import plot_dataset

    out = arguments.out or arguments.dataset.with_name(f"{arguments.dataset.name}.png")
    try:
        chosen = plot_dataset(arguments.dataset, out, arguments.records, arguments.at)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"records {', '.join(map(str, chosen))} on ECG paper: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
