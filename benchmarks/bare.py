"""The wheel in a plain Debian with Python alone, beside the checkout on the same machine: python -m benchmarks.bare ROOT

    make wheel && mkdir wheels && cp dist/*x86_64.whl wheels/
    .venv/bin/pip download --constraint constraints.txt --dest wheels wheels/ecg_batch-*.whl
    debootstrap --variant=minbase --include=python3,python3-venv bookworm ROOT http://deb.debian.org/debian
    .venv/bin/python -m benchmarks.bare ROOT --wheels wheels

It needs root. In ROOT there is no compiler and no network, only the folder of wheels, from which pip installs. Both then make the
demo in turns, each turn the other way round; both must make the same samples.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ecg_batch.dataset.manifest import read_manifest

CHECKOUT = Path(__file__).parents[1]
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
# $0 is the root and $1 the folder of wheels; the rest is the command, run in /work of the root
INSIDE = (
    'mount --bind "$1" "$0/wheels" && mount -o remount,bind,ro "$0/wheels" && mount -t proc proc "$0/proc" && '
    'mount --bind /dev "$0/dev" && root=$0 && shift && exec chroot "$root" sh -c \'cd /work && exec "$@"\' sh "$@"'
)


@dataclass(frozen=True)
class Candidate:
    """command: makes a dataset; {out} in it is replaced by a fresh name. out: the folder of such names, as this process sees it."""

    command: tuple[str, ...]
    out: Path


@dataclass(frozen=True)
class Turn:
    """Of one run: seconds by the clock, and of processors; the content root of what was made."""

    wall_s: float
    cpu_s: float
    content_root: str


def bare(root: Path, wheels: Path, *command: str) -> tuple[str, ...]:
    """A command in a plain system: its own mounts, processes and no network."""
    apart = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child")
    return (*apart, "sh", "-c", INSIDE, str(root), str(wheels), *command)


def install(root: Path, wheels: Path, extra: str) -> str:
    """pip installs the wheel in the root, in /opt/ecg-batch: what it then says of itself. Refuses a root with a compiler."""
    if found := [name for name in COMPILERS if (root / "usr/bin" / name).exists()]:
        raise SystemExit(f"{root} has a compiler ({', '.join(found)}); make a plain one by debootstrap --variant=minbase")
    for folder in ("wheels", "work"):
        (root / folder).mkdir(exist_ok=True)
    ours = "/opt/ecg-batch/bin"
    wanted = f"ecg-batch[{extra}]" if extra else "ecg-batch"
    for command in (
        ("python3", "-m", "venv", "--clear", "/opt/ecg-batch"),
        (f"{ours}/pip", "install", "--quiet", "--no-index", "--find-links", "/wheels", wanted),
        ("rm", "-rf", "configs", "runs"),
        (f"{ours}/ecg-batch", "configs"),
    ):
        subprocess.run(bare(root, wheels, *command), env=ENVIRONMENT, check=True)
    said = subprocess.run(bare(root, wheels, f"{ours}/ecg-batch", "--version"), env=ENVIRONMENT, check=True, stdout=subprocess.PIPE)
    return said.stdout.decode().strip()


def in_turns(candidates: dict[str, Candidate], rounds: int) -> dict[str, list[Turn]]:
    """One warm-up of each, then rounds in which each runs once, every other one the other way round."""
    turns = {name: [] for name in candidates}
    for at in range(rounds + 1):
        for name in list(candidates)[:: 1 if at % 2 else -1]:
            turn = _run(candidates[name])
            if at:
                turns[name].append(turn)
    if len({turn.content_root for of in turns.values() for turn in of}) > 1:
        raise SystemExit("not the same samples: " + "; ".join(f"{name} {of[0].content_root}" for name, of in turns.items()))
    return turns


def _run(candidate: Candidate) -> Turn:
    with tempfile.TemporaryDirectory(dir=candidate.out) as scratch:
        name = Path(scratch).name
        command = [word.replace("{out}", f"{name}/demo") for word in candidate.command]
        start = time.perf_counter()
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, cwd=candidate.out)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode}: {' '.join(command)}")
        return Turn(wall_s, used.ru_utime + used.ru_stime, read_manifest(Path(scratch, "demo"))["content_root"])


def described(turns: dict[str, list[Turn]], records: int) -> list[str]:
    """Records a second of each, and the first against the last: medians over turns, with the least and the most."""
    lines = [
        f"{name:10s} {records / statistics.median(turn.wall_s for turn in of):7.0f} records/s by the clock,"
        f" {records / statistics.median(turn.cpu_s for turn in of):7.0f} a second of processor time"
        for name, of in turns.items()
    ]
    (first, of), *_, (last, others) = turns.items()
    for what in ("wall_s", "cpu_s"):
        ratios = sorted(getattr(b, what) / getattr(a, what) for a, b in zip(of, others, strict=True))
        words = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        lines.append(f"{first} / {last}, speed by {'the clock' if what == 'wall_s' else 'processor time'}: {words}")
    return lines


def main(words: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="a plain Debian, as debootstrap makes it")
    parser.add_argument("--wheels", type=Path, required=True, help="folder with the wheel and all it needs")
    parser.add_argument("--extra", default="", help="install this extra too, such as synthesize")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--records", type=int, default=2048)
    arguments = parser.parse_args(words)
    root, wheels = arguments.root.absolute(), arguments.wheels.absolute()
    if os.geteuid() or not shutil.which("unshare"):
        raise SystemExit("this needs root and unshare, which makes the plain system's own mounts and takes its network away")
    print("in the root:", install(root, wheels, arguments.extra))
    demo = ("synthesize", "configs/demo.yaml", "--out", "{out}", "--set", f"records={arguments.records}")
    with tempfile.TemporaryDirectory(dir=root / "work") as beside:  # on the same disk
        shutil.copytree(CHECKOUT / "configs", Path(beside, "configs"))
        candidates = {
            "wheel": Candidate(bare(root, wheels, "/opt/ecg-batch/bin/ecg-batch", *demo), root / "work"),
            "checkout": Candidate(("env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "ecg_batch", *demo), Path(beside)),
        }
        turns = in_turns(candidates, arguments.rounds)
    print("\n".join(described(turns, arguments.records)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
