"""Variation: what one patient's heart and one nurse's electrodes do from one recording to the next, applied to a skeleton.

Each part is an option of the request (`variation: {axis_deg: 10, ...}`), zero by default, and has its own row in the evaluation:

    rr_cv       coefficient of variation added to the RR intervals: breathing (0.25 Hz), Mayer waves (0.1 Hz), and the rest white,
                a third of the power each (Task Force of the ESC 1996, doi:10.1161/01.CIR.93.5.1043)
    axis_deg    the heart turns in the chest with posture and breath: the vectorcardiogram is rotated by a normal angle with this
                standard deviation about a random axis (Edenbrandt and Pahlm 1988, doi:10.1016/0022-0736(88)90113-6)
    electrode   chest electrodes sit up to this share of the way to a neighbour's place
    gain_sd     log standard deviation of the voltage: day to day, QRS voltage varies by some 10 % (Schijvenaars et al. 2008,
                J Electrocardiol 41:190)
    blend       share of up to two further donors with the same superclasses in the beats, at most; each beat is brought to the
                first donor's timing by its own landmarks before it is averaged

All are linear in the beats, so what is bounded stays bounded (docs/guarantees.md), and the lead identities hold: only the eight
modelled leads are touched. The QRS keeps its duration, labels stay those of the donor.
"""

import numpy as np

from ecg_batch.draws import Stream, generator
from ecg_batch.leads import MODELLED
from ecg_batch.request import Variation

MOST_SD = 2.0  # normal draws are cut here: axis_deg 10 turns by 20 degrees at most
BEATS = 64  # RR factors drawn for a record; used in order from its first beat, going round

# Vectorcardiogram (X to the left, Y down, Z to the back) from V1..V6, I, II: inverse Dower (Edenbrandt and Pahlm 1988), and back:
# Dower et al. 1980 (Clin Cardiol 3:87).
INVERSE_DOWER = np.array([
    [-0.172, -0.074, 0.122, 0.231, 0.239, 0.194, 0.156, -0.010],
    [0.057, -0.019, -0.106, -0.022, 0.041, 0.048, -0.227, 0.887],
    [-0.229, -0.310, -0.246, -0.063, 0.055, 0.108, 0.022, 0.102],
])  # fmt: skip
DOWER = np.array([
    [-0.515, 0.157, -0.917], [0.044, 0.164, -1.387], [0.882, 0.098, -1.277], [1.213, 0.127, -0.601], [1.125, 0.127, -0.086],
    [0.831, 0.076, 0.230], [0.632, -0.235, 0.059], [0.235, 1.066, -0.132],
])  # fmt: skip
DOWER_LEADS = tuple(MODELLED.index(lead) for lead in ("V1", "V2", "V3", "V4", "V5", "V6", "I", "II"))
CHEST = tuple(MODELLED.index(f"V{number}") for number in range(1, 7))


def rr_factors(variation: Variation, seed: int, record: int, rr_s: float) -> np.ndarray:
    """Factors of successive RR intervals about 1: (BEATS,). They begin alike whatever the length of the record."""
    rng = generator(seed, record, Stream.RR_VARIATION)
    phase, white = rng.random(2), _cut(rng.standard_normal(BEATS))
    time_s = np.arange(BEATS) * rr_s
    waves = [np.sin(2 * np.pi * (f * time_s + p)) * np.sqrt(2) for f, p in zip((0.25, 0.1), phase, strict=True)]
    return 1 + variation.rr_cv * (waves[0] + waves[1] + white) / np.sqrt(3)


def lead_matrix(variation: Variation, seed: int, record: int) -> np.ndarray:
    """What a record's beats are multiplied by, (8, 8): voltage x electrodes x rotation. The identity where nothing is asked."""
    rng = generator(seed, record, Stream.VARIATION)
    gain, angle = _cut(rng.standard_normal(2)) * (variation.gain_sd, np.deg2rad(variation.axis_deg))
    axis, places = rng.standard_normal(3), rng.uniform(-1, 1, len(CHEST)) * variation.electrode
    turned = np.eye(len(MODELLED)) + rotation_of_leads(axis / np.linalg.norm(axis), angle)
    return np.exp(gain) * electrode_places(places) @ turned


def rotation_of_leads(axis: np.ndarray, angle: float) -> np.ndarray:
    """(8, 8) to be added to the identity: Dower (R - 1) inverse Dower. What is no dipole, the rest of each lead, stays as it is."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # R - 1, Rodrigues
    out = np.zeros((len(MODELLED), len(MODELLED)))
    out[np.ix_(DOWER_LEADS, DOWER_LEADS)] = DOWER @ turn @ INVERSE_DOWER
    return out


def electrode_places(places: np.ndarray) -> np.ndarray:
    """(8, 8): chest lead i moved by places[i] towards its next (> 0) or previous (< 0) neighbour; the outer ones go on inwards."""
    out = np.eye(len(MODELLED))
    for at, (lead, place) in enumerate(zip(CHEST, places, strict=True)):
        step = 1 if place > 0 else -1
        other = at + step if 0 <= at + step < len(CHEST) else at - step
        out[lead, lead] -= abs(place)
        out[lead, CHEST[other]] += abs(place)
    return out


def blend_weights(variation: Variation, seed: int, record: int, donors: int) -> np.ndarray:
    """Weights of a record's donors, (donors,), summing to 1; the first has at least 1 - blend, nearer ones more in the mean."""
    draws = generator(seed, record, Stream.BLEND).random(donors)
    shares = draws[1:] / np.arange(2, donors + 1)
    others = variation.blend * draws[0] * shares / max(shares.sum(), 1e-9)
    return np.concatenate([[1 - others.sum()], others])


def _cut(normal: np.ndarray) -> np.ndarray:
    return np.clip(normal, -MOST_SD, MOST_SD)
