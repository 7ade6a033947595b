"""Train the model of rhythm: the Mamba on sequences of beats (rhythm_codes.py).

A recording of ten seconds has a dozen beats, a record to be made a hundred thousand. So half of what is learnt from are recordings
by themselves, and half are chains: a recording, followed by others that beat alike. The place where two of them meet is not learnt.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from ecg_batch.errors import UserError
from ecg_batch.keys import Range
from ecg_batch.models.checkpoints import best_epoch, save_curves, save_report, taught
from ecg_batch.models.corpus import VALIDATION_FOLD, RhythmCorpus
from ecg_batch.models.networks import RhythmConfig
from ecg_batch.models.sequences.network import NO_CODE, SequenceNetwork, bits_of, mean_bits, untied
from ecg_batch.models.sequences.rhythm_codes import ALPHABET, CODES, STATEMENTS, STEPS, SYMBOLS, codes_of, said
from ecg_batch.models.sizes import refuse
from ecg_batch.models.train_mamba import optimizer_of
from ecg_batch.models.weights import FORMAT

FEWEST = 5  # beats of a recording that is learnt from
LONGEST = 24  # beats of a recording by itself
CHAIN = 96  # beats of a chain
ALIKE = 15  # recordings that may follow one, itself among them
ECTOPIC = frozenset({"PVC", "PAC", "BIGU", "TRIGU"})
NOT_SINUS = ECTOPIC | {"AFLT", "SVTAC", "PSVT", "SVARR", "PACE", "1AVB", "2AVB", "3AVB"}
RHYTHMS = ("fibrillation", "ectopic", "sinus", "other")


@dataclass(frozen=True)
class RhythmTraining:
    epochs: Annotated[int, Range(1, 10**6)] = 5
    batch: Annotated[int, Range(1, 65_536, "recordings; of chains a third as many")] = 128
    learning_rate: Annotated[float, Range(1e-12, 1e12)] = 3e-3
    weight_decay: Annotated[float, Range(0, 1e6)] = 0.1
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0


@dataclass(frozen=True)
class Beats:
    """Sequences. codes int64 (record, l), NO_CODE beyond each end; said float32 (record, said); rhythm (record,), of RHYTHMS."""

    codes: torch.Tensor
    said: torch.Tensor
    rhythm: np.ndarray
    patient_id: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> "Beats":
        at = torch.from_numpy(np.asarray(rows))
        return Beats(self.codes[at], self.said[at], self.rhythm[rows], self.patient_id[rows])


def train_rhythm(corpus: RhythmCorpus, out: Path, config: RhythmConfig, training: RhythmTraining, device: torch.device) -> dict:
    """Train, keep the weights of the best epoch on fold 9 as OUT/rhythm.safetensors, return the report. Resumes."""
    refuse(config, "train rhythm"), refuse(training, "train rhythm")
    learn, check = beats_of_corpus(corpus, corpus.fold != VALIDATION_FOLD), beats_of_corpus(corpus, corpus.fold == VALIDATION_FOLD)
    settings = {**asdict(config), **asdict(training), "records": len(learn)}
    stated = {"format": FORMAT["rhythm"], "alphabet": ALPHABET, "config": config.to_json()}
    torch.manual_seed(training.seed)  # initial weights only
    model = SequenceNetwork(config).to(device)
    optimizer = optimizer_of(model, training)
    followers = alike(learn)
    curves, made = best_epoch(
        "rhythm", out, model, optimizer, training, settings, stated, untied,
        train=lambda epoch: train_epoch(model, optimizer, learn, followers, training, epoch),
        look=lambda: mean_bits(bits_of(model, check.codes, check.said)),
    )  # fmt: skip
    if made:
        return made
    save_curves(out / "rhythm_curves.png", "model of rhythm", "bits a beat", curves)
    report = {"settings": settings, "curves": curves, **quality(model, learn, check, training.seed)}
    save_report(out / "rhythm.json", report)
    return report


# What is learnt from --------------------------------------------------------------------------------------------------


def beats_of_corpus(corpus: RhythmCorpus, wanted: np.ndarray) -> Beats:
    """The wanted records, bool (record,), of which every beat is known. UserError where there is none."""
    count = (corpus.r_sample >= 0).sum(axis=1)
    rows = np.flatnonzero(wanted & (count >= FEWEST) & ~(corpus.symbol == "Q").any(axis=1))
    if not len(rows):
        raise UserError(f"train rhythm: of {int(wanted.sum())} records none has {FEWEST} beats that are all known. Prepare a bank "
                        "of more of PTB-XL")  # fmt: skip
    codes, mean_s = np.full((len(rows), int(count[rows].max()) - 1), NO_CODE, np.int64), np.empty(len(rows))
    for at, row in enumerate(rows):
        rr_s = np.diff(corpus.r_sample[row, : count[row]]) / corpus.fs_hz
        mean_s[at] = rr_s.mean()
        codes[at, : len(rr_s)] = codes_of(indices(corpus.symbol[row, 1 : count[row]]), rr_s / mean_s[at])
    held = corpus.held[rows]
    numbers = torch.from_numpy(said(held, mean_s, corpus.age[rows]))
    return Beats(torch.from_numpy(codes), numbers, rhythms_of(held), corpus.patient_id[rows])


def indices(symbol: np.ndarray) -> np.ndarray:
    """Where each is in SYMBOLS."""
    return np.array([SYMBOLS.index(one) for one in symbol.tolist()])


def rhythms_of(held: np.ndarray) -> np.ndarray:
    """Which of RHYTHMS each record is counted with, by its statements: (record,)."""
    of = {code: held[:, at] for at, code in enumerate(STATEMENTS)}
    ectopic, odd = (np.any([of[code] for code in sorted(codes)], axis=0) for codes in (ECTOPIC, NOT_SINUS))
    return np.select([of["AFIB"], ectopic, ~odd], RHYTHMS[:3], RHYTHMS[3])


def alike(learn: Beats) -> np.ndarray:
    """Of each record the ALIKE others, of like statements, whose beats vary most like its own: (record, ALIKE), with itself."""
    from scipy.spatial import cKDTree

    features = np.array([_features(codes[codes != NO_CODE]) for codes in learn.codes.numpy()])
    features = np.concatenate([features, 1.25 * learn.said[:, -2:-1].numpy()], axis=1)
    told = [STATEMENTS.index(code) for code in ("AFIB", "AFLT", "SVTAC", "PSVT", "PACE", "BIGU", "TRIGU", "PVC", "PAC")]
    statements = learn.said[:, told].numpy() > 0
    followers = np.empty((len(learn), ALIKE), np.int64)
    for key in np.unique(statements, axis=0):
        rows = np.flatnonzero((statements == key).all(axis=1))
        nearest = cKDTree(features[rows]).query(features[rows], k=min(ALIKE, len(rows)))[1].reshape(len(rows), -1)
        followers[rows] = rows[nearest[:, np.arange(ALIKE) % nearest.shape[1]]]
    return followers


def _features(codes: np.ndarray) -> list[float]:
    """How the beats of one record vary: how much RR changes, from beat to beat and at all, and how many are V and A."""
    symbol, step = np.divmod(codes, STEPS)
    change = np.log(np.array([np.square(np.diff(step)).mean(), step.var()]) + 0.25)
    return [*change, 8 * (symbol == 1).mean(), 8 * (symbol == 2).mean()]


# The Mamba ------------------------------------------------------------------------------------------------------------


def train_epoch(
    model: SequenceNetwork, optimizer: torch.optim.Optimizer, learn: Beats, followers: np.ndarray, training: RhythmTraining,
    epoch: int,
) -> float:
    """Every training record once by itself, and as the first of a chain every other; mean bits a beat."""  # fmt: skip
    draws = np.random.default_rng([training.seed, epoch])
    alone, first = draws.permutation(len(learn)), draws.permutation(len(learn))[: max(len(learn) // 2, 1)]
    length = (learn.codes != NO_CODE).sum(1).numpy()
    alone = alone[np.argsort(np.minimum(length[alone], LONGEST) // 4, kind="stable")]  # like lengths together: less padding
    batches = [(rows, False) for rows in np.array_split(alone, max(1, len(alone) // training.batch))]
    batches += [(rows, True) for rows in np.array_split(first, max(1, 3 * len(first) // training.batch))]
    device = model.inner.weight.device

    def loss_of(batch: tuple[np.ndarray, bool]) -> torch.Tensor:
        rows, chained = batch
        codes, wanted = chains(learn, followers, rows, draws) if chained else _alone(learn, rows)
        logits = model(codes.to(device), learn.said[torch.from_numpy(rows)].to(device))
        return F.cross_entropy(logits.transpose(1, 2), wanted.to(device), ignore_index=NO_CODE)

    return taught("rhythm", model, optimizer, training, epoch, [batches[at] for at in draws.permutation(len(batches))], loss_of)


def _alone(learn: Beats, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, what is to be learnt) (record, l)."""
    wanted = learn.codes[torch.from_numpy(rows), :LONGEST]
    wanted = wanted[:, : int((wanted != NO_CODE).sum(1).max())]
    return wanted.clamp(min=0), wanted


def chains(learn: Beats, followers: np.ndarray, rows: np.ndarray, draws: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of chains that begin with these records: (record, CHAIN), NO_CODE where one follows another."""
    codes, wanted = np.zeros((len(rows), CHAIN), np.int64), np.full((len(rows), CHAIN), NO_CODE)
    for row, codes_of_row, wanted_of_row in zip(rows, codes, wanted, strict=True):
        after, at = row, 0
        while at < CHAIN:
            one = learn.codes[after].numpy()
            one = one[one != NO_CODE][: CHAIN - at]
            codes_of_row[at : at + len(one)] = wanted_of_row[at : at + len(one)] = one
            if at:
                wanted_of_row[at] = NO_CODE
            at += len(one)
            after = followers[row, draws.integers(ALIKE)]
    return torch.from_numpy(codes), torch.from_numpy(wanted)


# What it is worth -----------------------------------------------------------------------------------------------------


def quality(model: SequenceNetwork, learn: Beats, check: Beats, seed: int) -> dict:
    """Of fold 9, by rhythm: bits a beat by a unigram, and under right conditions and those of other records."""
    other = torch.from_numpy(np.random.default_rng(seed).permutation(len(check)))
    right, shuffled = (bits_of(model, check.codes, of) for of in (check.said, check.said[other]))
    counts = torch.bincount(learn.codes[learn.codes != NO_CODE], minlength=CODES).numpy() + 0.5
    cost = -np.log2(counts / counts.sum())
    alone = np.array([cost[codes[codes != NO_CODE]].sum() for codes in check.codes.numpy()])
    unigram = np.stack([alone, right[:, 1]], axis=1)
    return {
        rhythm: {
            "records": int(of.sum()),
            "bits_a_beat": {"mamba": mean_bits(right[of]), "mamba_other_conditions": mean_bits(shuffled[of]),
                            "unigram": mean_bits(unigram[of])},
            "condition_gain_bits_a_beat": difference(shuffled[of], right[of], check.patient_id[of], seed),
        }
        for rhythm in RHYTHMS
        if (of := check.rhythm == rhythm).any()
    }  # fmt: skip


def difference(more: np.ndarray, less: np.ndarray, patient_id: np.ndarray, seed: int, rounds: int = 2000) -> dict[str, float]:
    """Bits a beat that `less` saves, both of bits_of, with an interval of 95 % by patient."""
    _, of = np.unique(patient_id, return_inverse=True)
    saved, beats = (np.bincount(of, weights) for weights in (more[:, 0] - less[:, 0], less[:, 1]))
    drawn = np.random.default_rng(seed).integers(len(saved), size=(rounds, len(saved)))
    low, high = np.percentile(saved[drawn].sum(axis=1) / beats[drawn].sum(axis=1), [2.5, 97.5])
    return {"mean": float(saved.sum() / beats.sum()), "low": float(low), "high": float(high)}
