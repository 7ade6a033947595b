"""Software: Python, this package, its pins, the kernels, and the libraries of a GPU."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import ecg_batch
from ecg_batch.kernels.build import GPU_KERNELS, instructions, kernel, kernels, why_plain
from ecg_batch.run.doctor.facts import Fact, odd, wrong

GPU_S = 25.0  # importing torch from a slow disk
PIN = re.compile(r"""([A-Za-z0-9][A-Za-z0-9._-]*)==([^;\s]+)\s*(?:;\s*extra\s*==\s*["'](\w+)["'])?""")
EXTRAS = ("synthesize", "slurm", "train", "evaluate", "remote")  # the others are for whoever measures and tests
BUNDLED = ("donors.zarr/zarr.json", "donors.sha256", *(f"{name}.safetensors" for name in ("units", "rhythm", "vqvae", "mamba")))
ORIGIN = Path(ecg_batch.__file__).parent
# what the libraries of a GPU say, in a process of its own: a driver that hangs or an extension that crashes ends only that
PROBE = """
import json, sys
import torch
told = {"torch": torch.__version__, "built for CUDA": torch.version.cuda, "GPUs": []}
try:
    for at in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        one = torch.cuda.get_device_properties(at)
        told["GPUs"].append(f"{one.name}, {one.total_memory / 2**30:.0f} GB, compute capability {one.major}.{one.minor}")
except Exception as error:
    told["error"] = f"{type(error).__name__}: {error}"
for name in sys.argv[1:]:
    try:
        told[name] = str(getattr(__import__(name), "__version__", "version unknown"))
    except Exception as error:
        told[name] = f"cannot be imported: {type(error).__name__}: {error}"
print("\\n" + json.dumps(told))
"""


def python() -> Iterator[Fact]:
    yield Fact("python", f"{sys.version.split()[0]} ({sys.implementation.name}) at {sys.executable or 'an unknown place'}")
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") != "utf8":
        yield odd("encoding", f"names of files are read as {encoding}", "Set PYTHONUTF8=1; else only names of plain ASCII serve")
    settings = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(("PYTHON", "OMP_", "MKL_", "OPENBLAS_"))}
    if settings:
        yield Fact("environment", " ".join(f"{name}={value}" for name, value in settings.items()))


def package() -> Iterator[Fact]:
    try:
        installed = metadata.distribution("ecg-batch")
    except metadata.PackageNotFoundError:
        yield odd("ecg-batch", f"not installed, but found at {ORIGIN}",
                  "Its pins are not known so; install it: pip install --constraint constraints.txt '.[slurm]'")  # fmt: skip
        return
    writable = "" if os.access(ORIGIN, os.W_OK) else ", read-only"
    yield Fact("ecg-batch", f"{installed.version} at {ORIGIN}{writable}")
    if absent := [name for name in BUNDLED if not os.access(ORIGIN / "bundled" / name, os.R_OK)]:
        yield wrong("ecg-batch", f"of the bundled bank and weights these cannot be read: {', '.join(absent)}", "Install it anew")
    asked = installed.metadata.get("Requires-Python", "")
    if not _allows(asked, sys.version_info[:2]):
        yield odd("python", f"{sys.version.split()[0]}; ecg-batch asks for {asked}",
                  "Take one of those: it is tested with them alone")  # fmt: skip
    yield from pins(installed.requires or [])


def pins(requires: list[str]) -> Iterator[Fact]:
    """The packages that ecg-batch pins, and what is installed instead; those of EXTRAS may be absent."""
    found = [pin for line in requires if (pin := PIN.fullmatch(line.strip())) and (pin[3] is None or pin[3] in EXTRAS)]
    pinned, extra_of = {pin[1]: pin[2] for pin in found}, {}
    for pin in found:
        extra_of.setdefault(pin[1], pin[3])  # the first that brings it; None: no extra
    there = {name: version for name in pinned if (version := _version(name))}
    differing = [name for name in there if not _is(there[name], pinned[name])]
    absent = [name for name in pinned if name not in there]
    said = f"{len(there) - len(differing)} of {len(pinned)} as pinned" + (f"; torch {there['torch']}" if "torch" in there else "")
    extras = [f"{name} (extra {extra_of[name]})" for name in absent if extra_of[name]]
    yield Fact("packages", said + (f"; not installed: {', '.join(extras)}" if extras else ""))
    for name in absent:
        if not extra_of[name]:
            yield wrong("packages", f"{name} is absent", f"pip install {name}=={pinned[name]}")
    for name in differing:
        yield odd("packages", f"{name} is {there[name]}, pinned is {pinned[name]}",
                  f"Bytes may differ from other machines': pip install {name}=={pinned[name]}")  # fmt: skip


def compiled() -> Iterator[Fact]:
    if why := why_plain():
        yield odd("kernels", f"plain: {why}", "Records are made at about a fifth of the speed, by torch")
    else:
        library, lanes = kernel()
        build = Path(library._name).name.partition(".")[0]
        yield Fact("kernels", f"{kernels()}; of the builds here {build} ({lanes} lanes) is the widest that this CPU runs")
    yield Fact("instructions", instructions() or "none that matter")


def gpu() -> Iterator[Fact]:
    """What torch sees, and whether the packages with kernels for a GPU can be used."""
    packages = [name.replace("-", "_") for name in GPU_KERNELS]
    names = [name for name in packages if _is_there(name)]
    if not _is_there("torch"):
        yield Fact("GPU", "not asked: torch is absent")
        return
    try:
        command = [sys.executable, "-c", PROBE, *names]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=GPU_S, stdin=subprocess.DEVNULL)  # noqa: S603
        told = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        yield odd("torch", f"not imported within {GPU_S:g} s", "A GPU's driver that hangs, or a very slow disk? Try: nvidia-smi")
        return
    except (OSError, ValueError):
        words = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1] if "done" in locals() else "no process"
        yield wrong("torch", f"cannot be imported: {words}", "Install ecg-batch anew, in an environment of its own")
        return
    cuda = told["built for CUDA"]
    yield Fact("torch", f"{told['torch']}, built for {f'CUDA {cuda}' if cuda else 'CPUs alone'}")
    none = "none that torch can use; requests with device: cuda need one"
    yield Fact("GPU", "; ".join(told["GPUs"]) or told.get("error") or none)
    for name in packages:
        words = told.get(name, "not installed; only needed on a GPU, where it is faster than plain torch")
        if words.startswith("cannot"):
            yield odd(name, words, "It was built for another torch or CUDA: docs/install.md, On a GPU")
        else:
            yield Fact(name, words)


def _allows(asked: str, version: tuple[int, int]) -> bool:
    """Whether '>=3.11,<3.13' takes a version of Python; True where it is written in another way."""
    bounds = [(sign, (int(major), int(minor))) for sign, major, minor in re.findall(r"(>=|<)\s*(\d+)\.(\d+)", asked)]
    return all(version >= bound if sign == ">=" else version < bound for sign, bound in bounds)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _is(there: str, pinned: str) -> bool:
    """torch 2.13.0+cpu is torch 2.13.0."""
    return there == pinned or there.partition("+")[0] == pinned


def _is_there(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
