"""Fixtures of runs."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike pytest's own. Skips where this process cannot become somebody else."""
    if os.getuid():
        pytest.skip("needs root, to become somebody else")
    folder = Path(tempfile.mkdtemp(prefix="ecg-open-"))
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def mount(tmp_path):
    """mount(name, size) -> a folder with a disk of its own in memory; or bind: another folder, seen there. Skips where that is not
    allowed.
    """
    mounted = []

    def do(name: str, size: str = "", bind: Path | None = None) -> Path:
        (folder := tmp_path / name).mkdir()
        how = ["--bind", bind] if bind else ["-t", "tmpfs", *(["-o", f"size={size}"] if size else []), "tmpfs"]
        done = subprocess.run(["mount", *how, folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount here (needs root): {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield do
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)
