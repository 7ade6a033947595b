"""Export: a finished dataset, or a part of it, in another format. In parallel, with progress, and resumed where it stopped.

The way of a run in small: OUT.partial while it is made, cut into units of records; a unit's note is written after its files, and a
rerun makes the units without a valid note; the last act renames OUT.partial to OUT. An export can be made again from its dataset at
any time, so its files are not fsynced one by one, and it has no receipts with hashes.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.files import remove_tree, to_json, write_new, write_over
from ecg_batch.plan import partial_of
from ecg_batch.read import OpenDataset

NOTES, STATE = "export-notes", "export.json"
UNIT_SAMPLES = 256 * 1000  # about as many samples a lead are one unit: 256 records of 10 s at 100 Hz, or one long one


@dataclass(frozen=True)
class Format:
    """begin(dataset, folder): once, first. unit(dataset, folder, first, stop) -> names of the files it wrote, of records first ..
    stop - 1 of the selection. end(dataset, folder): once, last, for what describes all. units(dataset): where units begin and end.
    """

    begin: Callable[[OpenDataset, Path], None]
    unit: Callable[[OpenDataset, Path, int, int], list[str]]
    end: Callable[[OpenDataset, Path], None]
    units: Callable[[OpenDataset], list[tuple[int, int]]]


def formats() -> dict[str, Format]:
    from ecg_batch import export_hdf5, export_npy, export_ptbxl

    modules = {"ptbxl": export_ptbxl, "hdf5": export_hdf5, "npy": export_npy}
    return {name: Format(module.begin, module.unit, module.end, module.units) for name, module in modules.items()}


def even_units(dataset: OpenDataset) -> list[tuple[int, int]]:
    each = max(1, UNIT_SAMPLES // (dataset.duration_s * dataset.fs_hz))
    return [(first, min(first + each, len(dataset))) for first in range(0, len(dataset), each)]


def pieces(dataset: OpenDataset, record: int, minutes: int = 10) -> Iterator[np.ndarray]:
    """One record of the source as int16 (lead, time) of so many minutes each: a day of it is never in memory at once."""
    samples, step = dataset.duration_s * dataset.fs_hz, minutes * 60 * dataset.fs_hz
    for start in range(0, samples, step):
        yield dataset.piece(record, start, min(start + step, samples))


def export(dataset: OpenDataset, out: Path, format: str, workers: int) -> int:
    """Write the records of the dataset to the folder `out`. Returns how many units a former run had left to be made.

    UserError where `out` exists, holds another export, cannot be written, or nothing is chosen.
    """
    if not len(dataset):
        raise UserError(f"{dataset}: no record chosen, so there is nothing to export. Choose others")
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
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    _claim(dataset, folder, format)
    made.begin(dataset, folder)
    units = made.units(dataset)
    missing = [unit for unit in units if not _is_done(folder, unit)]
    _run(dataset, folder, format, missing, len(dataset), workers)
    made.end(dataset, folder)
    (folder / STATE).unlink(missing_ok=True)
    remove_tree(folder / NOTES)
    os.rename(folder, out)
    return len(missing)


def _claim(dataset: OpenDataset, folder: Path, format: str) -> None:
    """Write down what this export is of; UserError where the folder is of another."""
    chosen = "all" if dataset.chosen is None else sha256(np.ascontiguousarray(dataset.chosen, "<i8")).hexdigest()
    state = to_json({"format": format, "run_id": dataset.manifest["run_id"], "content_root": dataset.manifest["content_root"],
                     "records": len(dataset), "chosen": chosen})  # fmt: skip
    if not write_new(folder / STATE, state, folder / NOTES) and (folder / STATE).read_bytes() != state:
        raise UserError(f"{folder}: holds a part of another export. Give another --out, or delete {folder} to start over")


def _note(folder: Path, unit: tuple[int, int]) -> Path:
    return folder / NOTES / f"{unit[0]}-{unit[1]}.json"


def _is_done(folder: Path, unit: tuple[int, int]) -> bool:
    """Whether a unit has its note, and its files still have the sizes that it states."""
    try:
        sizes = json.loads(_note(folder, unit).read_bytes())
        return all(os.stat(folder / name).st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _run(dataset: OpenDataset, folder: Path, format: str, missing: list, total: int, workers: int) -> None:
    from tqdm import tqdm

    done = total - sum(stop - first for first, stop in missing)
    with tqdm(total=total, initial=done, unit=" records", disable=None) as bar:
        if workers == 1 or len(missing) < 2:
            for unit in missing:
                bar.update(_make(dataset, folder, format, unit))
            return
        pool = ProcessPoolExecutor(min(workers, len(missing)), get_context("spawn"), _start_worker, (dataset, folder, format))
        try:
            for future in as_completed([pool.submit(_make_here, unit) for unit in missing]):
                bar.update(future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _make(dataset: OpenDataset, folder: Path, format: str, unit: tuple[int, int]) -> int:
    names = formats()[format].unit(dataset, folder, *unit)
    write_over(_note(folder, unit), to_json({name: os.stat(folder / name).st_size for name in names}), folder / NOTES)
    return unit[1] - unit[0]


_HERE: tuple = ()  # of a worker process: what it was started with


def _start_worker(*given) -> None:
    global _HERE
    _HERE = given


def _make_here(unit: tuple[int, int]) -> int:
    return _make(*_HERE, unit)
