"""Refine: gradient steps on the texture's latent for records in which the classifier does not see what was asked.

Off unless asked for. It is a stage of the published system and stays reachable; it buys nothing that was measured
(docs/evidence/evaluation.md).

The latent before the VQ-VAE's decoder is moved by normalised gradient steps up the classifier's log probability of the asked
superclass. Beats, noise and everything else stay. The record is composed again through `compose`, so the PRD limit of the request
holds as before, and checked again; a refined record that got flags, or did not gain, is dropped. Records go through in tiles of a
fixed size, so a record's result does not depend on its neighbours.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ecg_batch.leads import MV_PER_UV, twelve_leads
from ecg_batch.models.judge import Judge, band_pass, predict, to_judge_rate
from ecg_batch.signal.filters import low_pass
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.synthesis.batch import Batch, candidate_rows, decode_tokens, draw_tokens, with_texture
from ecg_batch.synthesis.check import check
from ecg_batch.synthesis.compose import compose, mix
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.synthesizer import Synthesizer

TILE = 16  # records optimised at a time, the last tile filled up
REACH = 0.5  # of the latent's own norm: how far all steps together can carry it
OF_BEATS = ("stretch", "rate_statement")  # flags that no texture changes


def make_refined_batch(synthesizer: Synthesizer, queries: Queries) -> Batch:
    """batch.make_batch, and then its doubtful records refined."""
    candidates = candidate_rows(synthesizer, queries)
    tokens, noise = draw_tokens(synthesizer, queries, candidates[:, 0])
    texture_mv = decode_tokens(synthesizer, tokens, noise)[: len(queries)]
    return refine(synthesizer, with_texture(synthesizer, queries, candidates, texture_mv), tokens, noise)


def refine(synthesizer: Synthesizer, batch: Batch, tokens: torch.Tensor, noise: torch.Tensor) -> Batch:
    """The batch with its doubtful records refined in place: a pure function of each record."""
    request = synthesizer.request
    target = targets(batch.queries.label, synthesizer.bank.table.superclass_of)
    before = confidence(synthesizer.judge, batch.ecg, request.fs_hz, target)
    doubtful = np.flatnonzero((before < request.judge.below) & (target >= 0))
    if not len(doubtful) or not request.judge.steps or not request.alpha:
        return batch
    skeleton_mv, rows = batch.skeleton_mv[doubtful], torch.from_numpy(doubtful)
    texture_mv = refine_latents(synthesizer, tokens[rows], noise[rows], skeleton_mv, target[doubtful])
    made = compose(skeleton_mv, low_pass(texture_mv, request.lowpass_hz, request.fs_hz), request.alpha, request.prd_limit_pct)
    ecg = np.clip(made.ecg_uv, -32768, 32767).astype(np.int16)
    gained = confidence(synthesizer.judge, ecg, request.fs_hz, target[doubtful]) > before[doubtful]
    for at, row in enumerate(doubtful):
        measured_bpm, flags = check(
            made.ecg_uv[at], batch.timings[row].r_sample, _asked_bpm(synthesizer, batch, row), request.fs_hz
        )
        flags += [flag for flag in batch.flags[row] if flag in OF_BEATS]
        if gained[at] and len(flags) <= len(batch.flags[row]):
            batch.ecg[row], batch.measured_bpm[row], batch.flags[row] = ecg[at], measured_bpm, flags
            batch.prd_pct[row], batch.alpha[row] = made.prd_pct[at], made.alpha[at]
    return batch


def _asked_bpm(synthesizer: Synthesizer, batch: Batch, row: int) -> float:
    asked = batch.queries.hr_bpm[row]
    return float(synthesizer.bank.table.hr_bpm[batch.donor_row[row]] if np.isnan(asked) else asked)


def targets(labels: np.ndarray, superclass_of: dict[str, str]) -> np.ndarray:
    """Index of each asked superclass, or of the asked statement's; -1 where a statement has none (rhythms): (record,)."""
    parents = [label if label in SUPERCLASSES else superclass_of.get(label) for label in labels]
    return np.array([SUPERCLASSES.index(parent) if parent in SUPERCLASSES else -1 for parent in parents])


def confidence(judge: Judge, ecg: np.ndarray, fs_hz: int, target: np.ndarray) -> np.ndarray:
    """The classifier's probability of each record's target: ecg int16 (record, 12, time) -> (record,); 1 where there is none."""
    x = band_pass(torch.from_numpy(to_judge_rate(ecg * np.float32(MV_PER_UV), fs_hz)))
    return np.where(target >= 0, predict(judge, x)[np.arange(len(ecg)), target], 1.0)


def refine_latents(synthesizer: Synthesizer, tokens, noise, skeleton_mv: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Texture float64 (record, 8, time) mV after request.judge.steps steps: tokens (record, l), skeleton (record, 8, time)."""
    request, vqvae, judge = synthesizer.request, synthesizer.models.vqvae, synthesizer.judge
    count, samples, parts = len(target), skeleton_mv.shape[-1], []
    for start in range(0, count, TILE):
        rows = np.minimum(np.arange(start, start + TILE), count - 1)  # the last record stands in for what is missing
        latent = vqvae.embed(tokens[rows]).clone()  # (tile, d, l)
        reach = REACH * latent.flatten(1).norm(dim=1)[:, None, None]
        skeleton, aim = torch.from_numpy(skeleton_mv[rows]).float(), torch.from_numpy(target[rows])
        with torch.enable_grad():
            for _ in range(request.judge.steps):
                latent = latent.detach().requires_grad_()
                ecg = composed(request, skeleton, vqvae.decode(latent, noise[rows])[..., :samples])
                probability = judge.probabilities(band_pass(_at_judge_rate(ecg, request.fs_hz)))[range(TILE), aim]
                (gradient,) = torch.autograd.grad(probability.clamp(min=1e-6).log().sum(), latent)
                size = gradient.flatten(1).norm(dim=1)[:, None, None].clamp(min=1e-12)
                latent = latent + reach / request.judge.steps * gradient / size
        with torch.no_grad():
            parts.append(vqvae.decode(latent.detach(), noise[rows])[: count - start, :, :samples])
    return torch.cat(parts).double().numpy()


def composed(request, skeleton_mv: torch.Tensor, texture_mv: torch.Tensor) -> torch.Tensor:
    """What compose makes before it rounds, to be differentiated: (b, 8, time) mV each -> (b, 12, time)."""
    texture_mv = LowPass.apply(texture_mv, request.lowpass_hz, request.fs_hz)
    return twelve_leads(mix(skeleton_mv, texture_mv, request.alpha, request.prd_limit_pct)[0])


class LowPass(torch.autograd.Function):
    """filters.low_pass with a gradient. Zero-phase, it is its own transpose but at the very ends of a record."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, edge_hz: float, fs_hz: float) -> torch.Tensor:
        ctx.filter = (edge_hz, fs_hz)
        return torch.from_numpy(low_pass(x.detach().numpy(), edge_hz, fs_hz)).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return torch.from_numpy(low_pass(gradient.numpy(), *ctx.filter)).to(gradient.dtype), None, None


def _at_judge_rate(ecg_mv: torch.Tensor, fs_hz: int) -> torch.Tensor:
    return ecg_mv if fs_hz == 100 else F.avg_pool1d(ecg_mv, fs_hz // 100)
