"""Make a bank of real donors from PTB-XL and other registries of WFDB records, with a figure of it."""

import logging
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ecg_batch.cli.parser import folder, positive
from ecg_batch.pool import usable_cores

log = logging.getLogger(__name__)

EXAMPLES = """examples:
  ecg-batch prepare --ptbxl PTBXL --out runs/bank
  ecg-batch prepare --ptbxl PTBXL --out runs/bank --download        fetches PTB-XL first
  ecg-batch prepare --ptbxl PTBXL --wfdb georgia --wfdb chapman --out runs/bank

next: ecg-batch train vqvae --bank runs/bank --out runs/models
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--ptbxl", type=Path, metavar="DIR", help="PTB-XL in its original layout")
    parser.add_argument("--wfdb", type=Path, action="append", default=[], metavar="DIR", help="another registry: a folder of "
                        "12-lead WFDB records whose headers say age, sex and SNOMED CT codes; may be given several times, with "
                        "--ptbxl or without; its name becomes that of the donors' source")  # fmt: skip
    parser.add_argument("--out", type=folder, required=True, metavar="DIR", help="folder for the bank")
    parser.add_argument("--fs", type=int, choices=(100, 500), default=100, help="sampling rate in Hz (default: 100)")
    parser.add_argument("--donors", type=positive, metavar="N", help="donors in the bank (default: 3336, fewer where classes "
                        "cannot be balanced)")  # fmt: skip
    parser.add_argument("--workers", type=positive, default=usable_cores(), metavar="N", help="processes (default: all cores that "
                        "this process may use)")  # fmt: skip
    parser.add_argument("--download", action="store_true", help="first fetch PTB-XL into --ptbxl; a broken download resumes")


def run(arguments: Namespace) -> int:
    import json

    from ecg_batch.donors import figure
    from ecg_batch.donors.download import download
    from ecg_batch.donors.prepare import prepare
    from ecg_batch.donors.sources import read_sources
    from ecg_batch.errors import UserError, number_of

    bank = arguments.out
    if (bank / "donors.zarr").exists():
        raise UserError(f"{bank}: holds a bank; datasets may refer to it by its hash. Choose another --out, or delete it first")
    if not (arguments.ptbxl or arguments.wfdb):
        raise UserError("no recordings are named; needed --ptbxl DIR, --wfdb DIR, or both")
    if arguments.download and not arguments.ptbxl:
        raise UserError("--download fetches PTB-XL, and there is no folder for it; add --ptbxl DIR, or leave --download out")
    if arguments.download:
        download(arguments.ptbxl, arguments.fs)
    report = prepare(read_sources(arguments.ptbxl, arguments.wfdb, arguments.fs), bank, arguments.donors, arguments.workers)
    print(json.dumps({key: value for key, value in report.items() if key != "donors_by_statement"}, indent=1))
    try:
        figure.draw(bank, bank / "bank.png")
        pictured = f"; figure: {bank / 'bank.png'}"
    except Exception as error:  # the bank is whole, and its figure a look at it
        log.warning("%s: no figure could be drawn (%s: %s); the bank is whole", bank, type(error).__name__, str(error)[:200])
        pictured = ""
    print(f"{number_of(report['donors'], 'donor')} of {number_of(report['donor_patients'], 'patient')} in {bank}{pictured}")
    return 0
