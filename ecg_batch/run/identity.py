"""Identity: which process is meant, where a host name and a process id are not enough.

Two containers may share a host's name and count their processes each from 1. So a process is its id within a PID namespace of one
boot of a machine, and when it was started there, since ids are given away again.
"""

import os
import socket
from pathlib import Path

PROC = Path("/proc")


def node_name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def own_process() -> dict:
    """This process, as JSON. The last three are absent where /proc does not say."""
    return {"host": node_name(), "pid": os.getpid(), **_realm(), **_start(os.getpid())}


def is_gone(process: dict) -> bool:
    """Whether a process is known to have ended. False where it cannot be looked at from here: of another host, or namespace."""
    realm = _realm()
    if process.get("host") != node_name() or not realm or {name: process.get(name) for name in realm} != realm:
        return False
    try:
        os.kill(process["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # somebody else's, of whom /proc may tell nothing
        return False
    start, stated = _start(process["pid"]), process.get("start_ticks")
    return not start or (stated is not None and start["start_ticks"] != stated)


def _realm() -> dict:
    """Where ids of processes mean the same: the boot of a machine, and a PID namespace on it."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return {"boot": boot, "pid_namespace": (PROC / "self/ns/pid").stat().st_ino}
    except OSError:  # macOS, some sandboxes
        return {}


def _start(pid: int) -> dict:
    """Since boot, in clock ticks. Empty where there is no such process, or a zombie only: killed, not yet waited for."""
    try:
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return {} if fields[0] in "ZX" else {"start_ticks": int(fields[19])}
    except (OSError, ValueError, IndexError):
        return {}
