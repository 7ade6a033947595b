"""The template bank: real donors, their skeletons and textures, and what is needed to draw one and re-time it.

A bank is a folder with two Zarr v3 groups, and nothing in it is pickled:

    donors.zarr     skeleton, texture   int16 (donor, lead, time), 1 uV a step, the 8 modelled leads; their sum is the donor's ECG
                    ecg_id, patient_id, fold, age, sex, hr_bpm                  (donor,)
                    likelihood          int8 (donor, code), percent; -1 = statement absent
                    r_sample            int32 (donor, beat), -1 = no more beats
                    loop_start, loop_stop, p_on, qrs_on, qrs_off, t_end         (donor,), samples; see loop.py, delineate.py
    textures.zarr   texture and the table of every usable record of folds 1-9, to train on; a bank without it can generate
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED
from ecg_batch.statements import SUPERCLASSES

FORMAT = 1
CHUNK, SHARD = 64, 1024  # donors
BUNDLED = Path(__file__).parent / "bundled"
TABLE_COLUMNS = ("ecg_id", "patient_id", "fold", "age", "sex", "hr_bpm", "likelihood")
SHAPE_COLUMNS = ("r_sample", "loop_start", "loop_stop", "p_on", "qrs_on", "qrs_off", "t_end")


@dataclass(frozen=True)
class DonorTable:
    """What is known of each donor, without its ECG. Arrays over donors; age in years, sex 0 male 1 female, hr_bpm measured."""

    ecg_id: np.ndarray
    patient_id: np.ndarray
    fold: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    hr_bpm: np.ndarray
    likelihood: np.ndarray  # (donor, code)
    codes: tuple[str, ...]
    superclass_of: dict[str, str]
    fs_hz: int

    def __len__(self) -> int:
        return len(self.ecg_id)

    def holds(self, label: str) -> np.ndarray:
        """Which donors hold a superclass or an SCP statement: bool (donor,). An unknown label is held by none."""
        wanted = [label] if label in self.codes else [c for c, parent in self.superclass_of.items() if parent == label]
        columns = [self.codes.index(code) for code in wanted if code in self.codes]
        return (self.likelihood[:, columns] >= 0).any(axis=1)

    def superclasses(self) -> np.ndarray:
        """Superclasses of each donor, bool (donor, 5), in the order of statements.SUPERCLASSES."""
        return np.stack([self.holds(name) for name in SUPERCLASSES], axis=1)

    def rarest_labels(self) -> np.ndarray:
        """Of each donor the statement that fewest donors hold, of those with a superclass where it has any: str (donor,)."""
        holders = (self.likelihood >= 0).sum(axis=0)
        no_superclass = np.array([code not in self.superclass_of for code in self.codes])
        rank = np.argsort(np.lexsort((holders, no_superclass)))  # (code,)
        return np.array(self.codes)[np.where(self.likelihood >= 0, rank, len(rank)).argmin(axis=1)]

    def scp_codes(self, donor: int) -> dict[str, int]:
        """The SCP statements of one donor with their likelihoods in percent, as in PTB-XL."""
        held = np.flatnonzero(self.likelihood[donor] >= 0)
        return {self.codes[code]: int(self.likelihood[donor, code]) for code in held}


@dataclass(frozen=True)
class Bank:
    """A bank in memory. skeleton, texture: int16 (donor, lead, time) in microvolts; the rest in samples."""

    table: DonorTable
    skeleton: np.ndarray
    texture: np.ndarray
    r_sample: np.ndarray
    loop_start: np.ndarray
    loop_stop: np.ndarray
    p_on: np.ndarray
    qrs_on: np.ndarray
    qrs_off: np.ndarray
    t_end: np.ndarray

    def beats(self, donor: int) -> np.ndarray:
        """R samples of one donor, ascending."""
        return self.r_sample[donor][self.r_sample[donor] >= 0]


def bank_folder(name: str) -> Path:
    """The folder of a bank by its name in a request: 'bundled' or a path."""
    return BUNDLED if name == "bundled" else Path(name)


def read_table(folder: Path) -> DonorTable:
    """The donors of a bank without their ECGs. Raises UserError when it is no bank, or from a newer version of this program."""
    group = _open(folder)
    columns = {name: group[name][...] for name in TABLE_COLUMNS}
    attributes = group.attrs
    return DonorTable(**columns, codes=tuple(attributes["codes"]), superclass_of=dict(attributes["superclass_of"]),
                      fs_hz=int(attributes["fs_hz"]))  # fmt: skip


def read_beats(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(r_sample (donor, beat), p_on (donor,), t_end (donor,), samples of a donor) of a bank, without its ECGs."""
    group = _open(folder)
    return *(group[name][...] for name in ("r_sample", "p_on", "t_end")), group["skeleton"].shape[-1]


def read_bank(folder: Path) -> Bank:
    """The whole bank in memory: 32 kB a donor at 100 Hz."""
    group = _open(folder)
    return Bank(read_table(folder), *(group[name][...] for name in ("skeleton", "texture", *SHAPE_COLUMNS)))


def _open(folder: Path):
    import zarr

    if not (folder / "donors.zarr" / "zarr.json").is_file():
        raise UserError(f"{folder}: no bank here; a bank is a folder that holds donors.zarr. Make one with jobs/prepare.py, "
                        f"or write 'bank: bundled'")  # fmt: skip
    try:
        group = zarr.open_group(folder / "donors.zarr", mode="r", use_consolidated=False)
        version, leads = group.attrs["format"], tuple(group.attrs["leads"])
        absent = [name for name in ("skeleton", "texture", *TABLE_COLUMNS, *SHAPE_COLUMNS) if name not in group]
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{folder}: damaged bank ({error}); make it again with jobs/prepare.py") from error
    if version > FORMAT:
        raise UserError(f"{folder}: bank of format {version}, this program reads up to {FORMAT}; use a newer ecg-batch")
    if absent or leads != MODELLED:
        raise UserError(f"{folder}: not a bank of this program ({', '.join(absent) or leads}); make it with jobs/prepare.py")
    return group


def bank_digest(folder: Path) -> str:
    """sha256 over names and contents of the files of donors.zarr, in order: what a plan remembers of its bank."""
    digest = hashlib.sha256()
    root = folder / "donors.zarr"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def write_group(path: Path, arrays: dict[str, np.ndarray], attributes: dict) -> None:
    """Writes one Zarr v3 group, whole or not at all: built beside `path`, then moved. Memory is bounded by one shard.

    Raises UserError when `path` exists: a bank that plans refer to is never changed in place.
    """
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    if path.exists():
        raise UserError(f"{path}: exists; datasets may refer to it by its hash. Choose another --out, or delete it first")
    building = path.with_name(f"{path.name}.{os.getpid()}.building")
    group = zarr.create_group(building, zarr_format=3, attributes=attributes)
    for name, values in arrays.items():
        rows = min(-(-len(values) // CHUNK) * CHUNK, SHARD)
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(CHUNK, *values.shape[1:]),
            shards=(rows, *values.shape[1:]),
            chunk_key_encoding={"name": "default", "separator": "."},
            compressors=[BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle"), Crc32cCodec()],
        )
        for start in range(0, len(values), rows):
            array[start : start + rows] = values[start : start + rows]
    os.replace(building, path)
