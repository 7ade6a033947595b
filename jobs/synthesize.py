"""The same as ecg-batch synthesize, from a checkout: python jobs/synthesize.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["synthesize", *sys.argv[1:]]))
