"""Train the VQ-VAE: an energy score on short-time spectra teaches the decoder to draw texture, not to average it.

Loss. With x the real texture and a, b two decodings of its tokens under different noise, the energy score

    (|x - a| + |x - b| - |a - b|) / 2

is smallest in expectation when a and b come from the distribution of x given the tokens (Gneiting and Raftery 2007,
doi:10.1198/016214506000001437). It is taken per coefficient of short-time Fourier transforms of several lengths, which
fixes the spectrum, and per companded sample, which fixes the amplitude distribution. One loss, no adversary.

Loudness. Each record's noise in each lead, as a normal score: its rank among the training records, put on a normal
curve. The decoder is told it, so that drawing it later gives quiet and noisy records as often as there are.

Codebook. Exponential moving averages of what was assigned to each row (van den Oord et al. 2017, appendix A.1); a row
that is hardly used starts again at an encoder output of the batch (Dhariwal et al. 2020,
https://arxiv.org/abs/2005.00341).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtri

from ecg_batch.errors import UserError
from ecg_batch.keys import Range
from ecg_batch.leads import MODELLED
from ecg_batch.models.checkpoints import (
    finished_report,
    load_checkpoint,
    refuse_divergence,
    resuming,
    save_checkpoint,
    save_curves,
    save_report,
    save_weights,
    set_learning_rate,
)
from ecg_batch.models.corpus import Corpus, split
from ecg_batch.models.sizes import refuse
from ecg_batch.models.vqvae import VqVae, VqVaeConfig
from ecg_batch.models.weights import FORMAT
from ecg_batch.progress import track

WINDOWS_S = (0.16, 0.64, 2.56, 5.12)  # short-time transforms; only the longest parts drift (< 0.7 Hz) from the rest
CORNER_BINS = 8  # bin k counts as 1 / (k + corner): octaves count alike, and each window serves its own lowest bins
POWER_FLOOR = 1e-3  # of the lead's unit, squared: about 1 uV of noise, under which nothing is heard
EMA_DECAY = 0.99
DEAD_SHARE = 0.03  # a row used less than this share of the average starts again


@dataclass(frozen=True)
class VqVaeTraining:
    epochs: Annotated[int, Range(1, 10**6)] = 30
    batch: Annotated[int, Range(1, 65_536)] = 16
    # half a record: twice the longest window of the loss, and half the time an epoch
    crop_s: Annotated[float, Range(0.1, 86_400)] = 5.12
    learning_rate: Annotated[float, Range(1e-12, 1e12)] = 2e-3
    commitment: Annotated[float, Range(0, 1e6)] = 0.25
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0


@dataclass
class Session:
    """Everything that training moves on. `codes_sum / codes_count` is the codebook."""

    model: VqVae
    optimizer: torch.optim.Optimizer
    codes_count: torch.Tensor  # (K,)
    codes_sum: torch.Tensor  # (K, d)


@dataclass(frozen=True)
class Told:
    """Texture and what the decoder is told of it beside its tokens."""

    texture_mv: torch.Tensor  # (record, lead, time)
    loudness: torch.Tensor  # (record, lead), normal scores

    @classmethod
    def of(cls, texture_mv: np.ndarray, ranks: np.ndarray, device: torch.device) -> "Told":
        scores = normal_scores(noise_mv(texture_mv), ranks)
        return cls(torch.from_numpy(texture_mv).to(device), torch.from_numpy(scores).to(device))

    def __getitem__(self, rows) -> "Told":
        return Told(self.texture_mv[rows], self.loudness[rows])

    def __len__(self) -> int:
        return len(self.texture_mv)


def noise_mv(texture_mv: np.ndarray) -> np.ndarray:
    """How noisy each lead of each record is, (record, lead): the mean step between samples, which drift hardly moves."""
    return np.abs(np.diff(texture_mv)).mean(axis=-1)


def normal_scores(noise: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Place of each value of noise (record, lead) in the sorted training values, as a standard normal number."""
    places = np.stack([np.searchsorted(*pair) for pair in zip(ranks.T, noise.T, strict=True)], axis=1)
    return ndtri((places + 0.5) / (len(ranks) + 1)).astype(np.float32)


def train_vqvae(corpus: Corpus, out: Path, config: VqVaeConfig, training: VqVaeTraining, device: torch.device) -> dict:
    """Train, keep the weights of the best epoch on fold 9 as OUT/vqvae.safetensors, return the report. Resumes."""
    refuse(config, "train vqvae"), refuse(training, "train vqvae")
    refuse_short(corpus, config, round(training.crop_s * corpus.fs_hz))
    train, validation = split(corpus)
    ranks = np.sort(noise_mv(train.texture_mv), axis=0)  # (record, lead)
    real, held_out = (Told.of(part.texture_mv, ranks, device) for part in (train, validation))
    settings = {**asdict(config), "dilations": list(config.dilations), **asdict(training), "records": len(train)}
    session, done, curves, best = start(real, config, training), 0, {"train": [], "fold 9": []}, None
    if checkpoint := load_checkpoint(out / "vqvae.checkpoint.pt", settings):
        with resuming(out / "vqvae.checkpoint.pt"):
            restore(session, checkpoint)
        done, curves, best = checkpoint["epochs_done"], checkpoint["curves"], checkpoint["best"]
        if done >= training.epochs and (made := finished_report(out, "vqvae", settings, best, metadata(config, corpus.fs_hz))):
            return made
    for epoch in track(range(done, training.epochs), "vqvae", "epochs", training.epochs, done):
        curves["train"].append(train_epoch(session, real, training, epoch, corpus.fs_hz))
        curves["fold 9"].append(validate(session.model, held_out, training, corpus.fs_hz))
        refuse_divergence("vqvae", epoch, curves["fold 9"][-1], training.learning_rate)
        if curves["fold 9"][-1] == min(curves["fold 9"]):
            best = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
        state = {"epochs_done": epoch + 1, "curves": curves, "best": best, "settings": settings}
        save_checkpoint(out / "vqvae.checkpoint.pt", {**snapshot(session), **state})
    with resuming(out / "vqvae.checkpoint.pt"):
        session.model.load_state_dict(best)
    save_weights(out / "vqvae.safetensors", best, metadata(config, corpus.fs_hz))
    save_curves(out / "vqvae_curves.png", "VQ-VAE", "energy score", curves)
    report = {"settings": settings, "curves": curves, **quality(session.model, held_out, training.seed)}
    save_report(out / "vqvae.json", report)
    return report


def refuse_short(corpus: Corpus, config: VqVaeConfig, crop: int) -> None:
    """UserError where records or crops, in samples, are shorter than what is needed of them."""
    samples, time = config.samples_per_token, corpus.texture_mv.shape[-1]
    if crop < samples or time < 2 * samples:
        raise UserError(
            f"train vqvae: a token has {samples} samples (samples_per_token), a crop {crop} (crop_s at {corpus.fs_hz:g} Hz) and a "
            f"record {time}; needed crops of a token at least, and records of two"
        )


def metadata(config: VqVaeConfig, fs_hz: float) -> dict[str, str]:
    samples = str(config.samples_per_token)
    return {"format": FORMAT["vqvae"], "fs_hz": f"{fs_hz:g}", "samples_per_token": samples, "config": config.to_json()}


def start(real: Told, config: VqVaeConfig, training: VqVaeTraining) -> Session:
    torch.manual_seed(training.seed)  # initial weights only
    model, x = VqVae(config).to(real.loudness.device), real.texture_mv
    model.scale_mv.copy_(x.abs().transpose(0, 1).flatten(1).median(dim=1).values.clamp(min=1e-3))
    correlation = torch.corrcoef(real.loudness.T.double()) + 1e-3 * torch.eye(config.leads, device=x.device)
    model.loudness_mix.copy_(torch.linalg.cholesky(correlation))
    model.loudness_spread.copy_(torch.from_numpy(np.log(noise_mv(x.cpu().numpy()) + 1e-4).std(axis=0)))
    with torch.no_grad():  # rows of the codebook start at encoder outputs, spread over the corpus
        z = model.encode(crop(x[:256], 0.0, x.shape[-1], config))  # (b, d, l)
    rows = z.transpose(1, 2).flatten(0, 1)  # (b * l, d)
    pick = np.random.default_rng(training.seed).choice(len(rows), config.codes, replace=len(rows) < config.codes)
    model.codebook.copy_(rows[torch.from_numpy(pick)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=1e-4)
    return Session(model, optimizer, torch.ones_like(model.codebook[:, 0]), model.codebook.clone())


def snapshot(session: Session) -> dict:
    return {
        "model": session.model.state_dict(), "optimizer": session.optimizer.state_dict(),
        "codes_count": session.codes_count, "codes_sum": session.codes_sum,
    }  # fmt: skip


def restore(session: Session, checkpoint: dict) -> None:
    session.model.load_state_dict(checkpoint["model"])
    session.optimizer.load_state_dict(checkpoint["optimizer"])
    session.codes_count.copy_(checkpoint["codes_count"])
    session.codes_sum.copy_(checkpoint["codes_sum"])


def train_epoch(session: Session, real: Told, training: VqVaeTraining, epoch: int, fs_hz: float) -> float:
    """One pass over the training records in random order; returns the mean energy score."""
    rng, config = np.random.default_rng([training.seed, epoch]), session.model.config
    batches = np.array_split(rng.permutation(len(real)), max(1, len(real) // training.batch))
    losses = []
    for index, rows in enumerate(batches):
        set_learning_rate(session.optimizer, training.learning_rate, (epoch + index / len(batches)) / training.epochs)
        part = real[torch.from_numpy(rows)]
        x = crop(part.texture_mv, rng.random(), round(training.crop_s * fs_hz), config)  # (b, lead, time)
        losses.append(train_step(session, Told(x, part.loudness), training, rng, fs_hz))
        refuse_divergence("vqvae", epoch, losses[-1], training.learning_rate)
    return float(np.mean(losses))


def crop(x: torch.Tensor, where: float, length: int, config: VqVaeConfig) -> torch.Tensor:
    """A stretch of at most `length` samples in whole tokens, from the share `where` of the possible first samples on.

    Any sample can be the first: where a token begins in a recording is arbitrary.
    """
    samples = config.samples_per_token
    length = min(length, x.shape[-1]) // samples * samples
    first = int(where * (x.shape[-1] - length + 1))
    return x[..., first : first + length].contiguous()  # (b, lead, time)


def train_step(session: Session, real: Told, training: VqVaeTraining, rng: np.random.Generator, fs_hz: float) -> float:
    model, x = session.model, real.texture_mv
    z = model.encode(x)  # (b, d, l)
    tokens = model.quantise(z.detach())  # (b, l)
    row = model.embed(tokens)  # (b, d, l)
    straight_through = z + (row - z).detach()  # (b, d, l)
    a, b = (render(model, straight_through, real.loudness, rng) for _ in range(2))  # (b, lead, time)
    loss = energy_score(x, a, b, model.scale_mv, fs_hz, differences=bool(rng.integers(2)))
    session.optimizer.zero_grad()
    (loss + training.commitment * F.mse_loss(z, row)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    session.optimizer.step()
    move_codebook(session, z.detach().transpose(1, 2).flatten(0, 1), tokens.flatten(), rng)
    return loss.item()


def render(model: VqVae, latent: torch.Tensor, loudness: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """One draw of the texture of a latent (b, d, l) of known loudness (b, lead): (b, lead, time)."""
    b, _, length = latent.shape
    noise = rng.standard_normal((b, length, model.config.noise_channels), dtype=np.float32)
    noise = torch.from_numpy(noise).to(latent.device)  # (b, l, e)
    return model.render(latent, noise, loudness[:, None].expand(-1, length, -1))  # (b, lead, time)


@torch.no_grad()
def move_codebook(session: Session, z: torch.Tensor, tokens: torch.Tensor, rng: np.random.Generator) -> None:
    """Move each row towards the mean of the outputs z (b * l, d) assigned to it, and start dead rows again."""
    count, total, codes = session.codes_count, session.codes_sum, len(session.codes_count)
    assigned = F.one_hot(tokens, codes).to(z.dtype)  # (b * l, K); a product is deterministic on a GPU too
    count.lerp_(assigned.sum(0), 1 - EMA_DECAY)  # (K,)
    total.lerp_(assigned.T @ z, 1 - EMA_DECAY)  # (K, d)
    average = len(z) / codes
    dead = count < DEAD_SHARE * average  # (K,)
    pick = torch.from_numpy(rng.integers(len(z), size=int(dead.sum()))).to(z.device)
    count[dead], total[dead] = 0.1 * average, 0.1 * average * z[pick]
    session.model.codebook.copy_(total / count[:, None])


def energy_score(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale_mv: torch.Tensor, fs_hz: float, differences: bool = False
) -> torch.Tensor:
    """Energy score of two draws a, b against x, all (b, lead, time) in mV: a scalar, summed over representations.

    Of the leads, or of the differences between neighbouring leads: these fix how leads move together.
    """
    score, channels = 0.0, torch.cat([x, a, b]) / scale_mv[:, None]  # (3 b, lead, time)
    for stacked, weight in representations(channels.diff(dim=1) if differences else channels, fs_hz):
        x, a, b = stacked.chunk(3)  # (b * channel, ..., 1 or 2)
        score = score + 0.5 * (weight * (distance(x, a) + distance(x, b) - distance(a, b))).mean()
    return score


def representations(x: torch.Tensor, fs_hz: float):
    """Companded samples and short-time spectra of x (3 b, channel, time), each with the weight of its coefficients."""
    x = x.flatten(0, 1)  # (3 b * channel, time)
    yield torch.asinh(x)[..., None], 1.0
    for window_s in WINDOWS_S:
        n = round(window_s * fs_hz)
        if n > x.shape[-1]:
            continue
        window = torch.hann_window(n, device=x.device)
        spectrum = torch.stft(x, n, n // 2, window=window / window.norm(), center=False, return_complex=True)
        c = torch.view_as_real(spectrum)  # (3 b * channel, frequency, frame, 2)
        # |c| becomes sqrt|c|: else loud drift would outweigh quiet noise a thousand times
        weight = 1 / (torch.arange(c.shape[1], device=x.device)[:, None] + CORNER_BINS)  # (frequency, 1)
        yield c / (c.pow(2).sum(-1, keepdim=True) + POWER_FLOOR) ** 0.25, weight / weight.mean()


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((x - y).pow(2).sum(-1) + 1e-8).sqrt()  # last axis gone


@torch.no_grad()
def validate(model: VqVae, held_out: Told, training: VqVaeTraining, fs_hz: float) -> float:
    """Energy score on fold 9, the same noise every epoch."""
    rng, scores = np.random.default_rng(training.seed), []
    whole = crop(held_out.texture_mv, 0.0, held_out.texture_mv.shape[-1], model.config)  # (record, lead, time)
    for x, loudness in zip(whole.split(training.batch), held_out.loudness.split(training.batch), strict=True):
        latent = model.embed(model.quantise(model.encode(x)))  # (b, d, l)
        a, b = (render(model, latent, loudness, rng) for _ in range(2))  # (b, lead, time)
        scores.append(energy_score(x, a, b, model.scale_mv, fs_hz).item() * len(x))
    return sum(scores) / len(held_out)


@torch.no_grad()
def quality(model: VqVae, held_out: Told, seed: int, draws: int = 16) -> dict:
    """Reconstruction error by lead and codebook use on fold 9.

    The error is that of the mean of several draws, the best guess that the tokens allow, and that of one draw.
    """
    rng = np.random.default_rng(seed)
    x = crop(held_out.texture_mv, 0.0, held_out.texture_mv.shape[-1], model.config)  # (record, lead, time)
    tokens = model.quantise(model.encode(x))  # (record, l)
    latent = model.embed(tokens)  # (record, d, l)
    drawn = [render(model, latent, held_out.loudness, rng) for _ in range(draws)]
    share = torch.bincount(tokens.flatten(), minlength=model.config.codes) / tokens.numel()  # (K,)
    return {
        "perplexity": float(torch.exp(-torch.xlogy(share, share).sum())),
        "codes_used": int((share > 0).sum()),
        "mean_of_draws": reconstruction(x, torch.stack(drawn).mean(0)),
        "one_draw": reconstruction(x, drawn[0]),
    }


def reconstruction(x: torch.Tensor, y: torch.Tensor) -> dict:
    """By lead: RMSE in mV, and the squared error as a share of the lead's variance."""
    error = (x - y).pow(2).mean(dim=(0, 2))  # (lead,)
    percent = 100 * error / x.var(dim=(0, 2))  # (lead,)
    rows = zip(MODELLED, error.sqrt().tolist(), percent.tolist(), strict=True)
    return {lead: {"rmse_mv": round(rmse, 4), "error_percent_of_variance": round(p, 1)} for lead, rmse, p in rows}
