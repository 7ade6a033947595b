"""The same as ecg-batch evaluate, from a checkout: python jobs/evaluate.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
