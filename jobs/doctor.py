"""The same as ecg-batch doctor, from a checkout: python jobs/doctor.py --help"""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
