"""Train the model of noise, beat by beat: a codebook by k-means, then the Mamba on sequences of its codes."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ecg_batch.errors import UserError
from ecg_batch.keys import Range
from ecg_batch.models.checkpoints import best_epoch, save_curves, save_report, taught
from ecg_batch.models.corpus import UnitCorpus
from ecg_batch.models.networks import UnitConfig
from ecg_batch.models.sequences.network import NO_CODE, UnitNetwork, bits_of, mean_bits, nats, untied
from ecg_batch.models.sequences.unit_model import CODE_STEP, nearest, said
from ecg_batch.models.sizes import refuse
from ecg_batch.models.train_mamba import optimizer_of
from ecg_batch.models.weights import FORMAT
from ecg_batch.signal.noise import counted, has_unit

LONGEST = 24  # units of a recording that are learnt from: few recordings have more, and all sequences are padded to the longest


@dataclass(frozen=True)
class UnitTraining:
    epochs: Annotated[int, Range(1, 10**6)] = 4
    batch: Annotated[int, Range(1, 65_536)] = 64
    learning_rate: Annotated[float, Range(1e-12, 1e12)] = 3e-3
    weight_decay: Annotated[float, Range(0, 1e6)] = 0.1
    rounds: Annotated[int, Range(1, 10_000, "of k-means")] = 30
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0


@dataclass(frozen=True)
class Sequences:
    """codes int64 (record, l), NO_CODE beyond each end; said float32 (record, level + kind): what its condition is made of."""

    codes: torch.Tensor
    said: torch.Tensor

    def __len__(self) -> int:
        return len(self.codes)


def train_units(corpus: UnitCorpus, out: Path, config: UnitConfig, training: UnitTraining, device: torch.device) -> dict:
    """Train, keep the weights of the best epoch on fold 9 as OUT/units.safetensors, return the report. Resumes."""
    refuse(config, "train units"), refuse(training, "train units")
    train, check = corpus.parts()
    settings = {**asdict(config), **asdict(training), "records": len(train)}
    stated = {"format": FORMAT["units"], "fs_hz": f"{corpus.fs_hz:g}", "config": config.to_json()}
    torch.manual_seed(training.seed)  # initial weights only
    model = UnitNetwork(config)
    fit_codebook(model, train, training)
    learn, held_back = sequences(model, train), sequences(model, check)
    model.to(device)
    optimizer = optimizer_of(model, training)
    curves, made = best_epoch(
        "units", out, model, optimizer, training, settings, stated, untied,
        train=lambda epoch: train_epoch(model, optimizer, learn, training, epoch),
        look=lambda: mean_bits(bits_of(model, held_back.codes, held_back.said)),
    )  # fmt: skip
    if made:
        return made
    save_curves(out / "units_curves.png", "model of units", "bits a beat", curves)
    report = {"settings": settings, "curves": curves, **quality(model, learn, held_back, check, training.seed)}
    save_report(out / "units.json", report)
    return report


# The codebook ---------------------------------------------------------------------------------------------------------


def fit_codebook(model: UnitNetwork, train: UnitCorpus, training: UnitTraining) -> None:
    """k-means of how units change (Lloyd 1982, doi:10.1109/TIT.1982.1056489), kept in CODE_STEPs."""
    changes, means = train.changes(), torch.from_numpy(train.means()).float()
    model.mean.copy_(means.mean(0)), model.scale.copy_(means.std(0).clamp(min=1e-3))
    units = torch.from_numpy(counted(changes)).float()  # (unit, level)
    if len(units) < model.config.codes:
        raise UserError(f"train units: {len(units)} units of folds 1-8 for {model.config.codes} codes; needed as many at least. "
                        "Prepare a bank of more records, or set fewer codes")  # fmt: skip
    rng = np.random.default_rng(training.seed)
    codes = units[torch.from_numpy(rng.choice(len(units), model.config.codes, replace=False))]  # (K, level)
    for _ in range(training.rounds):
        of = torch.cat([torch.cdist(part, codes).argmin(1) for part in units.split(8192)])
        count = torch.bincount(of, minlength=len(codes))
        total = torch.zeros_like(codes).index_add_(0, of, units)
        codes = torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], codes)
    unscaled = codes / torch.from_numpy(counted(np.ones(model.config.levels)))
    model.codebook.copy_(torch.round(unscaled / CODE_STEP) * CODE_STEP)


def sequences(model: UnitNetwork, corpus: UnitCorpus) -> Sequences:
    there = has_unit(corpus.level)  # (record, unit)
    codes = np.full(there.shape, NO_CODE, np.int64)
    codes[there] = nearest(model.codebook.numpy(), corpus.changes())
    longest = min(max(int(there.sum(axis=1).max()), 1), LONGEST)
    of = said(corpus.means(), corpus.noise.reshape(len(corpus), -1), model.mean.numpy(), model.scale.numpy())
    return Sequences(torch.from_numpy(codes[:, :longest]), torch.from_numpy(of))


# The Mamba ------------------------------------------------------------------------------------------------------------


def train_epoch(
    model: UnitNetwork, optimizer: torch.optim.Optimizer, learn: Sequences, training: UnitTraining, epoch: int
) -> float:
    """Every training record once; mean bits a beat."""
    order = np.random.default_rng([training.seed, epoch]).permutation(len(learn))
    batches = [torch.from_numpy(rows) for rows in np.array_split(order, max(1, len(learn) // training.batch))]
    return taught("units", model, optimizer, training, epoch, batches,
                  lambda rows: nats(model, learn.codes[rows], learn.said[rows], "mean"))  # fmt: skip


# What it is worth -----------------------------------------------------------------------------------------------------


def quality(model: UnitNetwork, learn: Sequences, check: Sequences, corpus: UnitCorpus, seed: int) -> dict:
    """Of fold 9: bits a beat by a unigram, under right conditions and under those of other records; what the codebook explains."""
    other = torch.from_numpy(np.random.default_rng(seed).permutation(len(check)))
    right, shuffled = (bits_of(model, check.codes, said) for said in (check.said, check.said[other]))
    counts = torch.bincount(learn.codes[learn.codes != NO_CODE], minlength=model.config.codes).numpy()
    share = (counts + 1) / (counts.sum() + len(counts))
    held = check.codes[check.codes != NO_CODE].numpy()
    gain = (shuffled - right)[:, 0] / right[:, 1]  # (record,), paired, bits a beat
    half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
    changes, codebook = corpus.changes(), model.codebook.cpu().numpy()
    rest = counted(changes - codebook[nearest(codebook, changes)])
    mean, unigram = float(gain.mean()), float(-np.log2(share[held]).mean())
    return {
        "bits_a_beat": {"mamba": mean_bits(right), "mamba_other_conditions": mean_bits(shuffled), "unigram": unigram},
        "condition_gain_bits_a_beat": {"mean": mean, "low": float(mean - half), "high": float(mean + half)},
        "codes_used": int(len(np.unique(held))),
        "explained": float(1 - np.square(rest).sum() / np.square(counted(changes)).sum()),
    }
