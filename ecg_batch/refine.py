"""Refine (stage 5): gradient steps on the texture's latent for records in which the judge does not see what was asked.

The latent before the VQ-VAE's decoder is moved by normalised gradient steps up the judge's log probability of the asked superclass.
Beats, noise and everything else stay. The record is composed again through `compose`, so the PRD limit of the request holds as
before, and checked again; a refined record that got flags, or did not gain, is dropped. Records go through in tiles of a fixed
size, so a record's result does not depend on its neighbours.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ecg_batch.compose import compose, low_pass
from ecg_batch.judge import Judge, band_pass, predict, to_judge_rate
from ecg_batch.leads import MV_PER_STEP
from ecg_batch.statements import SUPERCLASSES

TILE = 16  # records optimised at a time, the last tile filled up
REACH = 0.5  # of the latent's own norm: how far all steps together can carry it


def targets(labels: np.ndarray, superclass_of: dict[str, str]) -> np.ndarray:
    """Index of each asked superclass, or of the asked statement's; -1 where a statement has none (rhythms): (record,)."""
    parents = [label if label in SUPERCLASSES else superclass_of.get(label) for label in labels]
    return np.array([SUPERCLASSES.index(parent) if parent in SUPERCLASSES else -1 for parent in parents])


def confidence(judge: Judge, ecg: np.ndarray, fs_hz: int, target: np.ndarray) -> np.ndarray:
    """The judge's probability of each record's target: ecg int16 (record, 12, time) -> (record,); 1 where there is no target."""
    x = band_pass(torch.from_numpy(to_judge_rate(ecg * np.float32(MV_PER_STEP), fs_hz)))
    return np.where(target >= 0, predict(judge, x)[np.arange(len(ecg)), target], 1.0)


def refine_latents(request, models, judge: Judge, tokens, noise, skeleton_mv: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Texture float64 (record, 8, time) after request.judge.steps steps: tokens (record, l), skeleton (record, 8, time)."""
    count, samples, parts = len(target), skeleton_mv.shape[-1], []
    for start in range(0, count, TILE):
        rows = np.minimum(np.arange(start, start + TILE), count - 1)  # the last record stands in for what is missing
        latent = models.vqvae.embed(tokens[rows]).clone()  # (tile, d, l)
        reach = REACH * latent.flatten(1).norm(dim=1)[:, None, None]
        skeleton = torch.from_numpy(skeleton_mv[rows]).float()
        with torch.enable_grad():
            for _ in range(request.judge.steps):
                latent = latent.detach().requires_grad_()
                ecg = composed(request, skeleton, models.vqvae.decode(latent, noise[rows])[..., :samples])
                said = judge.probabilities(band_pass(at_judge_rate(ecg, request.fs_hz)))[
                    range(TILE), torch.from_numpy(target[rows])
                ]
                (gradient,) = torch.autograd.grad(said.clamp(min=1e-6).log().sum(), latent)
                size = gradient.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-12)
                latent = latent + reach / request.judge.steps * gradient / size
        with torch.no_grad():
            parts.append(models.vqvae.decode(latent.detach(), noise[rows])[: count - start, :, :samples])
    return torch.cat(parts).double().numpy()


def composed(request, skeleton: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
    """compose.compose as one differentiable function, without rounding: (b, 8, time) mV each -> (b, 12, time)."""
    texture = torch_low_pass(texture, request.lowpass_hz, request.fs_hz)
    limit = request.prd_limit_pct / 100 * twelve(skeleton).flatten(1).norm(dim=1)
    share = (limit / (request.alpha * twelve(texture).flatten(1).norm(dim=1)).clamp(min=1e-9)).clamp(max=1.0)
    return twelve(skeleton + request.alpha * share[:, None, None] * texture)


def twelve(x: torch.Tensor) -> torch.Tensor:
    i, ii = x[:, 0], x[:, 1]
    limb = torch.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], dim=1)
    return torch.cat([limb, x[:, 2:]], dim=1)


def torch_low_pass(x: torch.Tensor, edge_hz: float, fs_hz: float) -> torch.Tensor:
    """The squared gain of compose.low_pass, in the frequency domain."""
    f = torch.fft.rfftfreq(2 * x.shape[-1], 1 / fs_hz)
    warped = torch.tan(torch.pi * f.clamp(max=0.4999 * fs_hz) / fs_hz) / np.tan(np.pi * edge_hz / fs_hz)
    padded = torch.cat([x, x.flip(-1)], dim=-1)
    return torch.fft.irfft(torch.fft.rfft(padded) / (1 + warped**4), n=padded.shape[-1])[..., : x.shape[-1]]


def at_judge_rate(ecg_mv: torch.Tensor, fs_hz: int) -> torch.Tensor:
    return ecg_mv if fs_hz == 100 else F.avg_pool1d(ecg_mv, fs_hz // 100)


def refine(request, assets, batch, tokens: torch.Tensor, noise: torch.Tensor):
    """The batch with its doubtful records refined, and how many were: a pure function of each record."""
    from ecg_batch.check import check

    target = targets(batch.queries.label, assets.bank.table.superclass_of)
    before = confidence(assets.judge, batch.ecg, request.fs_hz, target)
    doubtful = np.flatnonzero((before < request.judge.below) & (target >= 0))
    if not len(doubtful) or not request.judge.steps or not request.alpha:
        return batch
    rows = torch.from_numpy(doubtful)
    texture = refine_latents(
        request, assets.models, assets.judge, tokens[rows], noise[rows], batch.skeleton_mv[doubtful], target[doubtful]
    )
    texture = low_pass(texture, request.lowpass_hz, request.fs_hz)
    made = compose(batch.skeleton_mv[doubtful], texture, request.alpha, request.prd_limit_pct)
    ecg = np.clip(made.steps, -32768, 32767).astype(np.int16)
    gained = confidence(assets.judge, ecg, request.fs_hz, target[doubtful]) > before[doubtful]
    for at, row in enumerate(doubtful):
        asked = batch.queries.hr_bpm[row]
        hr_bpm = float(assets.bank.table.hr_bpm[batch.donors[row]] if np.isnan(asked) else asked)
        measured, flags = check(made.steps[at], batch.timings[row].r_sample, hr_bpm, request.fs_hz)
        kept = [flag for flag in batch.flags[row] if flag in ("stretch", "rate_statement")]  # of the beats, not of the texture
        if gained[at] and len(flags) + len(kept) <= len(batch.flags[row]):
            batch.ecg[row], batch.measured_bpm[row], batch.flags[row] = ecg[at], measured, flags + kept
            batch.prd_pct[row], batch.alpha[row] = made.prd_pct[at], made.alpha[at]
    return batch
