"""Layout: the names of files and folders of a run, and how records are cut into shards."""

from dataclasses import dataclass
from pathlib import Path

from ecg_batch.errors import UserError

FORMAT = 1
PLAN, ECG, RECORDS, MANIFEST, SUMS = "plan.json", "ecg.zarr", "records.parquet", "dataset.json", "SHA256SUMS"
HDF5_DIGITS = 5  # so that names sort as numbers; before 0.4 there were none to fill up
HDF5, CROISSANT, README = "ecg.hdf5", "croissant.json", "README.md"
BEATS = "beats.parquet"
ARROW, PARQUET = "arrow", "parquet"  # of parts
RECEIPTS, PARTS, STAGING, FAILURES = "receipts", "parts", "staging", "failures"
FORMAT_FOLDERS = {"zarr": (ECG, f"{ECG}/ecg", f"{ECG}/lead", f"{ECG}/time"), "hdf5": (HDF5,)}
FOLDERS = (RECEIPTS, PARTS, STAGING, FAILURES)


@dataclass(frozen=True)
class Shard:
    """Records start .. stop - 1, the unit of work: one Zarr shard file, or of records over a minute one for each."""

    index: int
    start: int
    stop: int

    @property
    def records(self) -> int:
        return self.stop - self.start


def final_name(path: Path) -> Path:
    """The name a run's folder has, or will have, when it is finished: from either of its names, '.' inside it, or a link to it."""
    if path.name in ("", "..") or path.is_symlink():  # what is renamed in the end is a folder, not a link to one
        try:
            path = path.resolve()
        except (OSError, RuntimeError) as error:
            raise UserError(f"{path}: a symbolic link that leads nowhere ({error}). Give the path of a folder") from None
    if not (name := path.name.removesuffix(".partial")):
        raise UserError(f"{path}: cannot be the folder of a run, which is renamed when it is finished. Give a folder in it")
    return path.with_name(name)


def partial_of(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def ecg_file(shard_index: int, format: str = "zarr", digits: int = HDF5_DIGITS) -> str:
    return f"{ECG}/ecg/c.{shard_index}.0.0" if format == "zarr" else f"{HDF5}/{shard_index:0{digits or 1}d}.h5"


def part_file(shard_index: int, kind: str) -> str:
    return f"{PARTS}/{shard_index}.{kind}"


def beats_part_file(shard_index: int, kind: str) -> str:
    return f"{PARTS}/{shard_index}.beats.{kind}"


def cut_shards(records: int, shard_records: int) -> tuple[Shard, ...]:
    """Shards of shard_records each, the last one shorter: every record exactly once."""
    starts = range(0, records, shard_records)
    return tuple(Shard(i, start, min(start + shard_records, records)) for i, start in enumerate(starts))
