"""Export: a finished dataset, or a part of it, in another format. In parallel, with progress, and resumed where it stopped.

The way of a run in small: OUT.partial while it is made, cut into units of records; a unit's note is written after its files, and a
rerun makes the units without a valid note; the last act renames OUT.partial to OUT. An export can be made again from its dataset at
any time, so its files are not fsynced one by one, and it has no receipts. SHA256SUMS names each file: `sha256sum -c SHA256SUMS`.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import SUMS, partial_of
from ecg_batch.errors import UserError
from ecg_batch.export import hdf5 as export_hdf5
from ecg_batch.export import npy as export_npy
from ecg_batch.export import ptbxl as export_ptbxl
from ecg_batch.export import webdataset as export_webdataset
from ecg_batch.files import link_or_odd, read_regular, remove_tree, sha256_file, to_json, write_new, write_over
from ecg_batch.pool import pool_of
from ecg_batch.progress import progress
from ecg_batch.reading.synthetic import OpenDataset

NOTES, STATE = "export-notes", "export.json"


@dataclass(frozen=True)
class Format:
    """begin(dataset, folder): once, first. unit(dataset, folder, first, stop) -> names of the files it wrote, of records first ..
    stop - 1 of the selection. end(dataset, folder): once, last, for what describes all. units(dataset): where units begin and end.
    names(dataset, first, stop): the files that such a unit writes, and those that it may. shared: all units write into one file.
    """

    begin: Callable[[OpenDataset, Path], None]
    unit: Callable[[OpenDataset, Path, int, int], list[str]]
    end: Callable[[OpenDataset, Path], None]
    units: Callable[[OpenDataset], list[tuple[int, int]]]
    names: Callable[[OpenDataset, int, int], tuple[set[str], set[str]]]
    shared: bool


def formats() -> dict[str, Format]:
    modules = {"ptbxl": export_ptbxl, "hdf5": export_hdf5, "npy": export_npy, "webdataset": export_webdataset}
    return {
        name: Format(module.begin, module.unit, module.end, module.units, module.names, name == "npy")
        for name, module in modules.items()
    }


def export(dataset: OpenDataset, out: Path, format: str, workers: int) -> int:
    """Write the records of the dataset to the folder `out`. Returns how many units a former run had left to be made.

    UserError where `out` exists, holds another export, cannot be written, or nothing is chosen.
    """
    if not len(dataset):
        raise UserError(f"{dataset}: no record chosen, so there is nothing to export. Choose others")
    dataset.column_names()  # what cannot be read is told before anything is written
    if out.exists():
        raise UserError(f"{out}: exists already; nothing of it is touched. Give another --out, or delete it")
    folder = partial_of(out)
    try:
        return _export(dataset, out, folder, format, workers)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}. Free space or choose another --out, and run the "
                        "same command again; finished parts are kept") from error  # fmt: skip


def _export(dataset: OpenDataset, out: Path, folder: Path, format: str, workers: int) -> int:
    made = formats()[format]
    _refuse_foreign(folder)
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    _claim(dataset, folder, format)
    made.begin(dataset, folder)
    units = made.units(dataset)
    missing = [unit for unit in units if not _is_done(folder, unit, *made.names(dataset, *unit))]
    _run(dataset, folder, format, missing, len(dataset), workers)
    made.end(dataset, folder)
    write_over(folder / SUMS, _sums(folder, [_note(folder, unit) for unit in units]), folder / NOTES)
    (folder / STATE).unlink(missing_ok=True)
    remove_tree(folder / NOTES)
    os.rename(folder, out)
    return len(missing)


def _refuse_foreign(folder: Path) -> None:
    """UserError where the folder holds something that no export of ours began, before anything is written into it."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: no folder of an export. Give another --out, or move it away")
    held = sorted(os.listdir(folder)) if folder.exists() else []
    if set(held) - {NOTES} and STATE not in held:
        raise UserError(f"{folder}: holds {held[0]} and no {STATE}, so it is no part of an export; nothing of it is touched. Give "
                        "another --out, or move it away")  # fmt: skip


def _claim(dataset: OpenDataset, folder: Path, format: str) -> None:
    """Write down what this export is of; UserError where the folder is of another."""
    chosen = "all" if dataset.chosen is None else sha256(np.ascontiguousarray(dataset.chosen, "<i8")).hexdigest()
    state = to_json({"format": format, "run_id": dataset.manifest["run_id"], "content_root": dataset.manifest["content_root"],
                     "records": len(dataset), "chosen": chosen})  # fmt: skip
    if not write_new(folder / STATE, state, folder / NOTES) and read_regular(folder / STATE) != state:
        raise UserError(f"{folder}: holds a part of another export. Give another --out, or delete {folder} to start over")


def _note(folder: Path, unit: tuple[int, int]) -> Path:
    return folder / NOTES / f"{unit[0]}-{unit[1]}.json"


def _is_done(folder: Path, unit: tuple[int, int], written: set[str], perhaps: set[str]) -> bool:
    """Whether a unit has its note, of the files that it writes, and these still have the sizes that the note states."""
    try:
        files = json.loads(read_regular(_note(folder, unit)))
        if not written <= files.keys() <= written | perhaps or any(link_or_odd(folder, name) for name in files):
            return False
        return all(os.stat(folder / name).st_size == size and isinstance(sha256, str) for name, (size, sha256) in files.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _sums(folder: Path, notes: list[Path]) -> bytes:
    """SHA256SUMS: of files that units wrote as their notes have it, of the others read again."""
    known = {name: sha256 for note in notes for name, (_, sha256) in json.loads(read_regular(note)).items()}
    paths = (Path(parent) / name for parent, _, files in os.walk(folder) for name in files)
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    ours = [name for name in names if name not in (STATE, SUMS) and not name.startswith(f"{NOTES}/")]
    return "".join(f"{known.get(name) or sha256_file(folder / name)}  {name}\n" for name in ours).encode()


def _run(dataset: OpenDataset, folder: Path, format: str, missing: list, total: int, workers: int) -> None:
    done = total - sum(stop - first for first, stop in missing)
    with progress(total, "export", "records", done) as shown:
        if workers == 1 or len(missing) < 2:
            for unit in missing:
                shown.update(_make(dataset, folder, format, unit))
            return
        with pool_of(min(workers, len(missing)), _start_worker, dataset, folder, format) as pool:
            for future in as_completed([pool.submit(_make_here, unit) for unit in missing]):
                shown.update(future.result())


def _make(dataset: OpenDataset, folder: Path, format: str, unit: tuple[int, int]) -> int:
    """Its note says of each file how large it is, and its sha256, or nothing of a file that others go on writing."""
    made = formats()[format]
    names = made.unit(dataset, folder, *unit)
    files = {name: [os.stat(folder / name).st_size, "" if made.shared else sha256_file(folder / name)] for name in names}
    write_over(_note(folder, unit), to_json(files), folder / NOTES)
    return unit[1] - unit[0]


_HERE: tuple = ()  # of a worker process: what it was started with


def _start_worker(*given) -> None:
    global _HERE
    _HERE = given


def _make_here(unit: tuple[int, int]) -> int:
    return _make(*_HERE, unit)
