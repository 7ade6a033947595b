"""Fixtures of runs."""

import os
import shutil
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
