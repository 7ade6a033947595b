"""Train the Mamba on the tokens of real texture, and say what it is worth beside models that cost nothing."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F

from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.keys import Range
from ecg_batch.models.checkpoints import best_epoch, save_curves, save_report, taught
from ecg_batch.models.conditions import choose_conditions, labels_of
from ecg_batch.models.corpus import Corpus, split
from ecg_batch.models.decode import load_vqvae
from ecg_batch.models.mamba import MambaConfig, MambaLM
from ecg_batch.models.sizes import refuse
from ecg_batch.models.vqvae import VqVae
from ecg_batch.models.weights import FORMAT


@dataclass(frozen=True)
class MambaTraining:
    epochs: Annotated[int, Range(1, 10**6)] = 12
    batch: Annotated[int, Range(1, 65_536)] = 16
    learning_rate: Annotated[float, Range(1e-12, 1e12)] = 3e-3
    weight_decay: Annotated[float, Range(0, 1e6)] = 0.1
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0


@dataclass(frozen=True)
class TokenSet:
    """Texture as tokens: `tokens` (phase, record, l), phase = the sample at which the first token begins."""

    tokens: torch.Tensor
    held: tuple[tuple[int, ...], ...]  # conditions each record holds


def train_mamba(corpus: Corpus, out: Path, config: MambaConfig, training: MambaTraining, device: torch.device) -> dict:
    """Train, keep the weights of the best epoch on fold 9 as OUT/mamba.safetensors, return the report. Resumes."""
    refuse(config, "train mamba"), refuse(training, "train mamba")
    vqvae = read_vqvae(out / "vqvae.safetensors", corpus, device)
    sha256 = sha256_file(out / "vqvae.safetensors")
    train, validation = split(corpus)
    conditions = choose_conditions([labels_of(codes, corpus.superclass_of) for codes in train.statements])
    config = replace(config, texture_tokens=vqvae.config.codes, condition_tokens=len(conditions))
    learn, check = tokenise(train, vqvae, conditions, device), tokenise(validation, vqvae, conditions, device)
    settings = {**asdict(config), **asdict(training), "vqvae_sha256": sha256, "records": len(train)}
    stated = metadata(config, conditions, sha256, corpus)
    model, optimizer = start(config, training, device)
    fixed = draw_conditions(check.held, np.random.default_rng(training.seed))
    curves, made = best_epoch(
        "mamba", out, model, optimizer, training, settings, stated, untied,
        train=lambda epoch: train_epoch(model, optimizer, learn, training, epoch),
        look=lambda: float(bits_by_record(model, check.tokens[0], fixed).mean()),
    )  # fmt: skip
    if made:
        return made
    save_curves(out / "mamba_curves.png", "Mamba", "bits per token", curves)
    found = quality(model, learn, check, training.seed)
    report = {"settings": settings, "conditions": conditions, "curves": curves, **found}
    save_report(out / "mamba.json", report)
    return report


def read_vqvae(path: Path, corpus: Corpus, device: torch.device) -> VqVae:
    vqvae, fs_hz = load_vqvae(path, device)
    if fs_hz != corpus.fs_hz:
        raise UserError(
            f"{path}: trained at {fs_hz:g} Hz, the bank's texture has {corpus.fs_hz:g} Hz; its tokens would be those "
            "of another time scale. Train both models on one bank"
        )
    return vqvae


def metadata(config: MambaConfig, conditions: tuple[str, ...], vqvae_sha256: str, corpus: Corpus) -> dict[str, str]:
    return {
        "format": FORMAT["mamba"], "fs_hz": f"{corpus.fs_hz:g}", "vqvae_sha256": vqvae_sha256, "config": config.to_json(),
        "conditions": json.dumps(conditions), "superclass_of": json.dumps(corpus.superclass_of),
    }  # fmt: skip


def untied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """safetensors refuses tensors that share memory, and mamba_ssm expects the tied head under its own name."""
    return {**tensors, "lm_head.weight": tensors["lm_head.weight"].clone()}


@torch.no_grad()
def tokenise(corpus: Corpus, vqvae: VqVae, conditions: tuple[str, ...], device: torch.device) -> TokenSet:
    """Tokens at every phase: where a token begins in a recording is arbitrary, so each is one more honest example.

    Beside the corpus 64 records are in memory at a time: of all phases at once it was some twenty corpora.
    """
    samples = vqvae.config.samples_per_token
    whole = (corpus.texture_mv.shape[-1] // samples - 1) * samples

    def quantised(phase: int, first: int) -> torch.Tensor:
        part = np.ascontiguousarray(corpus.texture_mv[first : first + 64, :, phase : phase + whole])  # (record, lead, time)
        return vqvae.quantise(vqvae.encode(torch.from_numpy(part).to(device)))  # (record, l)

    tokens = [torch.cat([quantised(phase, first) for first in range(0, len(corpus), 64)]) for phase in range(samples)]
    labels = (labels_of(codes, corpus.superclass_of) for codes in corpus.statements)
    held = tuple(tuple(i for i, name in enumerate(conditions) if name in names) for names in labels)
    return TokenSet(torch.stack(tokens), held)


def start(config: MambaConfig, training: MambaTraining, device: torch.device) -> tuple[MambaLM, torch.optim.Optimizer]:
    torch.manual_seed(training.seed)  # initial weights only
    model = MambaLM(config).to(device)
    return model, optimizer_of(model, training)


def optimizer_of(model: torch.nn.Module, training) -> torch.optim.Optimizer:
    """As in the reference, A and D are not decayed; nor are norms and biases."""
    free = [p for name, p in model.named_parameters() if p.ndim < 2 or name.endswith("A_log")]
    decayed = [p for name, p in model.named_parameters() if p.ndim >= 2 and not name.endswith("A_log")]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.95))


def draw_conditions(held: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> torch.Tensor:
    """One condition for each record among those it holds: (record,)."""
    return torch.tensor([names[int(rng.random() * len(names))] for names in held])


def train_epoch(model: MambaLM, optimizer: torch.optim.Optimizer, learn: TokenSet, training: MambaTraining, epoch: int) -> float:
    """Every training record once, at a random phase and under a random one of its conditions; mean bits per token."""
    rng = np.random.default_rng([training.seed, epoch])
    phases, records, _ = learn.tokens.shape
    conditions = draw_conditions(learn.held, rng)  # (record,)
    phase = torch.from_numpy(rng.integers(phases, size=records))  # (record,)
    batches = [torch.from_numpy(rows) for rows in np.array_split(rng.permutation(records), max(1, records // training.batch))]
    return taught("mamba", model, optimizer, training, epoch, batches,
                  lambda rows: nats(model, learn.tokens[phase[rows], rows], conditions[rows]).mean())  # fmt: skip


def nats(model: MambaLM, tokens: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
    """-log p of each token (b, l) given its condition (b,) and all tokens before it: (b, l)."""
    prefix = conditions.to(tokens.device)[:, None] + model.config.texture_tokens  # (b, 1)
    logits = model(torch.cat([prefix, tokens[:, :-1]], dim=1))[..., : model.config.texture_tokens]  # (b, l, K)
    return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")  # (b, l)


@torch.no_grad()
def bits_by_record(model: MambaLM, tokens: torch.Tensor, conditions: torch.Tensor) -> np.ndarray:
    """Mean bits per token of each record: (record,)."""
    parts = zip(tokens.split(64), conditions.split(64), strict=True)
    return torch.cat([nats(model, part, names).mean(1) for part, names in parts]).cpu().numpy() / np.log(2)


def quality(model: MambaLM, learn: TokenSet, check: TokenSet, seed: int, repeats: int = 8) -> dict:
    """Bits per token on fold 9: against unigram and bigram, and with right against shuffled conditions."""
    rng, tokens = np.random.default_rng(seed), check.tokens[0]
    right, shuffled = np.zeros(len(tokens)), np.zeros(len(tokens))
    for _ in range(repeats):
        conditions = draw_conditions(check.held, rng)  # (record,)
        right += bits_by_record(model, tokens, conditions) / repeats
        shuffled += bits_by_record(model, tokens, conditions[torch.from_numpy(rng.permutation(len(tokens)))]) / repeats
    gain = shuffled - right  # (record,), paired
    half = float(1.96 * gain.std(ddof=1) / np.sqrt(len(gain)))
    mean = float(gain.mean())
    bits = {"mamba": float(right.mean()), "mamba_shuffled_labels": float(shuffled.mean()), **ngrams(learn, check)}
    label_gain = {"mean": mean, "low": mean - half, "high": mean + half}
    return {"bits_per_token": bits, "label_gain_bits_per_token": label_gain}


def ngrams(learn: TokenSet, check: TokenSet) -> dict[str, float]:
    """Bits per token on fold 9 of a unigram and a bigram model of all phases of the training tokens.

    The bigram is smoothed towards the unigram with Dirichlet weight m (MacKay and Peto 1995,
    doi:10.1017/S1351324900000218), m chosen on a fifth of the training records.
    """
    codes = int(max(learn.tokens.max(), check.tokens.max())) + 1
    train, test = learn.tokens.cpu().numpy(), check.tokens[0].cpu().numpy()
    fifth = np.arange(train.shape[1]) % 5 == 0
    part = pair_counts(train[:, ~fifth], codes)
    weights = [2.0**power for power in range(12)]
    m = min(weights, key=lambda weight: bigram_bits(part, train[0, fifth], weight))
    counts = pair_counts(train, codes)
    alone = float(-np.log2(unigram(counts)[test]).mean())
    return {"unigram": alone, "bigram": bigram_bits(counts, test, m), "bigram_weight": m}


def pair_counts(tokens: np.ndarray, codes: int) -> np.ndarray:
    """How often one token follows another: (phase, record, l) -> (K, K)."""
    pairs = tokens[..., :-1].astype(np.int64) * codes + tokens[..., 1:]
    return np.bincount(pairs.ravel(), minlength=codes * codes).reshape(codes, codes)


def unigram(counts: np.ndarray) -> np.ndarray:
    return (counts.sum(0) + 1) / (counts.sum() + len(counts))


def bigram_bits(counts: np.ndarray, tokens: np.ndarray, weight: float) -> float:
    p = unigram(counts)
    conditional = (counts + weight * p) / (counts.sum(1, keepdims=True) + weight)  # (K, K)
    first, rest = -np.log2(p[tokens[:, 0]]), -np.log2(conditional[tokens[:, :-1], tokens[:, 1:]])
    return float(np.concatenate([first[:, None], rest], axis=1).mean())
