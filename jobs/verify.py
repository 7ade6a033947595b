"""The same as ecg-batch verify, from a checkout: python jobs/verify.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
