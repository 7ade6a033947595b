"""Memory and processor seconds of whole jobs by length of record: python -m benchmarks.cost [--rounds 3] [--cases CASE ...]

One worker from start to finish; processor seconds, not wall time, since a machine may be shared, and the cases in turns. Start-up
is what the same request takes for one record of its shortest kind, and is taken off.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

# VmHWM: ru_maxrss of a process begins with what its parent had
PEAK_OF = """
import resource, runpy, sys
from pathlib import Path
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) // 1024, used.ru_utime + used.ru_stime)
"""
CASES = {  # configuration, records, batch, seconds of each
    "10 s, batches of 256": ("demo.yaml", 11_520, 256, 10),
    "1 h, a batch of 32": ("holter.yaml", 32, 32, 3600),
    "6 h, a batch of 16": ("holter.yaml", 16, 16, 21_600),
    "24 h, a batch of 16": ("holter24.yaml", 16, 16, 86_400),
    "1 h, a batch of 3": ("holter24.yaml", 3, 3, 3600),
    "24 h, a batch of 3": ("holter24.yaml", 3, 3, 86_400),
    "24 h, one alone": ("holter24.yaml", 1, 1, 86_400),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--records", type=int, help="so many at most in a job (default: as many as the case says)")
    parser.add_argument("--minutes", type=int, help="so many at most in a record (default: as many as the case says)")
    arguments = parser.parse_args(words)
    peak: dict[str, list[int]] = {name: [] for name in arguments.cases}
    used: dict[str, list[float]] = {name: [] for name in arguments.cases}
    with tempfile.TemporaryDirectory() as scratch:
        turns = [(turn, name) for turn in range(arguments.rounds) for name in arguments.cases]
        for number, (_, name) in enumerate(tqdm(turns, unit="job", disable=None)):
            config, records, batch, seconds = cut(CASES[name], arguments.records, arguments.minutes)
            long = [f"duration_s={seconds}"] * (seconds > 10)
            few = ["records=1", "batch=1"] + ["duration_s=61"] * (seconds > 10)
            idle_s = run(config, few, Path(scratch) / f"idle{number}")[1]
            changes = [f"records={records}", f"batch={batch}", *long]
            mib, job_s = run(config, changes, Path(scratch) / f"run{number}")
            peak[name].append(mib)
            used[name].append(1000 * (job_s - idle_s) / (records * seconds / 60))
    print("| records | peak, MiB | processor, ms a minute of signal (lowest, highest) | against the first |\n|---|---|---|---|")
    base = statistics.median(used[arguments.cases[0]])
    for name in arguments.cases:
        middle, (_, records, _, seconds) = statistics.median(used[name]), cut(CASES[name], arguments.records, arguments.minutes)
        shown = name + f", cut to {records} of {seconds} s" * ((records, seconds) != CASES[name][1::2])
        spread = f"{middle:.1f} ({min(used[name]):.1f}, {max(used[name]):.1f})"
        print(f"| {shown} | {max(peak[name])} | {spread} | {middle / base:.2f} |")


def cut(case: tuple[str, int, int, int], records: int | None, minutes: int | None) -> tuple[str, int, int, int]:
    """A case with no more records, and none longer, than was asked for."""
    config, most, batch, seconds = case
    count = min(most, records or most)
    return config, count, min(batch, count), min(seconds, 60 * minutes if minutes else seconds)


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
