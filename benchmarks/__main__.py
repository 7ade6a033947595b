"""Measure in one run: what the machine can do, decoding against its peers, the stages of a batch, whole runs.

    python -m benchmarks [machine] [decode] [texture] [stages] [runs] [peers] [--rounds 5] [--json FILE]

Candidates of a part take turns, so that a noisy moment hits all of them; figures are medians over the rounds. Transformers and
NeuroKit2 come with pip install -e '.[dev]', ECGEN with '.[peers]'; where one is absent its row is left out. With --batch,
--tokens, --records and --mebibytes it takes less time; only figures of the same sizes can be compared.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PARTS = ("machine", "decode", "texture", "stages", "runs", "peers")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256, help="records decoded, or made, together: a multiple of 64")
    parser.add_argument("--tokens", type=int, default=250, help="of a record; 250 are the texture of 10 s")
    parser.add_argument("--records", type=int, default=65_536, help="of the longer of two runs, the shorter has an eighth")
    parser.add_argument("--mebibytes", type=int, default=256, help="copied in memory, and written to disk")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where decode and runs are measured")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(words)
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures = {"about": about(sys.argv[1:] if words is None else words)}
    print(said(figures["about"]))
    for part in args.parts or PARTS:
        figures[part] = run_part(part, args, figures)
        print(f"\n{part}")
        for row in figures[part]:
            print(f"  {row['what']:<58} {row['value']:>12,.5g} {row['unit']:<12} {row.get('beside', '')}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def run_part(part: str, args: argparse.Namespace, figures: dict) -> list[dict]:
    if part == "machine":
        from benchmarks.machine import measure

        return measure(args.rounds, args.mebibytes)
    if part == "decode":
        from benchmarks.decode import measure

        return measure(args.rounds, args.device, figures.get("machine"), args.batch, args.tokens)
    if part == "texture":
        from benchmarks.texture import measure

        return measure(args.rounds, figures.get("machine"), args.batch, args.tokens)
    if part == "stages":
        from benchmarks.stages import measure

        return measure(args.rounds, args.batch)
    if part == "runs":
        from benchmarks.runs import measure

        return measure(args.rounds, args.device, args.records)
    from benchmarks.peers import measure

    return measure(args.rounds)


def said(about: dict) -> str:
    return "\n".join(f"{key}: {value}" for key, value in about.items())


def about(words: Sequence[str], module: str = "benchmarks") -> dict:
    """What a figure is worth nothing without."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent)
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    wide = next((name for name in ("avx512f", "avx2") if f" {name} " in Path("/proc/cpuinfo").read_text()), "no AVX2")
    return {
        "command": " ".join([f"python -m {module}", *words]),
        "commit": commit.stdout.strip() or "unknown",
        "cpu": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, {cpu[0] if cpu else platform.processor()}, {wide}",
        "software": f"Python {platform.python_version()}, torch {version('torch')}",
        "load": f"{os.getloadavg()[0]:.2f} before the start (above 0.5: other work ran beside it)",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


if __name__ == "__main__":
    sys.exit(main())
