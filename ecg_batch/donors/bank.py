"""The template bank: real donors, their skeletons and textures, and what is needed to draw one and re-time it.

A bank is a folder with two Zarr v3 groups, and nothing in it is pickled:

    donors.zarr     skeleton, texture   int16 (donor, lead, time), 1 uV a step, the 8 modelled leads; their sum is the donor's ECG
                    ecg_id, patient_id, fold, age, sex, hr_bpm                  (donor,)
                    likelihood          int8 (donor, code), percent; -1 = statement absent
                    r_sample            int32 (donor, beat), -1 = no more beats
                    loop_start, loop_stop, p_on, qrs_on, qrs_off, t_end         (donor,), samples; see loop.py, delineate.py
                    beat_type           int8 (donor, beat): 0 the most frequent, -1 no more beats; from format 2 on
                    unit_level          int8 (donor, unit, lead, band): how loud texture is under a beat; level.py; from format 2 on
                    noise               uint8 (donor, kind, lead): 1 where a reader saw such noise; quality.py; from format 2 on
                    wave_ms             int16 (donor, beat, mark), ms from R in the order of marks.MARKS, -32768 absent; since 0.4.0
                    source, record, start_s     (donor,), only where not all is from PTB-XL: the registry's place in the
                        attribute `sources`, the record's name as UTF-8 bytes with zeros behind it (donor, byte), and the
                        second of the record at which the donor begins
    textures.zarr   texture, unit_level, noise and the table of every record of folds 1-9 whose beats are clear, to train on; since
                    0.5.0 r_sample and beat_symbol too, uint8 (record, beat): the letter of N, V or A, Q of another beat, 0 no
                    more beats; a bank without textures.zarr can generate

Beside each lies the list of its files with their sha256, donors.sha256 and textures.sha256 (sums.py), which is held against them
at every opening: to Zarr a file that is not there is zeros, and zeros are a patient, a man and a statement.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ecg_batch import sums
from ecg_batch.errors import UserError
from ecg_batch.files import sync
from ecg_batch.leads import MODELLED
from ecg_batch.signal.marks import MARKS
from ecg_batch.statements import SUPERCLASSES, stated

FORMAT = 2
PTBXL = "Made from PTB-XL"  # how the attribution of a bank of its recordings begins
UNKNOWN_SOURCE = "Made from recordings of unknown source"
MOST_ATTRIBUTION = 500  # characters
CHUNK, SHARD = 64, 1024  # donors: how the signals are cut; any other column is one chunk: Zarr takes 0.4 ms a chunk
SIGNALS = ("skeleton", "texture")
LEVEL = 7  # of zstd: 42 MB/s of texture; 9 is 3 % smaller and writes 4 MB/s, which was a third of all the time of a bank
REMEDY = "Copy the bank again from where it is whole, or make it again with ecg-batch prepare"
TABLE_COLUMNS = ("ecg_id", "patient_id", "fold", "age", "sex", "hr_bpm", "likelihood")
SHAPE_COLUMNS = ("r_sample", "loop_start", "loop_stop", "p_on", "qrs_on", "qrs_off", "t_end")

LATER_COLUMNS = ("beat_type", "unit_level", "noise")  # of format 2
WAVES = "wave_ms"  # of banks of format 2 that were made since there is signal/waves.py
FLOATS, UNSIGNED = ("age", "hr_bpm"), ("noise",)  # all other columns hold whole numbers with a sign
SOURCE_COLUMNS = ("source", "record", "start_s")  # of banks that are not of PTB-XL alone


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
    attribution: str = UNKNOWN_SOURCE  # whom the recordings are from
    source: np.ndarray | None = None  # str (donor,), the registry; None, as the next two, in a bank of PTB-XL alone
    record: np.ndarray | None = None  # str (donor,), its name there
    start_s: np.ndarray | None = None  # second of that record at which the donor begins

    def __len__(self) -> int:
        return len(self.ecg_id)

    def holds(self, label: str) -> np.ndarray:
        """Which donors hold a superclass or an SCP statement: bool (donor,). An unknown label is held by none."""
        wanted = [label] if label in self.codes else [c for c, parent in self.superclass_of.items() if parent == label]
        columns = [self.codes.index(code) for code in wanted if code in self.codes]
        return (self.likelihood[:, columns] >= 0).any(axis=1)

    def at_least(self, likelihood: int) -> "DonorTable":
        """The same without the statements below a likelihood, percent. PTB-XL states 0 where it knows none: of rhythm and form."""
        return replace(self, likelihood=np.where(self.likelihood >= likelihood, self.likelihood, -1).astype(np.int8))

    @cached_property
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

    def scp_text(self, donor: int) -> str:
        """The same as JSON, which is made once for each donor."""
        if donor not in self._scp_text:
            self._scp_text[donor] = json.dumps(self.scp_codes(donor))
        return self._scp_text[donor]

    @cached_property
    def _scp_text(self) -> dict[int, str]:
        return {}


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
    beat_type: np.ndarray | None = None  # None, as are those that follow: of banks of format 1
    unit_level: np.ndarray | None = None
    noise: np.ndarray | None = None
    wave_ms: np.ndarray | None = None  # (donor, beat, mark); None in a bank that was made before there was this column

    def beats(self, donor: int) -> np.ndarray:
        """R samples of one donor, ascending."""
        return self.r_sample[donor][self.r_sample[donor] >= 0]

    def of_loops(self, of_beats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of beats (donor, beat), those of each donor's loop first, and how many these are: (donor,)."""
        inside = (self.r_sample >= self.loop_start[:, None]) & (self.r_sample < self.loop_stop[:, None])
        return np.take_along_axis(of_beats, np.argsort(~inside, axis=1, kind="stable"), axis=1), inside.sum(axis=1)


def read_table(folder: Path) -> DonorTable:
    """The donors of a bank without their ECGs. UserError when it is no bank, damaged, or from a newer version of this program."""
    return _table(_open(folder), folder)


def _table(group, folder: Path) -> DonorTable:
    columns = _read(group, folder, TABLE_COLUMNS)
    try:
        codes, parents, fs_hz = stated(group.attrs)
    except (KeyError, TypeError, ValueError) as error:
        what = f"codes, superclass_of or fs_hz of donors.zarr ({type(error).__name__}: {error!s:.200})"
        raise UserError(f"{folder}: damaged bank: {what}. {REMEDY}") from None
    columns |= _sources(group, folder, len(columns["ecg_id"]))
    said = group.attrs.get("attribution")
    known = isinstance(said, str) and 0 < len(said) <= MOST_ATTRIBUTION and said.isprintable()
    table = DonorTable(**columns, codes=codes, superclass_of=parents, fs_hz=fs_hz, attribution=said if known else UNKNOWN_SOURCE)
    if fault := _fault(table):
        raise UserError(f"{folder}: damaged bank: {fault}. {REMEDY}")
    return table


def _sources(group, folder: Path, donors: int) -> dict[str, np.ndarray]:
    """source, record and start_s of each donor; nothing where the bank has none."""
    names = group.attrs.get("sources")
    if names is None:
        return {}
    columns = _read(group, folder, SOURCE_COLUMNS)
    source, record, start_s = columns.values()
    try:
        if not all(isinstance(name, str) and name.isprintable() for name in names):
            raise ValueError("a source is no text")
        if (source.shape, start_s.shape, record.shape[:1], record.dtype) != ((donors,), (donors,), (donors,), np.uint8):
            raise ValueError("their shapes differ")
        if donors and not 0 <= source.min() <= source.max() < len(names):
            raise ValueError("a source without a name")
        texts = [row.tobytes().rstrip(b"\0").decode() for row in record]
        return {"source": np.array(names, object)[source], "record": np.array(texts, object), "start_s": start_s}
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: damaged bank: source, record or start_s ({error!s:.200}). {REMEDY}") from None


def as_bytes(texts: list[str]) -> np.ndarray:
    """Texts as UTF-8 bytes with zeros behind them, uint8 (text, byte): Zarr's core has no type for text."""
    each = [text.encode() for text in texts]
    width = max(map(len, each), default=1)
    return np.frombuffer(b"".join(text.ljust(width, b"\0") for text in each), np.uint8).reshape(len(each), width)


def _fault(table: DonorTable) -> str | None:
    """What no bank of ours holds, in words."""
    donors = len(table)
    if {column.shape for name in TABLE_COLUMNS[:-1] for column in [getattr(table, name)]} != {(donors,)} or not donors:
        return "its columns differ in length, or it holds no donor"
    if table.likelihood.shape != (donors, len(table.codes)) or not set(table.superclass_of) <= set(table.codes):
        return f"likelihood has shape {table.likelihood.shape}; needed {(donors, len(table.codes))}, a column for each statement"
    if not (np.isfinite(table.age).all() and np.isfinite(table.hr_bpm).all()):
        return "age or hr_bpm is not finite"
    if not (np.isin(table.sex, (0, 1)).all() and np.isin(table.fold, range(1, 11)).all()):
        return "sex other than 0 and 1, or fold other than 1 to 10"
    if table.likelihood.min() < -1 or table.likelihood.max() > 100:
        return "likelihood outside -1 to 100"
    return None


def read_beats(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(r_sample (donor, beat), p_on (donor,), t_end (donor,), samples of a donor) of a bank, without its ECGs."""
    group = _open(folder)
    return *_read(group, folder, ("r_sample", "p_on", "t_end")).values(), group["skeleton"].shape[-1]


def read_bank(folder: Path) -> Bank:
    """The whole bank in memory: 32 kB a donor at 100 Hz."""
    group = _open(folder)
    later = (*LATER_COLUMNS, *([WAVES] if WAVES in group else [])) if group.attrs["format"] > 1 else ()
    table, arrays = _table(group, folder), _read(group, folder, ("skeleton", "texture", *SHAPE_COLUMNS, *later))
    if any(len(values) != len(table) for values in arrays.values()) or arrays["skeleton"].shape != arrays["texture"].shape:
        raise UserError(f"{folder}: damaged bank: its arrays differ in length. {REMEDY}")
    if WAVES in later and arrays[WAVES].shape != (*arrays["r_sample"].shape, len(MARKS)):
        raise UserError(f"{folder}: damaged bank: {WAVES} has shape {arrays[WAVES].shape}, not {len(MARKS)} marks a beat. {REMEDY}")
    return Bank(table, *arrays.values())


def read_ecg(folder: Path, row: int) -> np.ndarray:
    """The ECG of one donor, skeleton and texture: int32 (lead, time) in microvolts. Nothing of the others is unpacked."""
    skeleton, texture = _read(_open(folder), folder, SIGNALS, int(row)).values()
    return skeleton.astype(np.int32) + texture


def _read(group, folder: Path, names: tuple[str, ...], key=...) -> dict[str, np.ndarray]:
    """key: all of them, or one row."""
    arrays = {}
    for name in names:
        try:
            arrays[name] = group[name][key]
        except Exception as error:  # Zarr and its codecs raise what they like; the user needs one advice
            raise UserError(
                f"{folder}: damaged bank: {name} cannot be read ({type(error).__name__}: {error!s:.200}). {REMEDY}"
            ) from error
        if fault := _misread(name, group[name]):
            raise UserError(f"{folder}: damaged bank: {name} is {fault}. {REMEDY}")
    return arrays


def _misread(name: str, array) -> str | None:
    """What no column of ours is, in words: the same bytes as numbers of another kind, or fewer of them, are other numbers, and no
    sum says so.
    """
    kind = "f" if name in FLOATS else "u" if name in UNSIGNED else "i"
    if name not in SOURCE_COLUMNS and array.dtype.kind != kind:
        return f"of type {array.dtype}"
    first = 1 if name in SIGNALS else 0  # their chunks of 64 donors may reach beyond the last donor
    if any(part > length for part, length in zip(array.chunks[first:], array.shape[first:], strict=True)):
        return f"of shape {array.shape}, in chunks of {array.chunks}, which hold more"
    if not hasattr(array, "metadata"):  # of stored.py, which takes little-endian arrays alone
        return None
    return "in big-endian order" if '"endian": "big"' in json.dumps(array.metadata.to_dict(), default=str) else None


def _open(folder: Path):
    if not (folder / "donors.zarr" / "zarr.json").is_file():
        raise UserError(f"{folder}: no bank here; a bank is a folder that holds donors.zarr. Make one with ecg-batch prepare, "
                        f"or write 'bank: bundled'")  # fmt: skip
    group = _group(folder / "donors.zarr", ("skeleton", "texture", *TABLE_COLUMNS, *SHAPE_COLUMNS))
    version, leads = group.attrs.get("format"), group.attrs.get("leads")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise UserError(f"{folder}: bank of format {version!s:.200}, this program reads 1 to {FORMAT}; use a newer ecg-batch")
    if leads != list(MODELLED):
        raise UserError(f"{folder}: bank of the leads {leads!s:.200}; needed {', '.join(MODELLED)}. Make it with ecg-batch prepare")
    return group


def _group(path: Path, needed: tuple[str, ...]):
    """The group to read: by ourselves where it is laid out as write_groups does that, else by zarr, with its words for the rest."""
    from ecg_batch.donors.stored import stored_group

    group = stored_group(path) if sums.is_whole(path, REMEDY) else None
    return group if group and all(name in group for name in needed) else sums.open_whole(path, needed, REMEDY)


def bank_digest(folder: Path) -> str:
    """sha256 over names and contents of the files of donors.zarr, in order: what a plan remembers of its bank."""
    digest = hashlib.sha256()
    root = folder / "donors.zarr"
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(bytes.fromhex(sums.sha256_once(path)))
    return digest.hexdigest()


def write_group(path: Path, arrays: dict[str, np.ndarray], attributes: dict) -> None:
    """Writes one Zarr v3 group and its list, whole or not at all. As write_groups."""
    write_groups({path: arrays}, attributes)


def write_groups(groups: dict[Path, dict[str, np.ndarray]], attributes: dict) -> None:
    """Writes Zarr v3 groups with their lists: all built beside their paths, then moved. Memory is bounded by one shard.

    Raises UserError when one exists: a bank that plans refer to is never changed in place. What was built is removed on an error.
    """
    for path in groups:
        if path.exists():
            raise UserError(f"{path}: exists; datasets may refer to it by its hash. Choose another --out, or delete it first")
    building = {path: path.with_name(f"{path.name}.{os.getpid()}.building") for path in groups}
    try:
        for path, arrays in groups.items():
            _build(building[path], arrays, attributes)
        for path, built in building.items():
            sums.list_of(path).write_bytes(sums.sums_of(built, path.name))  # before the group: there is none without its list
            os.replace(built, path)
            sync(path.parent)
    finally:
        for built in building.values():
            shutil.rmtree(built, ignore_errors=True)


def remove_left_behind(path: Path) -> None:
    """Removes a group of a bank that was killed before it was all there: its list says that it is ours. Else UserError."""
    if not sums.is_whole(path, "Remove it, or choose another --out"):
        raise UserError(
            f"{path}: exists without donors.zarr, and was not left there by this program. Choose another --out, or delete it first"
        )
    shutil.rmtree(path)
    sums.list_of(path).unlink()


def _build(path: Path, arrays: dict[str, np.ndarray], attributes: dict) -> None:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    shutil.rmtree(path, ignore_errors=True)  # of a process of the same number that was killed
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for name, values in arrays.items():
        rows, cut = len(values), {"chunks": values.shape}
        if name in SIGNALS:
            rows = min(-(-len(values) // CHUNK) * CHUNK, SHARD)
            cut = {"chunks": (CHUNK, *values.shape[1:]), "shards": (rows, *values.shape[1:])}
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            **cut,
            chunk_key_encoding={"name": "default", "separator": "."},
            compressors=[BloscCodec(cname="zstd", clevel=LEVEL, shuffle="bitshuffle"), Crc32cCodec()],
            config={"write_empty_chunks": True},  # else a bank without noise would lack a file as one with a hole does
        )
        for start in range(0, len(values), rows):
            array[start : start + rows] = values[start : start + rows]
