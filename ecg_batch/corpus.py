"""The corpus of real texture that the models learn from, as `jobs/prepare.py` writes it: BANK/textures.zarr."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED, MV_PER_STEP

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


def load_corpus(bank: Path) -> Corpus:
    """The corpus of a bank. UserError where it is absent or holds the wrong leads or folds."""
    path = Path(bank) / "textures.zarr"
    try:
        group = zarr.open_group(path, mode="r")
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not found; training needs the texture corpus of a bank. "
            f"Run python jobs/prepare.py --ptbxl DIR --out {bank} first"
        ) from error
    texture, fold, likelihood = group["texture"][:], group["fold"][:], group["likelihood"][:]
    _check(path, texture, fold)
    codes = np.array(group.attrs["codes"])
    return Corpus(
        texture_mv=(texture * MV_PER_STEP).astype(np.float32),
        fold=fold,
        statements=tuple(tuple(codes[row >= 0].tolist()) for row in likelihood),
        superclass_of=dict(group.attrs["superclass_of"]),
        fs_hz=float(group.attrs["fs_hz"]),
    )


def _check(path: Path, texture: np.ndarray, fold: np.ndarray) -> None:
    if texture.ndim != 3 or texture.shape[1] != len(MODELLED):
        raise UserError(
            f"{path}: texture has shape {texture.shape}; needed (record, {len(MODELLED)}, time). Prepare the bank again"
        )
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
