"""Compose: skeleton + alpha * texture, bounded, as twelve leads of stored integers.

The one composer, for arrays of numpy and tensors of torch.

finish takes the records of 10 s from their beats and their texture to what is stored; compiled, in one pass (record.cpp).

Both parts come low-passed (the filter is linear, so it is the same as filtering their sum). Then the difference between a
record and its skeleton is alpha * texture exactly, its PRD is known before anything is written, and a record over the
limit gets less texture.
"""

import ctypes
from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.kernels import finish as finish_kernel
from ecg_batch.kernels import record as record_kernel
from ecg_batch.leads import MODELLED, MV_PER_UV, library_of, to_uv, twelve_leads
from ecg_batch.signal.filters import ORDER, low_pass
from ecg_batch.synthesis.skeleton import Skeletons
from ecg_batch.synthesis.synthesizer import Synthesizer
from ecg_batch.synthesis.units import Texture, crossfade, plain_textures

# Sum over the 12 leads of the squared largest rounding error, in steps: 8 leads 1/2, III and aVR 1, aVL and aVF 5/4.
ROUNDING_UV2 = 8 * 0.5**2 + 2 * 1.0**2 + 2 * 1.25**2
LEAST_MV = 1e-9  # instead of a division by nothing
UNLIMITED_PCT = 1e9


@dataclass(frozen=True)
class Composed:
    """Finished records. ecg_uv: int32 (record, 12, time); prd_pct, alpha: what was reached and what was used, (record,)."""

    ecg_uv: np.ndarray
    prd_pct: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Stored:
    """Finished records as they are stored. ecg: int16 (record, 12, time), cut to what 16 bits hold; extremes: int32 (record, 12,
    2), the least and the greatest step of each lead before that; prd_pct, alpha: (record,).
    """

    ecg: np.ndarray
    extremes: np.ndarray
    prd_pct: np.ndarray
    alpha: np.ndarray


def stored(composed: Composed) -> Stored:
    """Arrays of numpy as they are stored."""
    extremes = np.stack([composed.ecg_uv.min(axis=-1), composed.ecg_uv.max(axis=-1)], axis=-1)
    return Stored(np.clip(composed.ecg_uv, -32768, 32767).astype(np.int16), extremes, composed.prd_pct, composed.alpha)


def compose(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None) -> Composed:
    """Adds low-passed parts, float64 (record, 8 leads, time) mV. PRD = 100 |record - skeleton| / |skeleton| over 12 leads.

    Without a limit every record gets alpha. Arrays of numpy go through the compiled kernel where there is one; tensors stay on
    their device.
    """
    if isinstance(skeleton_mv, np.ndarray) and finish_kernel.library():
        limit_pct, rounding_mv = prd_limit_pct or UNLIMITED_PCT, rounding_bound_mv(skeleton_mv.shape[-1])
        return Composed(*finish_kernel.compose(skeleton_mv, texture_mv, alpha, limit_pct, rounding_mv))
    return plain_compose(skeleton_mv, texture_mv, alpha, prd_limit_pct)


def plain_compose(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None) -> Composed:
    """compose in numpy or torch: the reference, and what runs where no kernel does."""
    xp = library_of(skeleton_mv)
    mixed, used = mix(skeleton_mv, texture_mv, alpha, prd_limit_pct)
    ecg_uv = twelve_leads(to_uv(mixed))
    error_mv = xp.asarray(ecg_uv, dtype=skeleton_mv.dtype) * MV_PER_UV - twelve_leads(skeleton_mv)  # rounding included
    error = xp.sqrt(xp.einsum("rlt,rlt->r", error_mv, error_mv))
    return Composed(ecg_uv, 100 * error / norm(skeleton_mv).clip(min=LEAST_MV), used)


def mix(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None):
    """(skeleton + used * texture, not yet rounded; used (record,)): at most alpha, and no more than keeps the limit."""
    used = alpha * _allowed_share(skeleton_mv, texture_mv, alpha, prd_limit_pct)
    return skeleton_mv + used[:, None, None] * texture_mv, used


def _allowed_share(skeleton_mv, texture_mv, alpha: float, prd_limit_pct: float | None):
    """Share of alpha that keeps each record (record, 8 leads, time) under the limit: (record,)."""
    limit_mv = (prd_limit_pct or UNLIMITED_PCT) / 100 * norm(skeleton_mv)
    allowed_mv = (limit_mv - rounding_bound_mv(skeleton_mv.shape[-1])).clip(min=0.0)
    return (allowed_mv / (alpha * norm(texture_mv)).clip(min=LEAST_MV)).clip(max=1.0)


def allowed_alpha(skeleton_mv: np.ndarray, texture_mv: np.ndarray, alpha: float, prd_limit_pct: float | None) -> float:
    """The alpha that keeps one stretch (8 leads, time) under the limit."""
    return alpha * float(_allowed_share(skeleton_mv[None], texture_mv[None], alpha, prd_limit_pct)[0])


def rounding_bound_mv(samples: int) -> float:
    """The most that rounding to microvolts can move a record of so many samples: it must not carry one over the limit."""
    return MV_PER_UV * float(np.sqrt(ROUNDING_UV2 * samples))


def norm(modelled):
    """Root of the sum of squares over all 12 leads, from the 8 modelled ones: (record, 8, time) -> (record,).

    The squares of I, II, III, aVR, aVL and aVF add up to 3.5 (I^2 + II^2 - I II), by their identities.
    """
    xp = library_of(modelled)
    squares = xp.einsum("rlt,rlt->rl", modelled, modelled)
    product = xp.einsum("rt,rt->r", modelled[:, 0], modelled[:, 1])
    return xp.sqrt(3.5 * (squares[:, 0] + squares[:, 1] - product) + squares[:, 2:].sum(1))


# Records of 10 s -------------------------------------------------------------------------------------------------------


def finish(synthesizer: Synthesizer, made: Skeletons, texture: Texture, own_alpha: np.ndarray | None):
    """(Stored, the low-passed skeletons float64 (record, 8, time) mV) of records, each with the request's share of texture, or with
    own_alpha (record,) where that is varied. The skeletons are None where nothing asks for them.
    """
    run = _compiled if record_kernel.library() else plain_finish
    return run(synthesizer, made, texture, own_alpha)


def plain_finish(synthesizer: Synthesizer, made: Skeletons, texture: Texture, own_alpha: np.ndarray | None):
    """finish stage by stage: the reference, and what runs where no kernel does."""
    request = synthesizer.request
    skeleton_mv = low_pass(made.ecg_uv(synthesizer) * MV_PER_UV, request.lowpass_hz, request.fs_hz)
    texture_mv, alpha = texture.mv, request.alpha
    if texture_mv is None:
        texture_uv = plain_textures(synthesizer.units, texture.cells, request.samples)
        texture_mv = low_pass(texture_uv * MV_PER_UV, request.lowpass_hz, request.fs_hz)
    if own_alpha is not None:
        texture_mv, alpha = own_alpha[:, None, None] * texture_mv, 1.0
    composed = stored(compose(skeleton_mv, texture_mv, alpha, request.prd_limit_pct))
    return _with_alpha(composed, own_alpha), skeleton_mv


def _compiled(synthesizer: Synthesizer, made: Skeletons, texture: Texture, own_alpha: np.ndarray | None):
    request, samples, count = synthesizer.request, synthesizer.request.samples, len(made.timings)
    given = {
        "alpha": request.alpha if own_alpha is None else 1.0, "share": own_alpha,
        "limit_pct": request.prd_limit_pct or UNLIMITED_PCT, "rounding_mv": rounding_bound_mv(samples), "texture_mv": texture.mv,
    }  # fmt: skip
    loops = units = skeleton_mv = None
    if made.blended_uv is None:
        loops, corners = synthesizer.loops.for_kernel(made.rows), [timing.corners for timing in made.timings]
        given |= {"donor": made.rows, "matrix": made.matrix, "corner_first": _first([len(out) for out, _ in corners])}
        given |= {"corner_out": np.concatenate([out for out, _ in corners]), "corner_in": np.concatenate([of for _, of in corners])}
    else:
        given["skeleton_uv"] = made.ecg_uv(synthesizer)
    if texture.mv is None:
        units, cells, (rising, falling) = synthesizer.units.for_kernel, texture.cells, crossfade(request.fs_hz)
        given |= {"cell_first": cells.first, "begins": cells.begins, "r": cells.r, "unit": cells.unit, "drift": cells.drift}
        given |= {"rising": rising, "falling": falling, "fade": len(rising), "slow": synthesizer.units.slow(cells.drift)}
    if request.lowpass_hz:
        given["low_pass"] = ctypes.pointer(finish_kernel.sections(ORDER, request.lowpass_hz, "lowpass", request.fs_hz)[0])
    if request.judge or request.noise:
        skeleton_mv = given["skeleton_mv"] = np.empty((count, len(MODELLED), samples))
    ecg, extremes, prd_pct, alpha = record_kernel.records(loops, units, samples, count, **given)
    return _with_alpha(Stored(ecg, extremes, prd_pct, alpha), own_alpha), skeleton_mv


def _first(lengths: list[int]) -> np.ndarray:
    """Where each of several arrays begins in all of them one after another, and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths)])


def _with_alpha(made: Stored, own_alpha: np.ndarray | None) -> Stored:
    return made if own_alpha is None else replace(made, alpha=own_alpha * made.alpha)
