"""Labelled ECGs in memory, real or synthetic: what the judge learns from and the evaluation compares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.progress import track
from ecg_batch.statements import SUPERCLASSES

ARRAYS = ("ecg", "labels", "patient_id", "ecg_id", "fold", "age", "sex", "patients")
TRAIN_FOLDS, CHOICE_FOLD, TEST_FOLD = tuple(range(1, 9)), 9, 10


@dataclass(frozen=True)
class Labelled:
    """Arrays over records. ecg: int16 (record, 12, time) in microvolts; labels: bool (record, 5), order of SUPERCLASSES.

    patient_id, ecg_id, fold: of the record, or of the donor of a synthetic one. age in years (NaN = unknown), sex 0 male
    1 female (-1 = unknown). patients: everyone whose beats or noise are in the record, (record, the most of any), -1 = no more
    of them.
    codes: SCP statements of each record.
    """

    ecg: np.ndarray
    labels: np.ndarray
    patient_id: np.ndarray
    ecg_id: np.ndarray
    fold: np.ndarray
    age: np.ndarray
    sex: np.ndarray
    patients: np.ndarray
    codes: tuple[tuple[str, ...], ...]
    fs_hz: int

    def __len__(self) -> int:
        return len(self.ecg)

    def take(self, at: np.ndarray) -> "Labelled":
        """The records of an index array or a mask."""
        at = np.flatnonzero(at) if np.asarray(at).dtype == bool else np.asarray(at)
        arrays = {name: getattr(self, name)[at] for name in ARRAYS}
        return replace(self, **arrays, codes=tuple(self.codes[i] for i in at))

    def in_folds(self, *folds: int) -> "Labelled":
        return self.take(np.isin(self.fold, folds))

    def holds(self, code: str) -> np.ndarray:
        """Which records hold a superclass or a statement: bool (record,)."""
        if code in SUPERCLASSES:
            return self.labels[:, SUPERCLASSES.index(code)]
        return np.array([code in held for held in self.codes], bool)

    def hold(self, codes: Sequence[str]) -> np.ndarray:
        """The same of several: bool (record, code)."""
        return np.stack([self.holds(code) for code in codes], axis=1)


def from_ptbxl(folder: Path, fs_hz: int = 100, folds: tuple[int, ...] | None = None, every: bool = False) -> Labelled:
    """Every readable record of a PTB-XL folder that has a diagnostic superclass, as the published benchmark counts them.

    A record holds a statement, and a diagnostic one's superclass, whatever its likelihood, 0 too. every: also those without
    any superclass, which the benchmark counts for all statements.

    Raises UserError where training, choice or test fold would be empty. (Strodthoff et al. 2020, doi:10.1109/JBHI.2020.3022989)
    """
    from ecg_batch.donors.ptbxl import read_records, read_release

    release = read_release(Path(folder), fs_hz)
    chosen, ecg = [], np.empty(0)
    asked = [entry for entry in release.entries if not folds or entry.fold in folds]
    wanted = [entry for entry in asked if every or _superclasses(entry, release).any()]
    for entry, one in read_records(release, track(wanted, "reading PTB-XL", "records")):  # says which are missing from N
        ecg = ecg if chosen else np.empty((len(wanted), *one.shape), one.dtype)  # a list and its stack are twice the memory
        ecg[len(chosen)] = one
        chosen.append(entry)
    if not chosen:
        raise UserError(
            f"{folder}: no record with a superclass can be read"
            + (f" in folds {folds}" if folds else "")
            + ". Give a fuller PTB-XL"
        )
    found = {entry.fold for entry in chosen}
    if not folds and not (found & set(TRAIN_FOLDS) and CHOICE_FOLD in found and TEST_FOLD in found):
        raise UserError(
            f"{folder}: labelled records of folds {sorted(found)} only; needed some of folds 1-8 to train on, of fold 9 to "
            "choose on and of fold 10 to test on. Give a fuller PTB-XL"
        )
    return Labelled(
        ecg=ecg[: len(chosen)],
        labels=np.stack([_superclasses(entry, release) for entry in chosen]),
        patient_id=np.array([entry.patient_id for entry in chosen]),
        ecg_id=np.array([entry.ecg_id for entry in chosen]),
        fold=np.array([entry.fold for entry in chosen]),
        age=np.array([entry.age for entry in chosen]),
        sex=np.array([entry.sex for entry in chosen]),
        patients=_padded([[entry.patient_id] for entry in chosen]),
        codes=tuple(tuple(entry.scp_codes) for entry in chosen),
        fs_hz=fs_hz,
    )


def _superclasses(entry, release) -> np.ndarray:
    """Superclasses of an entry whatever the likelihood, as the benchmark and the bank do: bool (5,)."""
    held = {release.superclass_of.get(code) for code in entry.scp_codes}
    return np.array([name in held for name in SUPERCLASSES])


def _padded(patients: list[list[int]]) -> np.ndarray:
    """(record, the most of any): a record's noise may be of twenty people, and one of them that is left out here is a leak."""
    most = max(map(len, patients), default=1)
    return np.array([held + [-1] * (most - len(held)) for held in patients], np.int64).reshape(len(patients), most)


def from_rows(ecg: np.ndarray, rows, fs_hz: int) -> Labelled:
    """Synthetic records with their rows of records.parquet (a pyarrow Table): patient, ecg_id and fold are the donor's."""
    import json

    donors = {name: rows[f"donor_{name}"].to_numpy() for name in ("patient_id", "ecg_id", "fold")}
    hosts = ([patient] for patient in donors["patient_id"].tolist())
    further = [rows[name].to_pylist() if name in rows.column_names else [()] * len(rows)
               for name in ("blend_patient_id", "texture_patient_id", "beat_patient_id")]  # fmt: skip
    return Labelled(
        ecg=ecg,
        labels=np.stack([rows[name].to_numpy(zero_copy_only=False) for name in SUPERCLASSES], axis=1).astype(bool),
        **donors,
        age=rows["age"].to_numpy().astype(float),
        sex=rows["sex"].to_numpy(),
        patients=_padded([sum(map(list, held), []) for held in zip(hosts, *further, strict=True)]),
        codes=tuple(tuple(json.loads(held)) for held in rows["scp_codes"].to_pylist()),
        fs_hz=fs_hz,
    )


def together(*sets: Labelled) -> Labelled:
    """The records of several sets, in order."""
    arrays = {name: np.concatenate([getattr(part, name) for part in sets]) for name in ARRAYS if name != "patients"}
    arrays["patients"] = _padded([row for part in sets for row in part.patients.tolist()])
    return replace(sets[0], **arrays, codes=tuple(codes for part in sets for codes in part.codes))
