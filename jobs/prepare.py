"""Makes a bank of real donors from PTB-XL: python jobs/prepare.py --ptbxl DIR --out BANK"""

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ptbxl", type=Path, required=True, help="PTB-XL in its original layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the bank")
    parser.add_argument("--fs", type=int, choices=(100, 500), default=100, help="sampling rate in Hz (default 100)")
    parser.add_argument("--donors", type=int, help="donors in the bank (default 3336, fewer where classes cannot be balanced)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: all cores)")
    parser.add_argument("--download", action="store_true", help="first fetch PTB-XL into --ptbxl; a broken download resumes")
    args = parser.parse_args()

    from ecg_batch.errors import UserError

    try:
        return run(args)
    except UserError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    import json

    from ecg_batch import bank_figure, ptbxl
    from ecg_batch.prepare import prepare

    if args.download:
        ptbxl.download(args.ptbxl, args.fs)
    report = prepare(ptbxl.read_release(args.ptbxl, args.fs), args.out, args.donors, args.workers)
    bank_figure.draw(args.out, args.out / "bank.png")
    print(json.dumps({key: value for key, value in report.items() if key != "donors_by_statement"}, indent=1))
    print(f"{report['donors']} donors of {report['donor_patients']} patients in {args.out}; figure: {args.out / 'bank.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
