"""Files that appear whole or not at all, and stay after a power cut: written aside, fsynced, then linked or moved."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ecg_batch.remote.path import RemotePath

# what file systems without hard links, or with none between folders, answer
NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
MARK_S = 10.0  # a file is moved in far less
BLOCK = 2**16  # bytes that are written, or read and summed, at once


def sha256_file(path: Path | RemotePath) -> str:
    if isinstance(path, RemotePath):
        return hashlib.sha256(path.whole()).hexdigest()
    with open_regular(path, buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SummedFile(io.BufferedWriter):
    """A new file, and the crc32c of all that it was given to hold: sums_of_file says what it gives back."""

    def __init__(self, path: Path):
        from google_crc32c import extend  # 2 ms, which `status` does not need

        super().__init__(open(path, "wb", buffering=0), BLOCK)
        self.crc32c, self._extend = 0, extend

    def write(self, data: bytes) -> int:
        self.crc32c = self._extend(self.crc32c, data)
        return super().write(data)


def sums_of_file(path: Path) -> tuple[int, str, int]:
    """(bytes, sha256, crc32c) of a file, read once."""
    from google_crc32c import extend

    size, digest, crc32c = 0, hashlib.sha256(), 0
    with open_regular(path, buffering=0) as file:
        while data := file.read(BLOCK):
            size, crc32c = size + len(data), extend(crc32c, data)
            digest.update(data)
    return size, digest.hexdigest(), crc32c


def exists(path: Path) -> bool:
    """Path.exists, but PermissionError where that may not be known, which Python says up to 3.13; from 3.14 on it says False."""
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.EACCES:
            raise
        return False
    return True


def open_regular(path: Path | RemotePath, buffering: int = -1) -> BinaryIO:
    """A file opened to be read. OSError where it is a pipe or a device, which would be waited for, or read, without end."""
    if isinstance(path, RemotePath):
        from ecg_batch.remote.range_file import RangeFile  # with fsspec, which a local dataset does without

        return RangeFile(path.store, path.inner)
    file = open(path, "rb", buffering, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_regular(path: Path | str | RemotePath) -> bytes:
    """A file's content, by as few calls as can be: of receipts there are many. OSError as open_regular."""
    if isinstance(path, RemotePath):
        return path.read_bytes()
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        state, pieces = os.fstat(handle), []
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        while piece := os.read(handle, state.st_size + 1):
            pieces.append(piece)
    finally:
        os.close(handle)
    return b"".join(pieces)


def link_or_odd(folder: Path | RemotePath, name: str) -> str | None:
    """Why a file that is named in the folder is not simply in it, or None: symbolic links, pipes and the like, ways out of it.

    An absent file is no oddity: whoever reads it says so.
    """
    path = folder
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        return "no name of a file in this folder"
    if isinstance(folder, RemotePath):
        return None
    for part in parts:
        path /= part
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            return None
        if stat.S_ISLNK(mode):
            return f"{os.path.relpath(path, folder)} is a symbolic link, and nothing outside the folder is followed"
    return None if stat.S_ISREG(mode) else "not a regular file"


def to_json(value) -> bytes:
    """Readable JSON, the same bytes for the same value: a key per line, innermost lists on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)  # strings hold no bare line break, so only layout is touched
    return (re.sub(r"\[\n[^][{}]*\]", _on_one_line, text) + "\n").encode()


def _on_one_line(found: re.Match) -> str:
    return "[" + re.sub(r"\n *", " ", found[0][1:-1]).strip() + "]"


def sync(path: Path) -> None:
    """fsync of a file, or of a folder: without the latter a new name in it may be lost with the power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_aside(data: bytes, scratch: Path) -> Path:
    aside = scratch / f"file-{uuid4().hex}"
    aside.write_bytes(data)
    sync(aside)
    return aside


def write_new(path: Path, data: bytes, scratch: Path) -> bool:
    """Create path with data, or return False and leave it alone where it exists: of two writers exactly one wins.

    scratch: a folder on the same file system. os.link is the one call that is exclusive on NFS and Lustre too. BeeGFS and some
    FUSE file systems have no links between folders; there a mark beside the file says who is at it.
    """
    aside = _write_aside(data, scratch)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not _move_new(aside, path):
            return False
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _move_new(aside: Path, path: Path) -> bool:
    """Move a file to a name that is not taken, or return False, without links: whoever makes the mark looks and moves.

    A mark whose maker died is removed by whoever waited for it; the clock is the waiter's own.
    """
    mark = path.with_name(f".{path.name}.mark")
    until = time.monotonic() + MARK_S
    while not path.exists():
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            if time.monotonic() > until:
                mark.unlink(missing_ok=True)
            time.sleep(0.02)
            continue
        try:
            if path.exists():
                return False
            os.replace(aside, path)
            return True
        finally:
            mark.unlink(missing_ok=True)
    return False


def write_over(path: Path, data: bytes, scratch: Path) -> None:
    """Put data at path in one step, whatever was there."""
    os.replace(_write_aside(data, scratch), path)
    sync(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a folder that others may still be writing into: try again while new files appear. Absent is fine."""
    for _ in range(20):
        try:
            return shutil.rmtree(path)
        except FileNotFoundError:
            if not path.exists():
                return
        except OSError:
            time.sleep(0.05)
    shutil.rmtree(path)
