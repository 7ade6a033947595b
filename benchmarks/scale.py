"""What a run costs beside making records, as its shards grow in number: python -m benchmarks.scale [--shards 250 2500]

Shards of a few records, all samples zero, are claimed, written and committed by the code of a run; a run of 25,000 has the
bookkeeping of a hundred million records and takes 400 MB. Then it is planned, looked at, finalised and verified, each in a process
of its own: seconds of the clock and of the processor, peak memory, and with --count the calls of the file system (needs strace).
"""

import argparse
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.writing import DEMO, made_once, of_shard
from ecg_batch.dataset.finalise import finalise
from ecg_batch.dataset.receipts import missing, read_receipts
from ecg_batch.dataset.run import Run, find_folder, read_run
from ecg_batch.dataset.verify import verify
from ecg_batch.dataset.write import build_shard
from ecg_batch.request.parse import load_request
from ecg_batch.run.claim import claim_shard
from ecg_batch.run.commit import commit_shard
from ecg_batch.run.folder import open_run
from ecg_batch.run.planning import make_plan
from ecg_batch.run.status import describe, look

ROOT = Path(__file__).parents[1]
CLAIMS = 500  # of others, while one is claimed


def plan(out: Path, shards: int, records: int) -> None:
    request = load_request(DEMO, [f"records={shards * records}", f"shard={records}", f"batch={records}"])
    open_run(*make_plan(request), out)


def make(out: Path) -> dict[str, float]:
    """All shards, as workers make them, of a first one made in earnest. Microseconds of the clock each, of the first and the last
    tenth.
    """
    run, took = read_run(find_folder(out)), []
    made = made_once(run.request.shard)
    ecg = np.zeros_like(made[0])
    for shard in run.shards:
        start = time.perf_counter()
        _, rows, beats = of_shard(made, shard)
        claim = claim_shard(run, shard)
        commit_shard(run, claim, build_shard(run.plan, shard, ecg, rows, claim.staging, [beats]))
        claim.release()
        took.append(1e6 * (time.perf_counter() - start))
    tenth = -(-len(took) // 10)
    return {"us, first": float(np.median(took[:tenth])), "last": float(np.median(took[-tenth:]))}


def claim_among_others(out: Path) -> dict[str, float]:
    """Microseconds to claim a shard and give it back, alone and while so many others are in the making."""
    run = read_run(find_folder(out))
    few = min(CLAIMS, len(run.shards) - 1)
    alone = _claiming(run)
    others = [claim_shard(run, shard) for shard in run.shards[1 : 1 + few]]
    among = _claiming(run)
    known = read_receipts(run)
    start = time.perf_counter()
    look(run, known)
    looked = 1e3 * (time.perf_counter() - start)
    for claim in others:
        claim.release()
    return {"us, alone": alone, f"among {few}": among, "a look at them, ms": looked}


def _claiming(run: Run, times: int = 20) -> float:
    start = time.perf_counter()
    for _ in range(times):
        claim_shard(run, run.shards[0]).release()
    return 1e6 * (time.perf_counter() - start) / times


def look_again(out: Path) -> dict[str, float]:
    """Milliseconds of a driver's later looks, when all receipts are known."""
    run = read_run(find_folder(out))
    known: dict[int, dict] = {}
    look(run, known)
    start = time.perf_counter()
    for _ in range(5):
        look(run, known)
    return {"each, ms": 1e3 * (time.perf_counter() - start) / 5}


def check(out: Path) -> None:
    if problems := list(verify(find_folder(out))):
        raise RuntimeError(f"{out}: {problems[:3]}")


STEPS: dict[str, Callable] = {
    "plan": plan,
    "made": make,
    "plan read": lambda out: read_run(find_folder(out)) and None,
    "what is missing": lambda out: missing(read_run(find_folder(out))) and None,
    "claim": claim_among_others,
    "status": lambda out: describe(find_folder(out)) and None,
    "driver's looks": look_again,
    "finalise": lambda out: finalise(read_run(find_folder(out))),
    "verify": check,
}


def step(name: str, given: tuple) -> dict[str, object]:
    """One step, in this process, which is for it alone: seconds of clock and processor, MiB at most, and what it says of itself."""
    wall, cpu = time.perf_counter(), time.process_time()
    said = STEPS[name](*given) or {}
    took = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    status = Path("/proc/self/status").read_text()  # ru_maxrss of a process begins with what its parent had
    return {"step": name, **took, "mib": int(re.search(r"VmHWM:\s+([0-9]+)", status)[1]) // 1024, "said": said}


def calls(name: str, out: Path) -> dict[str, int]:
    """How often a step calls the file system about anything below the run's folder: by strace, which makes it slow."""
    log = out.with_name("calls.txt")
    words = ["strace", "-f", "-y", "-qq", "-e", "trace=%file,%desc", "-o", str(log), sys.executable, "-m", "benchmarks.scale"]
    subprocess.run([*words, "--step", name, str(out)], check=True, cwd=ROOT)
    lines = (line.split(None, 1)[1] for line in log.read_text(errors="replace").splitlines() if str(out.parent) in line)
    return dict(Counter(line.split("(")[0] for line in lines if "(" in line.split()[0]).most_common())


def measure(shards: int, records: int, out: Path, count: bool = False) -> Iterator[dict]:
    """Each step in a process of its own. count: the calls of each but the first in place of its times."""
    for name in STEPS:
        if count and name != "plan":
            found = calls(name, out)
            yield {"step": name, "calls": sum(found.values()), "each": found}
            continue
        given = (out, shards, records) if name == "plan" else (out,)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield pool.apply(step, (name, given))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[250, 2500])
    parser.add_argument("--records", type=int, default=64, help="of a shard")
    parser.add_argument("--within", type=Path, help="a folder on the file system to measure (default: that of temporary files)")
    parser.add_argument("--count", action="store_true", help="calls of the file system in place of times (needs strace)")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "RUN"), help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.step:
        STEPS[given.step[0]](Path(given.step[1]))
        return
    print("| shards | step | clock, s | processor, s | peak, MiB | |\n|---|---|---|---|---|---|")
    for shards in given.shards:
        with tempfile.TemporaryDirectory(dir=given.within) as folder:
            for row in measure(shards, given.records, Path(folder) / "run", given.count):
                print(f"| {shards:,} | {row['step']} | {_shown(row, shards)} |", flush=True)


def _shown(row: dict, shards: int) -> str:
    if "calls" in row:
        return f"{row['calls']:,} calls, {row['calls'] / shards:.1f} a shard | | | {row['each']}"
    said = ", ".join(f"{name} {value:,.1f}" for name, value in row["said"].items())
    return f"{row['s']:.3f} | {row['cpu_s']:.3f} | {row['mib']} | {said}"


if __name__ == "__main__":
    main()
