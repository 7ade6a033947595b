"""Start-up: seconds from the start of a process to its first finished record, and make demo, beside Python alone.

    python -m benchmarks.start [--rounds 7] [--records 2048]

Candidates take turns; a figure is the median over rounds, with the least and the most. A shard is finished when its receipt is
there, so what was made is written, read back and committed. Processor time is that of the process and all that it started.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.__main__ import about, said

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "configs" / "demo.yaml"
LOOK_S = 0.002  # between looks for a receipt
# A user's modules are compiled once, also where this process is told to leave no bytecode behind
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": str(ROOT)}


def main(words: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m benchmarks.start", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=2048, help="of the demo")
    arguments = parser.parse_args(words)
    print(said(about(sys.argv[1:] if words is None else words, "benchmarks.start")))
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        for line in described(in_turns(candidates(Path(scratch), arguments.records), arguments.rounds)):
            print(line)
    return 0


def candidates(scratch: Path, records: int) -> dict[str, Callable[[], tuple[float, float]]]:
    """By name what gives (wall, processor) seconds once."""
    demo = partial(_demo, scratch, records)
    return {
        "python -c pass": partial(_whole, "-c", "pass"),
        "import numpy, pyarrow, zarr": partial(_whole, "-c", "import numpy, pyarrow, zarr"),
        "one worker, one record finished": partial(_first, scratch, 1, 1),
        "one worker, first shard of 512": partial(_first, scratch, 1, records),
        "two workers, first shard of 512": partial(_first, scratch, 2, records),
        "demo, one worker": partial(demo, 1),
        "demo, two workers": partial(demo, 2),
        "demo, two workers, and its picture": partial(demo, 2, True),
    }


def in_turns(of: dict[str, Callable[[], tuple[float, float]]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """One warm-up of each, then rounds, every other one the other way round."""
    took = {name: [] for name in of}
    for at in range(rounds + 1):
        for name in list(of)[:: 1 if at % 2 else -1]:
            seconds = of[name]()
            if at:
                took[name].append(seconds)
    return took


def described(took: dict[str, list[tuple[float, float]]]) -> list[str]:
    lines = []
    for name, each in took.items():
        wall, used = ([seconds[at] for seconds in each] for at in (0, 1))
        spread = f"({min(wall):.2f} to {max(wall):.2f})"
        lines.append(f"{name:36s} {statistics.median(wall):6.2f} s {spread:16s} {statistics.median(used):6.2f} s of processor time")
    return lines


def _whole(*words: str) -> tuple[float, float]:
    """Of a command from its start to its end."""
    start = time.perf_counter()
    return _ended(_started(*words), start)


def _first(scratch: Path, workers: int, records: int) -> tuple[float, float]:
    """Wall seconds until the first receipt; processor seconds of the whole run."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out, start = Path(folder) / "run", time.perf_counter()
        process = _started(*_synthesize(out, workers, records))
        receipts = (out.with_name("run.partial") / "receipts", out / "receipts")
        while not any(path.suffix == ".json" for each in receipts for path in each.glob("*.json")) and process.poll() is None:
            time.sleep(LOOK_S)
        wall_s = time.perf_counter() - start
        return wall_s, _ended(process, start)[1]


def _demo(scratch: Path, records: int, workers: int, picture: bool = False) -> tuple[float, float]:
    """What make demo runs once everything is installed."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out = Path(folder) / "demo"
        steps = [_whole(*_synthesize(out, workers, records))]
        if picture:
            steps.append(_whole(str(ROOT / "jobs" / "plot.py"), str(out)))
        return tuple(map(sum, zip(*steps, strict=True)))


def _synthesize(out: Path, workers: int, records: int) -> tuple[str, ...]:
    job = str(ROOT / "jobs" / "synthesize.py")
    return job, str(DEMO), "--out", str(out), "--workers", str(workers), "--set", f"records={records}"


def _started(*words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, env=ENVIRONMENT)


def _ended(process: subprocess.Popen, start: float) -> tuple[float, float]:
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {process.args}")
    return wall_s, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
