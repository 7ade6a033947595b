"""The same as ecg-batch prepare, from a checkout: python jobs/prepare.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
