"""The folder of a run: opened where it is new, taken up where a former run left it, refused where it is another run's."""

import errno
import json
import os
import re
import unicodedata
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from ecg_batch.dataset.layout import FOLDERS, FORMAT_FOLDERS, PLAN, STAGING, final_name, partial_of
from ecg_batch.dataset.plan import Plan, plan_to_json, read_plan, refuse_other_software
from ecg_batch.dataset.run import Run
from ecg_batch.errors import UserError, shown_path
from ecg_batch.files import sync, to_json, write_new, write_over

if TYPE_CHECKING:
    from ecg_batch.request.query_table import QueryTable

SHOWN = 4  # differing keys that a message names
LONGEST_NAME = 255  # bytes, on every common file system
ASIDE = re.compile(r"file-[0-9a-f]{32}")


def open_run(plan: Plan, table: "QueryTable | None", out: Path) -> Run:
    """The run in its folder: `out` where that is finished already, else out.partial, new or as a former run left it.

    UserError where the folder belongs to another request, or to somebody else; where its last act, the rename to `out`, would
    fail. Harmless when two do it at once, or when it was killed half-way.
    """
    out = place_of(out)
    run = Run(plan, partial_of(out))
    if not _is_finished(run):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            _try_last_act(out)
            _take_up(run.folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # /proc, say, where nothing can be made
            raise UserError(f"{partial_of(out)}: cannot be made: {error.strerror}. Give an --out that you may write to") from None
        if not _is_finished(run):  # looked at again: another run may just have renamed the folder away
            _fill(run, table)
            return Run(_as_begun(run), run.folder)
        run.folder.rmdir()
    return Run(_as_begun(Run(plan, out)), out)


def _as_begun(run: Run) -> Plan:
    """The plan with the versions of whoever began the run: with torch and without it may make the same bytes."""
    return replace(run.plan, versions=read_plan(run.folder).versions)


# Where it may be ------------------------------------------------------------------------------------------------------


def place_of(out: Path) -> Path:
    """The folder that the dataset will be: links resolved. UserError where its name cannot serve. Nothing is made."""
    try:
        refuse_odd_name(out)
        out = final_name(out)
        refuse_odd_name(out)
        if len(os.fsencode(partial_of(out).name)) > LONGEST_NAME:
            raise UserError(
                f"--out {shown_path(out.name)}: the name is too long: {LONGEST_NAME} bytes with '.partial'. Give a shorter one"
            )
        if partial_of(out).is_symlink():  # the rename would move the link
            raise UserError(f"{partial_of(out)}: is no folder but a link; a run is made there. Move it away, or give another --out")
        above = next(parent for parent in out.absolute().parents if parent.exists())
    except OSError as error:
        raise UserError(
            f"--out {shown_path(out)}: cannot be looked at: {error.strerror}. Give an --out that you may write to"
        ) from None
    if not above.is_dir():
        raise UserError(f"{out}: {above} is a file, and no folder can be in it. Give another --out")
    return out


def refuse_odd_name(path: Path) -> None:
    """UserError for control characters, which other programs read as ends of lines, and for what is no text in UTF-8."""
    odd = sorted({character for character in os.path.abspath(path) if unicodedata.category(character) in ("Cc", "Cs")})
    if odd:
        kind = "bytes that are no UTF-8" if unicodedata.category(odd[-1]) == "Cs" else "control characters"
        raise UserError(
            f"--out {shown_path(path)}: {kind} in a path ({', '.join(map(ascii, odd[:5]))}) break logs, tables and scripts that "
            "name it. Rename the folder, or give another --out"
        )


def _try_last_act(out: Path) -> None:
    """UserError where a folder cannot be renamed onto `out`: a mount point, or somebody else's in a folder like /tmp."""
    if os.path.ismount(partial_of(out)):
        raise UserError(f"{partial_of(out)}: is a mount point, which cannot be renamed to {out.name}. Give a folder in it as --out")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise UserError(
            f"{out.parent}: cannot be written, and the last act of a run is to rename its folder there. Give an --out that you may "
            "write to"
        )
    if not out.exists():
        return
    trial = out.with_name(f".ecg-batch-{uuid4().hex}")
    trial.mkdir()
    try:
        os.rename(trial, out)
    except OSError as error:
        trial.rmdir()
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another run has just finished
            return
        raise UserError(
            f"{out}: the finished dataset could not be moved there: {error.strerror}. A mount point, or somebody else's folder? "
            f"Give a folder in it, for example --out {out / 'dataset'}"
        ) from None


def _take_up(folder: Path) -> None:
    """Make the folder, or find that it is of a run. UserError where it is not: nothing is touched."""
    try:
        folder.mkdir()
        return
    except FileExistsError:
        if folder.is_symlink() or not folder.is_dir():
            raise UserError(f"{folder}: is no folder; a run is made there. Move it away, or give another --out") from None
    if not (folder / PLAN).exists() and not _is_beginning(folder):
        raise UserError(
            f"{folder}: holds files but no {PLAN} of a run; nothing of it is touched. Move it away, or give another --out"
        )


def _is_beginning(folder: Path) -> bool:
    """Whether this is all that a run killed before its plan was written can have left: empty folders, and a file set aside."""
    for path in folder.iterdir():
        if path.name not in FOLDERS or path.is_symlink() or not path.is_dir():
            return False
        if any(path.name != STAGING or not ASIDE.fullmatch(inner.name) for inner in path.iterdir()):
            return False
    return True


def give_back(run: Run) -> None:
    """Remove the folder of a run that has made nothing yet, so that a mended request is not another run's. Where anything was made,
    or anybody is at work, or a file is not the run's, the folder stays.
    """
    from ecg_batch.dataset.write import array_metadata
    from ecg_batch.request.query_table import NAME as QUERIES

    if run.is_finished or any(folder.exists() and os.listdir(folder) for folder in map(run.folder.joinpath, FOLDERS)):
        return
    for name in (*array_metadata(run.plan), QUERIES, PLAN):
        (run.folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty: somebody else's
        for name in (*reversed(FORMAT_FOLDERS[run.request.format]), *FOLDERS, "."):
            if (folder := run.folder / name).exists():
                folder.rmdir()


def _is_finished(run: Run) -> bool:
    out = run.out
    if (out / PLAN).exists():
        _refuse_other(Run(run.plan, out))
        return True
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out}: exists and is no dataset; nothing of it is touched. Give another --out")
    return False


# What is in it --------------------------------------------------------------------------------------------------------


def _fill(run: Run, table: "QueryTable | None") -> None:
    for name in FOLDERS:
        (run.folder / name).mkdir(exist_ok=True)
    if not write_new(run.folder / PLAN, to_json(plan_to_json(run.plan)), run.staging):
        _refuse_other(run)
    if table:
        _keep_table(run, table)
    from ecg_batch.dataset.write import array_metadata

    metadata = array_metadata(run.plan)
    for name in FORMAT_FOLDERS[run.request.format]:
        if run.request.format != "zarr" or f"{name}/zarr.json" in metadata:  # streamed records have no array of times
            # never with parents: that would bring back a folder which was renamed this moment
            (run.folder / name).mkdir(exist_ok=True)
    for name, data in metadata.items():
        if not (run.folder / name).exists() or (run.folder / name).read_bytes() != data:
            write_over(run.folder / name, data, run.staging)


def _keep_table(run: Run, table: "QueryTable") -> None:
    from ecg_batch.request import query_table

    if query_table.copy_digest(run.folder / query_table.NAME, run.request.shard) != run.plan.inputs["table"]:
        tmp = run.staging / f"table-{os.getpid()}"
        query_table.write_copy(table, tmp, run.request.shard)
        sync(tmp)
        os.replace(tmp, run.folder / query_table.NAME)
        sync(run.folder)


def _refuse_other(run: Run) -> None:
    """UserError unless the plan in the folder is this one."""
    there = read_plan(run.folder)
    if there.run_id != run.plan.run_id:
        raise UserError(
            f"{run.folder}: holds another run: {_difference(there, run.plan)}. A folder holds one run: give another --out"
            + ("" if run.is_finished else f", or delete {run.folder} to start over")
        )
    if not run.is_finished:
        refuse_other_software(there)


def _difference(there: Plan, here: Plan) -> str:
    old, new = _flat(there.request.resolved()), _flat(here.request.resolved())
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = [key for key in differing if key != "places"][:SHOWN]
    lines = [f"{key} is {old.get(key, 'absent')} there and {new.get(key, 'absent')} here" for key in shown]
    lines += ["the table of events is not the same"] * ("places" in differing)  # it is long
    lines += [f"{len(differing) - SHOWN} keys more differ"] * (len(differing) > SHOWN)
    names = sorted({*there.inputs, *here.inputs})
    lines += [f"the {name} is not the same" for name in names if there.inputs.get(name) != here.inputs.get(name)]
    return "; ".join(lines)


def _flat(value, prefix: str = "") -> dict[str, object]:
    """Dotted keys -> values as text; what is not set has none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return {prefix: json.dumps(value)}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{prefix}.{key}" if prefix else key).items()}
