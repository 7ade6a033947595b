"""The corpora of real texture that the models learn from, as `ecg-batch prepare` writes them: BANK/textures.zarr."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED, MV_PER_UV
from ecg_batch.models.sequences.rhythm_codes import STATEMENTS
from ecg_batch.signal.noise import LEVEL_BANDS_HZ, has_unit, mean_level
from ecg_batch.statements import NOISE_KINDS, stated
from ecg_batch.sums import open_whole

log = logging.getLogger(__name__)

REMEDY = "Copy the bank again from where it is whole, or make it again with ecg-batch prepare"
VALIDATION_FOLD = 9  # folds 1-8 train; fold 10 is for the final test and never reaches the corpus


@dataclass(frozen=True)
class Corpus:
    """Texture = a real ECG minus its skeleton, with what is known of its patient."""

    texture_mv: np.ndarray  # (record, lead, time) float32
    fold: np.ndarray  # (record,)
    statements: tuple[tuple[str, ...], ...]  # SCP statements of each record, whatever their likelihood
    superclass_of: dict[str, str]  # diagnostic statement -> NORM, MI, STTC, CD, HYP
    fs_hz: float

    def __len__(self) -> int:
        return len(self.fold)


@dataclass(frozen=True)
class UnitCorpus:
    """How loud texture is, beat by beat, and what a reader said of it (signal/noise.py)."""

    level: np.ndarray  # int8 (record, unit, lead, band)
    noise: np.ndarray  # uint8 (record, kind, lead)
    fold: np.ndarray  # (record,)
    fs_hz: float

    def __len__(self) -> int:
        return len(self.fold)

    def means(self) -> np.ndarray:
        """The mean level of each record, int64 (record, lead * band)."""
        return mean_level(self.level).reshape(len(self), -1)

    def changes(self) -> np.ndarray:
        """How much louder than its record's mean each unit is, int64 (unit, lead * band)."""
        record, unit = np.nonzero(has_unit(self.level))
        return self.level[record, unit].reshape(len(record), -1) - self.means()[record]

    def parts(self) -> "tuple[UnitCorpus, UnitCorpus]":
        """Training and validation records."""
        validation = self.fold == VALIDATION_FOLD
        return self._where(~validation), self._where(validation)

    def _where(self, keep: np.ndarray) -> "UnitCorpus":
        return UnitCorpus(self.level[keep], self.noise[keep], self.fold[keep], self.fs_hz)


def load_unit_corpus(bank: Path) -> UnitCorpus:
    """The units of a bank. UserError where it has none, or holds the wrong leads or folds."""
    path, group = _open(bank, ("fold",))
    if not {"unit_level", "noise"} <= set(group.array_keys()):
        raise UserError(f"{path}: does not say how loud its textures are, as banks of before. Make it again with ecg-batch prepare")
    try:
        level, noise, fold = (group[name][:] for name in ("unit_level", "noise", "fold"))
        fs_hz = float(stated(group.attrs)[-1])
    except Exception as error:  # as in load_corpus
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error!s:.200}). {REMEDY}") from error
    shapes = (len(MODELLED), len(LEVEL_BANDS_HZ)), (len(NOISE_KINDS), len(MODELLED))
    if (level.shape[2:], noise.shape[1:]) != shapes or not len(level) == len(noise) == len(fold):
        raise UserError(f"{path}: unit_level has shape {level.shape}, noise {noise.shape}, fold {fold.shape}; needed (record, "
                        f"unit) and {shapes[0]}, (record,) and {shapes[1]}, (record,). {REMEDY}")  # fmt: skip
    _check_folds(path, fold)
    return UnitCorpus(level, noise, fold, fs_hz)


@dataclass(frozen=True)
class RhythmCorpus:
    """Where the beats of each record are, and which. r_sample (record, beat), symbol str (record, beat): "" is no beat."""

    r_sample: np.ndarray
    symbol: np.ndarray
    held: np.ndarray  # bool (record, statement) of rhythm_codes.STATEMENTS, whatever their likelihood
    age: np.ndarray  # (record,) years
    patient_id: np.ndarray
    fold: np.ndarray
    fs_hz: float


def load_rhythm_corpus(bank: Path) -> RhythmCorpus:
    """The beats of a bank's recordings. UserError where it does not have them, or holds the wrong folds."""
    path, group = _open(bank, ("fold",))
    if not {"r_sample", "beat_symbol"} <= set(group.array_keys()):
        raise UserError(f"{path}: does not say where its beats are, as banks before 0.5.0. Make it again with ecg-batch prepare")
    try:
        names = ("r_sample", "beat_symbol", "likelihood", "age", "patient_id", "fold")
        r, letter, likelihood, age, patient_id, fold = (group[name][:] for name in names)
        codes, _, fs_hz = stated(group.attrs)
        symbol = np.where(r >= 0, letter.astype(np.uint8).view("S1").astype("U1"), "")
        held = np.stack([likelihood[:, codes.index(code)] >= 0 if code in codes else np.zeros(len(fold), bool)
                         for code in STATEMENTS], axis=1)  # fmt: skip
    except Exception as error:  # as in load_corpus
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error!s:.200}). {REMEDY}") from error
    if not r.shape == letter.shape == symbol.shape or not len(r) == len(age) == len(patient_id) == len(fold):
        raise UserError(f"{path}: r_sample has shape {r.shape}, beat_symbol {letter.shape}, fold {fold.shape}; needed (record, "
                        f"beat) twice, and (record,). {REMEDY}")  # fmt: skip
    _check_folds(path, fold)
    return RhythmCorpus(r, symbol, held, age.astype(np.float64), patient_id, fold, float(fs_hz))


def _open(bank: Path, needed: tuple[str, ...]):
    path = Path(bank) / "textures.zarr"
    if not (path / "zarr.json").is_file():
        raise UserError(
            f"{path}: not found; training needs the texture corpus of a bank. Run ecg-batch prepare --ptbxl DIR --out {bank} first"
        )
    return path, open_whole(path, needed, REMEDY)


def load_corpus(bank: Path) -> Corpus:
    """The corpus of a bank. UserError where it is absent or holds the wrong leads or folds."""
    path, group = _open(bank, ("texture", "fold", "likelihood"))
    try:
        texture, fold, likelihood = group["texture"][:], group["fold"][:], group["likelihood"][:]
        codes, superclass_of, fs_hz = stated(group.attrs)
        statements = tuple(tuple(np.array(codes)[row >= 0].tolist()) for row in likelihood)
    except Exception as error:  # Zarr and its codecs raise what they like; the user needs one advice
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error!s:.200}). {REMEDY}") from error
    _check(path, texture, fold)
    log.info("%s: %s records of texture, %.2f GB in memory, and as much again for those to train on", path, f"{len(texture):,}",
             texture.size * 4 / 1e9)  # fmt: skip
    return Corpus(_in_mv(texture), fold, statements, superclass_of, float(fs_hz))


def _in_mv(texture: np.ndarray) -> np.ndarray:
    """int16 in uV -> float32 in mV, a part at a time: the product is float64, twice what remains of it."""
    texture_mv = np.empty(texture.shape, np.float32)
    for start in range(0, len(texture), 256):
        texture_mv[start : start + 256] = texture[start : start + 256] * MV_PER_UV
    return texture_mv


def _check(path: Path, texture: np.ndarray, fold: np.ndarray) -> None:
    if not len(texture) == len(fold):
        raise UserError(f"{path}: {len(texture)} textures but {len(fold)} folds. {REMEDY}")
    if texture.ndim != 3 or texture.shape[1] != len(MODELLED):
        raise UserError(
            f"{path}: texture has shape {texture.shape}; needed (record, {len(MODELLED)}, time). Prepare the bank again"
        )
    _check_folds(path, fold)


def _check_folds(path: Path, fold: np.ndarray) -> None:
    if (fold == VALIDATION_FOLD).sum() == 0 or (fold < VALIDATION_FOLD).sum() == 0:
        raise UserError(
            f"{path}: holds folds {np.unique(fold).tolist()}; needed records of fold {VALIDATION_FOLD} to validate on "
            "and of lower folds to train on. Prepare the bank from more of PTB-XL"
        )
    if (fold > VALIDATION_FOLD).any():
        raise UserError(f"{path}: holds records of fold 10, which is kept for the final test. Prepare the bank again without it")


def select(corpus: Corpus, keep: np.ndarray) -> Corpus:
    """The records where `keep` is true."""
    statements = tuple(s for s, kept in zip(corpus.statements, keep, strict=True) if kept)
    return Corpus(corpus.texture_mv[keep], corpus.fold[keep], statements, corpus.superclass_of, corpus.fs_hz)


def split(corpus: Corpus) -> tuple[Corpus, Corpus]:
    """Training and validation records."""
    validation = corpus.fold == VALIDATION_FOLD
    return select(corpus, ~validation), select(corpus, validation)
