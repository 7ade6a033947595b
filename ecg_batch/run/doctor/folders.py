"""Folders: where the dataset would go, and whether what a run does there works, tried with files of its own."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from ecg_batch.errors import UserError, shown_path
from ecg_batch.files import NO_LINKS, remove_tree, sync
from ecg_batch.run.doctor.facts import Fact, odd, wrong
from ecg_batch.run.folder import place_of

MOUNTS = Path("/proc/self/mountinfo")
SCARCE_BYTES, SCARCE_FILES = 2**30, 1000
MODE_GROUP = 0o2000


def dataset(out: Path | None, on_slurm: bool = False) -> Iterator[Fact]:
    """The folder that --out would be in, or the present one."""
    try:
        place = place_of(out) if out else Path.cwd() / "dataset"
        if on_slurm:
            from ecg_batch.run.slurm.cluster import refuse_log_names
            from ecg_batch.run.slurm.driver import logs_of

            refuse_log_names(logs_of(place))
        beside = next(parent for parent in place.absolute().parents if parent.exists())
    except UserError as error:
        yield wrong("--out", str(error), "Give another --out")
        return
    except OSError as error:
        yield wrong("--out", f"the present folder cannot be looked at: {error.strerror}", "Go to another one, or give --out")
        return
    where = f"{shown_path(place)}, in" if out else "not given; the present folder:"
    yield Fact("--out", f"{where} {shown_path(beside)}")
    yield from space(beside)
    yield from trials(beside)


def space(folder: Path) -> Iterator[Fact]:
    kind, mount = file_system(folder)
    free = os.statvfs(folder)
    size, files = free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None
    mode = ", its files are the group's (setgid)" if os.stat(folder).st_mode & MODE_GROUP else ""
    yield Fact("file system", f"{kind} at {mount}, {size / 2**30:,.1f} GB free, "
               f"{'any number of' if files is None else f'{files:,}'} files free{mode}")  # fmt: skip
    if size < SCARCE_BYTES:
        yield odd("file system", f"{size / 2**20:,.0f} MB are free",
                  "The 2,048 records of configs/demo.yaml take 27 MB, and others in proportion: make room")  # fmt: skip
    if files is not None and files < SCARCE_FILES:
        yield odd("file system", f"{files} more files can be made", "A run makes two for each shard: make room")


def trials(folder: Path) -> Iterator[Fact]:
    """What a run asks of a file system, in a folder of its own that is removed."""
    own = folder / f".ecg-batch-doctor-{uuid4().hex}"
    try:
        own.mkdir()
    except OSError as error:
        yield wrong("--out", f"no folder can be made in {shown_path(folder)}: {error.strerror}",
                    "Give an --out that you may write to")  # fmt: skip
        return
    try:
        yield from _trials(own)
    finally:
        remove_tree(own)


def _trials(own: Path) -> Iterator[Fact]:
    one, other = own / "one", own / "other"
    one.mkdir(), other.mkdir()
    works, told = [], []

    def attempt(name: str, action: Callable[[], object], without: Callable[[OSError], Fact]) -> None:
        try:
            action()
            works.append(name)
        except OSError as error:
            told.append(without(error))

    def cannot(name: str, todo: str) -> Callable[[OSError], Fact]:
        return lambda error: wrong("file system", f"no {name}: {error.strerror}", todo)

    def write() -> None:
        (one / "file").write_bytes(b"ecg-batch doctor\n")
        sync(one / "file"), sync(one)

    attempt("write and fsync", write, cannot("writing", "Give an --out on another file system"))
    attempt("rename over a file", lambda: _rename_over(one), cannot("renaming", "Give an --out on another file system"))
    attempt("links between folders", lambda: os.link(one / "file", other / "link"), _without_links)
    attempt("rename a folder", lambda: os.rename(other, own / "renamed"), cannot("renaming of folders", "Give another --out"))
    attempt("flock", lambda: _lock(one / "file"), lambda error: Fact(
        "file system", f"no flock ({error.strerror}): none is needed; two runs that end at once do some work twice"))  # fmt: skip
    yield Fact("file system", f"works here: {', '.join(works) or 'nothing'}")
    yield from told


def _rename_over(folder: Path) -> None:
    (folder / "new").write_bytes(b"new")
    os.replace(folder / "new", folder / "file")


def _without_links(error: OSError) -> Fact:
    if error.errno in NO_LINKS:
        return Fact("file system", f"no links between folders ({error.strerror}): a mark beside the file stands in, as on BeeGFS")
    return wrong("file system", f"no links between folders: {error.strerror}", "Give an --out on another file system")


def _lock(path: Path) -> None:
    with open(path, "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def file_system(folder: Path) -> tuple[str, str]:
    """(kind, where it is mounted) of the file system a folder lies on, as Linux tells it."""
    path, best = os.path.realpath(folder), ("unknown", "unknown")
    try:
        text = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no Linux
        return best
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), (before.split() + [""] * 5)[4])
        if os.path.commonpath([path, mount or "/"]) == mount and (best[1] == "unknown" or len(mount) >= len(best[1])):
            best = (after.split() or ["unknown"])[0], mount
    return best


