"""The same as ecg-batch status, from a checkout: python jobs/status.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["status", *sys.argv[1:]]))
