"""The same as ecg-batch plot, from a checkout: python jobs/plot.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["plot", *sys.argv[1:]]))
