"""The skeleton of one record: its donor's beats re-timed, and varied where the request asks for it."""

from dataclasses import dataclass

import numpy as np

from ecg_batch import variation
from ecg_batch.retime import Timing, follow, read_loop, time_beats

BLENDED = 3  # donors in a blend, the first included


@dataclass(frozen=True)
class Skeleton:
    """steps: (8 leads, time) in microvolts; donors: rows of the bank, the first one's labels, age and sex hold."""

    steps: np.ndarray
    timing: Timing
    donors: tuple[int, ...]


def make_skeleton(request, assets, record: int, ranked: np.ndarray, rr_samples: float, samples: int, uniforms) -> Skeleton:
    """ranked: the record's donors in the order of retrieval, (k,); uniforms (2,): which beat comes first, and when."""
    asked, first = request.variation, int(ranked[0])
    loop = assets.loop(first)
    if asked is None:
        timing = time_beats(loop, rr_samples, samples, request.fs_hz, uniforms)
        return Skeleton(read_loop(loop, timing.donor_time), timing, (first,))
    factors = variation.rr_factors(asked, request.seed, record, rr_samples / request.fs_hz) if asked.rr_cv else None
    timing = time_beats(loop, rr_samples, samples, request.fs_hz, uniforms, factors)
    donors = alike(assets.bank.table.superclasses(), ranked) if asked.blend else (first,)
    weights = variation.blend_weights(asked, request.seed, record, len(donors))
    loops = [assets.loop(donor) for donor in donors]
    times = [timing.donor_time, *(follow(other, timing.placed, samples, uniforms[0]) for other in loops[1:])]
    steps = sum(weight * read_loop(*beats) for weight, *beats in zip(weights, loops, times, strict=True))
    return Skeleton(variation.lead_matrix(asked, request.seed, record) @ steps, timing, donors)


def alike(superclasses: np.ndarray, ranked: np.ndarray) -> tuple[int, ...]:
    """The first donor and up to two later ones with exactly its superclasses: a blend must not dilute a diagnosis."""
    same = [int(donor) for donor in ranked if (superclasses[donor] == superclasses[ranked[0]]).all()]
    return tuple(dict.fromkeys(same))[:BLENDED]
