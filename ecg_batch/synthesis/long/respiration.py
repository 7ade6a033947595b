"""Respiration and slow drift change a patient's amplitude and heart axis a little, all leads together; some beats do by themselves.

The heart lies on the diaphragm. With each breath its electrical axis swings by some degrees and its R wave by some percent (Moody
et al. 1985, Derivation of respiratory signals from multi-lead ECGs, Computers in Cardiology 12:113); posture does so for minutes
and hours. The turn is that of the vectorcardiogram of Dower's transform (Dower et al. 1980, Clin Cardiol 3:87): what the dipole
does not explain stays as it was.
"""

from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.kernels import stitch as stitch_kernel
from ecg_batch.signal.vcg import small_turn_of_leads
from ecg_batch.synthesis.long.rhythm import Rhythm

FRONTAL = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # turns X towards Y: the axis goes down
HORIZONTAL = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # turns X towards Z: away from the chest wall
# Half of what a breath does (5 %, 4 degrees): the beats and the texture, which are recorded, hold the other half out of step.
BREATH_GAIN, BREATH_RAD = 0.025, np.deg2rad(2.0)
DRIFT_GAIN, DRIFT_RAD = 0.05, np.deg2rad(6.0)
# No two ventricular beats are the same: gain and axis of each wander within it, between these times from R, and this far, in
# units of a breath and of drift. So that two are as alike as in MIT-BIH: docs/evidence/events.md
WANDER_S, WANDER_SD = (-0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (1.5, 1.0)
STEPS = 127  # to 1: depth and drift are known to 0.04 % of the amplitude


@dataclass(frozen=True)
class Respiration:
    """Respiration (beat,), its phase in radians and its depth, and drift (beat,), at times r (beat,) in samples. own_r (own,):
    beats that are moved by themselves too, and wander (own, 2, between the ends of WANDER_S) by how much, in steps of 4 / STEPS.

    float16, and in steps of 1 / STEPS uint8 and int8: see stitch.Placed.
    """

    r: np.ndarray
    phase: np.ndarray
    depth: np.ndarray
    drift: np.ndarray
    own_r: np.ndarray | None = None
    wander: np.ndarray | None = None


def respiration_of(rhythm: Rhythm, r: np.ndarray) -> Respiration:
    """The respiration of a rhythm whose beats lie at the samples r (beat,)."""
    depth, drift = np.rint(STEPS * np.clip(rhythm.amplitude, 0.0, 2.0)), np.rint(STEPS * rhythm.drift)
    return Respiration(r, rhythm.respiration.astype(np.float16), depth.astype(np.uint8), drift.astype(np.int8))


def with_wandering(respiration: Respiration, r: np.ndarray, draws: np.random.Generator) -> Respiration:
    """The same where the beats at the samples r (own,) wander by themselves."""
    wander = np.array(WANDER_SD)[:, None] * draws.standard_normal((len(r), 2, len(WANDER_S) - 2))
    return replace(respiration, own_r=r, wander=np.rint(STEPS / 4 * wander.clip(-4, 4)).astype(np.int8))


def wandering(respiration: Respiration, start: int, samples: int, fs_hz: int) -> np.ndarray:
    """By how much single beats are moved, at samples from `start` on: (2, time)."""
    out = np.zeros((2, samples))
    first, last = round(WANDER_S[0] * fs_hz), round(WANDER_S[-1] * fs_hz)
    near = slice(*np.searchsorted(respiration.own_r, (start - last, start + samples - first)))
    knots = np.pad(respiration.wander[near] * (4 / STEPS), ((0, 0), (0, 0), (1, 1)))  # (own, 2, knot)
    since = np.arange(first, last + 1)
    share = np.stack([np.interp(since / fs_hz, WANDER_S, knot) for knot in np.eye(len(WANDER_S))])  # (knot, time)
    at = (respiration.own_r[near] - start)[:, None] + since
    inside = (at >= 0) & (at < samples)
    for track, values in zip(out, (knots @ share).swapaxes(0, 1), strict=True):
        np.add.at(track, at[inside], values[inside])  # beats of a fast run reach into each other
    return out


def with_respiration(skeleton: np.ndarray, level: np.ndarray, respiration: Respiration, start: int, fs_hz: int) -> np.ndarray:
    """The skeleton (8 leads, time) from sample `start` on, gain and axis moved about its level (lead,), in the same unit."""
    near = slice(*(np.searchsorted(respiration.r, (start, start + skeleton.shape[1])) + (-2, 2)).clip(0))
    time = np.arange(start, start + skeleton.shape[1])
    phase = _going_on(respiration.phase[near].astype(np.float64))
    at_beats = (phase, respiration.depth[near] / STEPS, respiration.drift[near] / STEPS)
    phase, depth, drift = (np.interp(time, respiration.r[near], values) for values in at_beats)
    breath = depth * np.sin(phase)
    if respiration.own_r is not None:
        own = wandering(respiration, start, skeleton.shape[1], fs_hz)
        breath, drift = breath + own[0], drift + own[1]
    move = stitch_kernel.axis_moved if stitch_kernel.library() else _axis_moved
    return move(skeleton, level, breath, drift, BY_BREATH_AND_DRIFT)


def _going_on(phase: np.ndarray) -> np.ndarray:
    """Phases (beat,) in 0 .. 2 pi as one that only grows, up to a whole breath from beat to beat; np.unwrap allows half of one."""
    return phase[:1] + np.append(0.0, np.cumsum(np.mod(np.diff(phase), 2 * np.pi)))[: len(phase)]


def _axis_moved(x: np.ndarray, level: np.ndarray, breath: np.ndarray, drift: np.ndarray, by: np.ndarray) -> np.ndarray:
    """x (lead, time) and what breath and drift (time,) add: by (2, lead, lead) of x about its level (lead,), for one of each."""
    about = x - level[:, None]
    return x + breath * (by[0] @ about) + drift * (by[1] @ about)


BY_BREATH_AND_DRIFT = np.stack([  # (2, lead, lead)
    BREATH_GAIN * np.eye(8) + BREATH_RAD * small_turn_of_leads(FRONTAL),
    DRIFT_GAIN * np.eye(8) + DRIFT_RAD * small_turn_of_leads(HORIZONTAL),
])  # fmt: skip
