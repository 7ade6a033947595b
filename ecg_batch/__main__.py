"""python -m ecg_batch is ecg-batch."""

import sys

from ecg_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
