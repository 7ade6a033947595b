"""Clearing: what a run made in its working folders, told by its name from what somebody else put there."""

import logging
import re
from pathlib import Path

from ecg_batch.dataset.layout import FAILURES, PARTS, STAGING
from ecg_batch.dataset.run import Run
from ecg_batch.files import remove_tree

log = logging.getLogger(__name__)

OURS = {  # claims and their beginnings, files set aside; parts of tables; what failed, and batches decided
    STAGING: re.compile(r"[0-9]+\.[0-9]+|(claim|file|merged|table)-[0-9a-f]+"),
    PARTS: re.compile(r"[0-9]+\.(beats\.)?(arrow|parquet)"),
    FAILURES: re.compile(r"[0-9]+\.txt|[0-9]+\.batch\.json|task-.*\.txt"),
}
MARK = re.compile(r"\..*\.mark")  # files.write_new, where there are no links


def clear(run: Run, name: str) -> None:
    """Remove one of a run's working folders with what the run made in it. Anything else in it stays, and the folder with it."""
    folder, ours = run.folder / name, OURS.get(name)
    if not folder.exists():
        return
    foreign = [path for path in folder.iterdir() if not (MARK.fullmatch(path.name) or (ours and ours.fullmatch(path.name)))]
    if not foreign:
        remove_tree(folder)
        return
    for path in folder.iterdir():
        if path not in foreign:
            _remove(path)
    log.warning("%s: left there: %s is no part of the run", folder, ", ".join(path.name for path in foreign[:5]))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
