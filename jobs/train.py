"""The same as ecg-batch train, from a checkout: python jobs/train.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
