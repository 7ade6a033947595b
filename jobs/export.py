"""Write a finished dataset, or a part of it, in another format. Run it again to carry on where it stopped.

python jobs/export.py DIR --format ptbxl          WFDB records and tables in PTB-XL's layout; .atr beside long records
python jobs/export.py DIR --format hdf5           one HDF5 file per shard
python jobs/export.py DIR --format npy --where label=AFIB --where flags= --records 0:1000
"""

import argparse
import os
import re
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DIR", help="the --out of a finished jobs/synthesize.py")
    parser.add_argument("--format", required=True, choices=("ptbxl", "hdf5", "npy"))
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder (default: DIR-FORMAT)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="only records with this value in "
                        "records.parquet; several must all hold")  # fmt: skip
    parser.add_argument("--records", type=span, metavar="FIRST:STOP", help="of those, only these, counted from 0")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers is {arguments.workers}; needed 1 or more")
    if any("=" not in pair for pair in arguments.where):
        parser.error("--where needs COLUMN=VALUE, for example --where label=AFIB")
    return arguments


def span(text: str) -> slice:
    if not re.fullmatch(r"\d*:\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r}; needed FIRST:STOP, for example 0:1000")
    return slice(*(int(part) if part else None for part in text.split(":")))


def main() -> int:
    arguments = parse()
    from ecg_batch.errors import UserError
    from ecg_batch.export import export
    from ecg_batch.read import open_dataset

    out = arguments.out or arguments.dataset.resolve().with_name(f"{arguments.dataset.resolve().name}-{arguments.format}")
    try:
        dataset = open_dataset(arguments.dataset)
        for pair in arguments.where:
            dataset = dataset.where_text(*pair.split("=", 1))
        if arguments.records:
            dataset = dataset.select(arguments.records)
        export(dataset, out, arguments.format, arguments.workers)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to carry on", file=sys.stderr)
        return 130
    print(f"{out}: {len(dataset):,} records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
