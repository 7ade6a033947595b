"""Blend: up to three donors in the beats of one record, as the published system has it (k = 3). Off unless asked for.

It buys nothing that was measured (docs/evidence/evaluation.md); it stays reachable because it belongs to the published system.
Each beat of a further donor is brought to the first one's timing by its own landmarks before it is averaged.
"""

import numpy as np

from ecg_batch.draws import Stream, generator
from ecg_batch.request.model import Variation
from ecg_batch.synthesis.retime import Timing, follow, read_loop
from ecg_batch.synthesis.synthesizer import Synthesizer

MOST_DONORS = 3  # the first included


def blended(synthesizer: Synthesizer, key: int, ranked: np.ndarray, timing: Timing, draws: np.ndarray):
    """(ecg_uv (8 leads, time), rows of its donors): the first donor as timed, the others in its rhythm."""
    request = synthesizer.request
    rows = alike(synthesizer.bank.table.superclasses, ranked)
    loops = [synthesizer.loops[row] for row in rows]
    times = [timing.donor_time, *(follow(other, timing.placed, request.samples, draws[0]) for other in loops[1:])]
    weights = blend_weights(request.variation, request.seed, key, len(rows))
    return sum(weight * read_loop(*beats) for weight, *beats in zip(weights, loops, times, strict=True)), rows


def alike(superclasses: np.ndarray, ranked: np.ndarray) -> tuple[int, ...]:
    """The first donor and up to two later ones with exactly its superclasses: a blend must not dilute a diagnosis."""
    same = [int(row) for row in ranked if (superclasses[row] == superclasses[ranked[0]]).all()]
    return tuple(dict.fromkeys(same))[:MOST_DONORS]


def blend_weights(variation: Variation, seed: int, key: int, donors: int) -> np.ndarray:
    """Weights of a record's donors, (donors,), summing to 1; the first has at least 1 - blend, nearer ones more in the mean."""
    draws = generator(seed, key, Stream.BLEND).random(donors)
    shares = draws[1:] / np.arange(2, donors + 1)
    others = variation.blend * draws[0] * shares / max(shares.sum(), 1e-9)
    return np.concatenate([[1 - others.sum()], others])
