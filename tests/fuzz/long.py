"""The fuzz by the hour: python tests/fuzz/long.py [MINUTES [MODULE ...]], which `make fuzz` calls.

Each module in turn runs with random examples and a seed that rises from round to round, until the time is over or a finding
ends it. The last lines then say how to repeat it. Exit status: 0 where nothing was found, 1 for a finding.
"""

import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

FUZZ = Path(__file__).parent
HANGS_S = 1800  # a module's round takes a few minutes


def main(minutes: float, *chosen: str) -> int:
    until = time.monotonic() + 60 * minutes
    modules = [FUZZ / f"test_fuzz_{name}.py" for name in chosen] or sorted(FUZZ.glob("test_fuzz_*.py"))
    for seed in count(int(time.time())):
        for module in modules:
            if (left_s := until - time.monotonic()) <= 0:
                print(f"nothing was found in {minutes:g} minutes")
                return 0
            if not run(module, seed, left_s):
                return 1


def run(module: Path, seed: int, left_s: float) -> bool:
    """One module with one seed. False where it found anything. It may be cut off when the time is over, which is no finding."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--durations=0", "--durations-min=60",
               "--hypothesis-profile=long", f"--hypothesis-seed={seed}", str(module)]  # fmt: skip
    began = time.monotonic()
    try:
        status = subprocess.run(command, cwd=FUZZ.parent.parent, timeout=min(left_s + 60, HANGS_S)).returncode
    except subprocess.TimeoutExpired:
        status = 0 if left_s + 60 < HANGS_S else 1
    print(f"{module.name}, seed {seed}: {time.monotonic() - began:.0f} s, {'well' if status == 0 else 'a finding'}", flush=True)
    if status:
        print(f"repeat it: {' '.join(os.path.relpath(word) if os.sep in word else word for word in command[1:])}")
        print("then put its input into the test as an @example, and mend what read it")
    return status == 0


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(float(words[0]) if words else 60.0, *words[1:]))
