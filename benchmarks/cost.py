"""Memory and processor seconds of whole jobs by length of record: python -m benchmarks.cost [--rounds 3]

One worker from start to finish; processor seconds, not wall time, since a machine may be shared, and the cases in turns. Start-up
is what the same request takes for one record of its shortest kind, and is taken off.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

PEAK_OF = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_maxrss // 1024, used.ru_utime + used.ru_stime)
"""
CASES = {  # configuration, changes, records, seconds of each
    "10 s, batches of 256": ("demo.yaml", ["records=11520"], 11_520, 10),
    "1 h, a batch of 32": ("holter.yaml", ["records=32"], 32, 3600),
    "6 h, a batch of 16": ("holter.yaml", ["records=16", "batch=16", "duration_s=21600"], 16, 21_600),
    "24 h, a batch of 16": ("holter24.yaml", ["records=16", "batch=16"], 16, 86_400),
    "1 h, a batch of 3": ("holter24.yaml", ["records=3", "batch=3", "duration_s=3600"], 3, 3600),
    "24 h, a batch of 3": ("holter24.yaml", ["records=3", "batch=3"], 3, 86_400),
    "24 h, one alone": ("holter24.yaml", [], 1, 86_400),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    peak: dict[str, list[int]] = {name: [] for name in arguments.cases}
    used: dict[str, list[float]] = {name: [] for name in arguments.cases}
    with tempfile.TemporaryDirectory() as scratch:
        turns = [(turn, name) for turn in range(arguments.rounds) for name in arguments.cases]
        for number, (_, name) in enumerate(tqdm(turns, unit="job", disable=None)):
            config, changes, records, seconds = CASES[name]
            few = ["records=1", "batch=1"] + ["duration_s=61"] * (seconds > 10)
            idle_s = run(config, few, Path(scratch) / f"idle{number}")[1]
            mib, job_s = run(config, changes, Path(scratch) / f"run{number}")
            peak[name].append(mib)
            used[name].append(1000 * (job_s - idle_s) / (records * seconds / 60))
    print("| records | peak, MiB | processor, ms a minute of signal (lowest, highest) | against the first |\n|---|---|---|---|")
    base = statistics.median(used[arguments.cases[0]])
    for name in arguments.cases:
        middle = statistics.median(used[name])
        print(f"| {name} | {max(peak[name])} | {middle:.1f} ({min(used[name]):.1f}, {max(used[name]):.1f}) | {middle / base:.2f} |")


def run(config: str, changes: list[str], out: Path) -> tuple[int, float]:
    """(peak in MiB, processor seconds) of a job of one worker."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", PEAK_OF, "jobs/synthesize.py", f"configs/{config}", "--out", str(out)]
    command += ["--set", *changes] if changes else []
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)  # noqa: S603, our own words
    mib, seconds = done.stdout.split()[-2:]
    return int(mib), float(seconds)


if __name__ == "__main__":
    main()
