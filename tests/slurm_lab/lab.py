"""A real Slurm cluster on this machine, on loopback only: munge, slurmctld, a slurmd for each of four nodes, and on request
accounting (MariaDB and slurmdbd) or memory limits (cgroup v1). Needs root (SlurmUser, mknod), no systemd. Up in about 2 s.

python tests/slurm_lab/lab.py DIR keeps one up until Ctrl-C, to play with:  export SLURM_CONF=DIR/slurm.conf
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NODES, GPUS = 4, 2  # the last node has no GPU
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd")
CGROUP = Path("/sys/fs/cgroup/memory")  # of version 1: this Slurm's plugin for version 2 needs systemd
CONFIGURATION = Path(__file__).parent / "slurm.conf"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def why_not(accounting: bool = False, memory: bool = False) -> str:
    """Why no cluster can be started here, or ''."""
    needed = PROGRAMS + ACCOUNTING_PROGRAMS * accounting
    absent = [name for name in needed if not shutil.which(name, path=PATH)]
    if absent:
        return f"no Slurm on this machine ({', '.join(absent)} not found); .ci/run installs it where it is root on Debian"
    if memory and not os.access(CGROUP / "memory.limit_in_bytes", os.W_OK):
        return f"no memory limits here: they need the memory controller of cgroup version 1, writable, at {CGROUP}"
    return "" if os.geteuid() == 0 else "the test cluster needs root"


@dataclass(frozen=True)
class Lab:
    """A cluster in a folder. port: the first of 40 free ones."""

    folder: Path
    port: int
    accounting: bool
    max_array: int
    memory: bool = False  # limits enforced
    select: str = "CR_CPU_Memory"  # what is given out; CR_Core: cores, and memory to whoever comes

    @property
    def environment(self) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SUBMITIT"))}
        return {**mine, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    # Asking

    def run(self, *command, check: bool = True, timeout_s: float = 60) -> str:
        """Output of a command that knows this cluster."""
        command = [str(word) for word in command]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def queue(self, *options, form: str = "%i %T") -> list[str]:
        return self.run("squeue", "--noheader", "--array", "--format", form, *options, check=False).splitlines()

    def nodes(self) -> dict[str, str]:
        """Node -> its state ('idle', 'drained', 'down*', ...); empty where the controller does not answer."""
        answer = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", "--partition=main", check=False)
        return dict(line.split() for line in answer.splitlines())

    def is_idle(self) -> bool:
        return list(self.nodes().values()) == ["idle"] * NODES

    # Up and down

    def start(self) -> None:
        for name in ("db", "state", "spool", "log", "munge", "pid", "dev"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self._configure()
        munge = self.folder / "munge"
        self.daemon("munged", "munged", "--foreground", "--force", f"--key-file={munge}/key", f"--socket={munge}/socket",
                    f"--pid-file={munge}/pid", f"--log-file={self.folder}/log/munged.log", f"--seed-file={munge}/seed")  # fmt: skip
        self._await("munged", (munge / "socket").exists)
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in range(1, NODES + 1):
            self.start_node(f"node{node}")
        self._await("slurmctld", self.is_idle)

    def _configure(self) -> None:
        (self.folder / "munge" / "key").write_bytes(random.randbytes(128))
        (self.folder / "munge" / "key").chmod(0o600)
        lines = ["AccountingStorageType=accounting_storage/none"]
        if self.accounting:
            lines = [
                "Type=accounting_storage/slurmdbd",
                "Host=127.0.0.1",
                f"Port={self.port + 2}",
                f"Pass={self.folder}/munge/socket",
            ]
            lines = [f"AccountingStorage{line}" for line in lines]
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.read_text().format(
            folder=self.folder,
            host=host,
            controller_port=self.port + 1,
            max_array=self.max_array,
            select=self.select,
            accounting="\n".join(lines),
            task="cgroup" if self.memory else "none",
            first_job_id=random.randrange(1000, 900_000),  # submitit names files by job id: never start from the same id twice
        )
        for node in range(1, NODES + 1):
            gres = f"Gres=gpu:{GPUS}" if node < NODES else ""
            text += f"NodeName=node{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.port + 10 + node} CPUs=2 "
            text += f"RealMemory=4000 {gres}\n"
        (self.folder / "slurm.conf").write_text(text)
        limits = ("CgroupPlugin=cgroup/v1", f"CgroupMountpoint={CGROUP.parent}", "ConstrainRAMSpace=yes", "ConstrainSwapSpace=yes")
        (self.folder / "cgroup.conf").write_text("\n".join((*limits, "AllowedSwapSpace=0\n")) if self.memory else "")
        # fake GPUs: Slurm asks for character devices; without cgroups nobody opens them
        for gpu in range(GPUS):
            os.mknod(self.folder / "dev" / f"gpu{gpu}", 0o20666, os.makedev(1, 3))
        lines = [f"NodeName=node{node} Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}]\n" for node in range(1, NODES)]
        (self.folder / "gres.conf").write_text("".join(lines))

    def _start_accounting(self) -> None:
        """An empty data folder without grant tables is enough: slurmdbd makes its own database."""
        db = self.folder / "db"
        self.daemon("mariadbd", "mariadbd", "--no-defaults", "--user=root", f"--datadir={db}", f"--socket={db}/sock",
                    f"--pid-file={db}/pid", "--skip-grant-tables", "--bind-address=127.0.0.1", f"--port={self.port + 3}",
                    "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-lock-wait-timeout=900",
                    "--performance-schema=OFF", "--skip-log-bin")  # fmt: skip
        self._await("mariadbd", lambda: is_open(self.port + 3))
        text = f"""AuthType=auth/munge
AuthInfo=socket={self.folder}/munge/socket
DbdHost={socket.gethostname().split(".")[0]}
DbdAddr=127.0.0.1
DbdPort={self.port + 2}
SlurmUser=root
LogFile={self.folder}/log/slurmdbd.log
PidFile={self.folder}/pid/slurmdbd.own
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self.port + 3}
StorageUser=root
StorageLoc=slurm_acct_db
"""
        (self.folder / "slurmdbd.conf").write_text(text)
        (self.folder / "slurmdbd.conf").chmod(0o600)
        self.daemon("slurmdbd", "slurmdbd", "-D")
        self._await("slurmdbd", lambda: is_open(self.port + 2))

    def daemon(self, name: str, *command: str) -> None:
        """Start a daemon in a session of its own; its process id is kept under pid/."""
        with open(self.folder / "log" / f"{name}.out", "a") as log:
            process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)  # fmt: skip
        (self.folder / "pid" / name).write_text(str(process.pid))

    def _await(self, name: str, condition: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or state(self.pid(name)) in "ZX":
                logs = "\n".join(f"== {path}\n{path.read_text()[-1500:]}" for path in sorted((self.folder / "log").iterdir()))
                raise RuntimeError(f"the test cluster did not start: {name}\n{logs}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End every process that names this cluster in its environment: daemons, step daemons and tasks."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                kill(pid, number)
            deadline = time.monotonic() + 5
            while self.processes() and time.monotonic() < deadline:
                time.sleep(0.05)
        for node in CGROUP.glob("slurm_node*") if self.memory else ():
            for group, _, _ in os.walk(node, topdown=False):
                with suppress(OSError):  # another test cluster on this machine has jobs in it
                    os.rmdir(group)

    def restore(self, seconds: float = 90) -> None:
        """As after `start`: daemons up, no job, every node idle. RuntimeError where that cannot be had.

        Slurm itself brings a node that was down back into service, but never one that it has drained. It drains a node when a
        job that its restarted controller does not remember to have started is started there again ("Duplicate jobid").
        """
        names = ["slurmctld", *(f"slurmd.node{node}" for node in range(1, NODES + 1))]
        dead = [name for name in names if state(self.pid(name)) in "ZX"]
        for name in dead:
            self.start_controller() if name == "slurmctld" else self.start_node(name.removeprefix("slurmd."))
        deadline = time.monotonic() + seconds
        while (jobs := self.queue()) or not self.is_idle():
            if time.monotonic() > deadline:
                why = self.run("sinfo", "-R", check=False)
                raise RuntimeError(f"the test cluster is not idle again: {self.nodes()}, {jobs}\n{why}")
            for number in ((), ("--signal=KILL",)) if jobs else ():
                self.run("scancel", "--user=root", *number, check=False)
            for node, found in self.nodes().items():
                if found.startswith(("drain", "down")):
                    self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            time.sleep(0.2)

    # Faults

    def start_controller(self) -> None:
        self.daemon("slurmctld", "slurmctld", "-D", "-i")
        self._await("slurmctld", lambda: is_open(self.port + 1))

    def start_node(self, node: str) -> None:
        self.daemon(f"slurmd.{node}", "slurmd", "-D", "-N", node)

    def kill(self, name: str) -> None:
        """kill -9 a daemon. Of slurmd.nodeN: the jobs of the node go on, as behind a broken network (split brain)."""
        kill(self.pid(name), signal.SIGKILL)

    def crash(self, node: str) -> None:
        """Power loss of a node."""
        self.kill(f"slurmd.{node}")
        self.end_tasks(node)

    def end_tasks(self, node: str) -> None:
        """kill -9 every process of the jobs of a node, their step daemons first, or they would report."""
        tasks = [pid for pid in self.processes() if variable(pid, "SLURMD_NODENAME") == node]
        steps = {parent(pid) for pid in tasks if command_name(parent(pid)) == "slurmstepd"}
        for pid in [*steps, *tasks]:
            kill(pid, signal.SIGKILL)

    def pid(self, name: str) -> int:
        return int((self.folder / "pid" / name).read_text())

    def is_mine(self, pid: int) -> bool:
        return pid != os.getpid() and state(pid) not in "ZX" and variable(pid, "SLURM_CONF") == self.environment["SLURM_CONF"]

    def processes(self) -> list[int]:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and self.is_mine(int(name))]


def new_lab(folder: Path, accounting: bool = False, max_array: int = 1001, memory: bool = False, **fields: str) -> Lab:
    """A cluster, not yet started, on ports that are free now. fields: others of Lab."""
    while True:
        port = random.randrange(20_000, 30_000, 40)
        if not any(is_open(port + offset) for offset in range(20)):
            return Lab(folder.resolve(), port, accounting, max_array, memory, **fields)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
        os.waitpid(pid, os.WNOHANG)  # a daemon is our child
    except (ProcessLookupError, ChildProcessError):
        pass


def state(pid: int) -> str:
    """'R', 'S', ... 'Z' for a zombie, 'X' where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def variable(pid: int, name: str) -> str:
    """An environment variable of a process as it was started."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((entry.partition(b"=")[2].decode() for entry in entries if entry.startswith(f"{name}=".encode())), "")


if __name__ == "__main__":
    lab = new_lab(Path(sys.argv[1]), accounting="--accounting" in sys.argv)
    try:
        lab.start()
        print(f"export SLURM_CONF={lab.folder}/slurm.conf", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        lab.stop()
