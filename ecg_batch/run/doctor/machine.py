"""Machine: processor, memory and what a cgroup leaves of it, limits, and the user."""

import os
import platform
import re
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ecg_batch.pool import usable_cores
from ecg_batch.run.doctor.facts import Fact, odd

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
WORKER_BYTES = 2**30  # a worker takes about as much


def system() -> Iterator[Fact]:
    yield Fact("system", f"{_distribution()}, kernel {platform.release()}, {platform.machine()}, host {socket.gethostname()}")
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    yield Fact("CPU", f"{_processor()}, {cores} of {all_cores} cores usable here{_quota()}")


def memory() -> Iterator[Fact]:
    told = dict(re.findall(r"^(\w+):\s+([0-9]+) kB", _read(PROC / "meminfo"), re.MULTILINE))
    total, free = (1024 * int(told[name]) if name in told else None for name in ("MemTotal", "MemAvailable"))
    limit = cgroup_limit()
    words = f"{_gb(total)}, {_gb(free)} free; cgroup limit {_gb(limit) if limit else 'none'}"
    least = min((number for number in (free, limit) if number), default=WORKER_BYTES)
    if least < WORKER_BYTES:
        yield odd("memory", words, "A worker takes about 1 GB: free some, or ask for more (--mem in Slurm)")
    else:
        yield Fact("memory", words)


def cgroup_limit() -> int | None:
    """The least limit of memory on the way from this process's cgroup up, in bytes, of either version; None where there is none."""
    limits = []
    for line in _read(PROC / "self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (CGROUP / "memory", "memory.limit_in_bytes") if controllers else (CGROUP, "memory.max")
        folder = base / path.lstrip("/")
        for step in (folder, *folder.parents):
            if step in (base.parent, Path("/")):
                break
            if (text := _read(step / name).strip()).isdecimal():
                limits.append(int(text))
    # version 1 says "no limit" by a number near 2**63
    return min((limit for limit in limits if limit < 2**60), default=None)


def user() -> Iterator[Fact]:
    names = []
    with suppress(KeyError, ImportError):
        import pwd

        names.append(pwd.getpwuid(os.getuid()).pw_name)
    groups = " ".join(map(str, sorted({os.getgid(), *os.getgroups()})))
    mask = re.search(r"^Umask:\s*([0-7]+)", _read(PROC / "self/status"), re.MULTILINE)
    yield Fact("user", f"{os.getuid()} ({names[0] if names else 'a number without a name'}), groups {groups}, "
               f"umask {mask[1] if mask else 'unknown'}")  # fmt: skip
    home = os.environ.get("HOME")
    writable = "" if home and os.access(home, os.W_OK) else ", cannot be written"
    yield Fact("HOME", f"{home}{writable}; nothing needs it" if home else "not set; nothing needs it")


def limits() -> Iterator[Fact]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = {"address space": resource.RLIMIT_AS, "size of a file": resource.RLIMIT_FSIZE}
    held = [f"{name} {_gb(resource.getrlimit(kind)[0])}" for name, kind in told.items()
            if resource.getrlimit(kind)[0] != resource.RLIM_INFINITY]  # fmt: skip
    text = ", ".join([f"{files:,} open files", *held])
    if 0 <= files < 256:
        yield odd("limits", text, "Raise the open files: ulimit -n 1024")
    else:
        yield Fact("limits", text)


def _distribution() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return platform.system()


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)", _read(PROC / "cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def _quota() -> str:
    words = _read(CGROUP / "cpu.max").split()
    return f", a cgroup's share of {int(words[0]) / int(words[1]):g}" if len(words) == 2 and words[0].isdecimal() else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gb(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:,.1f} GB"
