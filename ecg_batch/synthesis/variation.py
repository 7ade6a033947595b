"""Variation: what one patient's heart and one nurse's electrodes do from one recording to the next, applied to a skeleton.

Each part is an option of the request (`variation: {axis_deg: 10, ...}`), zero by default, and has its own row in the evaluation:

    rr_cv       coefficient of variation added to the RR intervals: breathing (0.25 Hz), Mayer waves (0.1 Hz), and the rest white,
                a third of the power each (Task Force of the ESC 1996, doi:10.1161/01.CIR.93.5.1043)
    axis_deg    the heart turns in the chest with posture and breath: the vectorcardiogram is rotated by a normal angle with this
                standard deviation about a random axis (Edenbrandt and Pahlm 1988, doi:10.1016/0022-0736(88)90113-6)
    electrode   chest electrodes sit up to this share of the way to a neighbour's place
    gain_sd     log standard deviation of the voltage: day to day, QRS voltage varies by some 10 % (Schijvenaars et al. 2008,
                J Electrocardiol 41:190)
    blend       see blend.py

All are linear in the beats, so what is bounded stays bounded (docs/guarantees.md), and the lead identities hold: only the eight
modelled leads are touched. The QRS keeps its duration, labels stay those of the donor.
"""

import numpy as np

from ecg_batch.draws import Stream, generator
from ecg_batch.leads import MODELLED
from ecg_batch.request.model import Variation
from ecg_batch.signal.vcg import rotation_of_leads

MOST_SD = 2.0  # normal draws are cut here: axis_deg 10 turns by 20 degrees at most
BEATS = 64  # RR factors drawn for a record; used in order from its first beat, going round

CHEST = tuple(MODELLED.index(f"V{number}") for number in range(1, 7))


def rr_factors(variation: Variation, seed: int, key: int, rr_s: float) -> np.ndarray:
    """Factors of successive RR intervals about 1: (BEATS,). They begin alike whatever the length of the record."""
    rng = generator(seed, key, Stream.RR_VARIATION)
    phase, white = rng.random(2), _cut(rng.standard_normal(BEATS))
    time_s = np.arange(BEATS) * rr_s
    waves = [np.sin(2 * np.pi * (f * time_s + p)) * np.sqrt(2) for f, p in zip((0.25, 0.1), phase, strict=True)]
    return 1 + variation.rr_cv * (waves[0] + waves[1] + white) / np.sqrt(3)


def lead_matrix(variation: Variation, seed: int, key: int, turned_deg: float | None = None) -> np.ndarray:
    """What a record's beats are multiplied by, (8, 8): voltage x electrodes x rotation. The identity where nothing is asked.

    turned_deg: the angle of the rotation, where it is not drawn.
    """
    rng = generator(seed, key, Stream.VARIATION)
    gain, angle = _cut(rng.standard_normal(2)) * (variation.gain_sd, np.deg2rad(variation.axis_deg))
    angle = angle if turned_deg is None else np.deg2rad(turned_deg)
    axis, places = rng.standard_normal(3), rng.uniform(-1, 1, len(CHEST)) * variation.electrode
    turned = np.eye(len(MODELLED)) + rotation_of_leads(axis / np.linalg.norm(axis), angle)
    return np.exp(gain) * electrode_places(places) @ turned


def electrode_places(places: np.ndarray) -> np.ndarray:
    """(8, 8): chest lead i moved by places[i] towards its next (> 0) or previous (< 0) neighbour; the outer ones go on inwards."""
    out = np.eye(len(MODELLED))
    for at, (lead, place) in enumerate(zip(CHEST, places, strict=True)):
        step = 1 if place > 0 else -1
        other = at + step if 0 <= at + step < len(CHEST) else at - step
        out[lead, lead] -= abs(place)
        out[lead, CHEST[other]] += abs(place)
    return out


def _cut(normal: np.ndarray) -> np.ndarray:
    return np.clip(normal, -MOST_SD, MOST_SD)
