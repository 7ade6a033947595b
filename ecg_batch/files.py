"""Files that appear whole or not at all, and stay after a power cut: written aside, fsynced, then linked or moved."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from ecg_batch.errors import UserError


def sha256_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value) -> bytes:
    """Readable JSON, the same bytes for the same value: a key per line, innermost lists on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)  # strings hold no bare line break, so only layout is touched
    return (re.sub(r"\[\n[^][{}]*\]", _on_one_line, text) + "\n").encode()


def read_yaml(path: Path, what: str, known: Sequence[str]) -> dict:
    """The keys of a YAML file that a user wrote. UserError naming the file; what, known: to say what it should have been."""
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read {what}: {error}. Give the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}. Mend that line") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: found {type(raw).__name__}, needed 'key: value' lines; known keys: {', '.join(known)}")
    return raw


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

    scratch: a folder on the same file system. os.link is the one call that is exclusive on NFS and Lustre too.
    """
    aside = _write_aside(data, scratch)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)
    return True


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
