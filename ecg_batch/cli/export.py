"""Write a finished dataset, or a part of it, in another format. Run it again to carry on where it stopped.

formats:
  ptbxl   WFDB records and tables in PTB-XL's layout; .atr beside long records
  wfdb    the same: .hea, .dat and .atr are what WFDB reads
  hdf5    one HDF5 file per shard
  npy     one array, and the table
  webdataset   tars with .npy, .json and .beats.json of each record
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import folder, pair, place, positive, span
from ecg_batch.cli.threads import one_thread
from ecg_batch.errors import number_of
from ecg_batch.pool import usable_cores
from ecg_batch.remote.url import is_url

EXAMPLES = """examples:
  ecg-batch export runs/demo --format ptbxl
  ecg-batch export runs/demo --format webdataset --where flags=
  ecg-batch export runs/demo --format npy --where label=AFIB --where flags= --records 0:1000 --out afib
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=place, metavar="DIR", help="the --out of a finished ecg-batch synthesize, or its "
                        "URL")  # fmt: skip
    parser.add_argument("--format", required=True, choices=("ptbxl", "wfdb", "hdf5", "npy", "webdataset"))
    parser.add_argument("--out", type=folder, metavar="DIR", help="a new folder (default: DIR-FORMAT; of a URL in this folder)")
    parser.add_argument("--workers", type=positive, default=usable_cores(), metavar="N", help="processes (default: all cores)")
    parser.add_argument("--where", type=pair, action="append", default=[], metavar="COLUMN=VALUE", help="only records with this "
                        "value in records.parquet; several must all hold")  # fmt: skip
    parser.add_argument("--records", type=span, metavar="FIRST:STOP", help="of those, only these, counted from 0")


def run(arguments: Namespace) -> int:
    one_thread()
    from ecg_batch.export.formats import export
    from ecg_batch.reading.synthetic import open_dataset

    whole = Path(arguments.dataset.rstrip("/")) if is_url(arguments.dataset) else arguments.dataset.resolve()
    beside = Path.cwd() if is_url(arguments.dataset) else whole.parent
    out = arguments.out or beside / f"{whole.name}-{arguments.format}"
    dataset = open_dataset(arguments.dataset)
    for condition in arguments.where:
        dataset = dataset.where_text(*condition.split("=", 1))
    if arguments.records:
        dataset = dataset.select(arguments.records)
    export(dataset, out, "ptbxl" if arguments.format == "wfdb" else arguments.format, arguments.workers)
    print(f"{out}: {number_of(len(dataset), 'record')}")
    return 0
