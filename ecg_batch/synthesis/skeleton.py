"""The skeleton of one record: its donor's beats re-timed, and varied where the request asks for it."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.request.model import Variation
from ecg_batch.synthesis import variation
from ecg_batch.synthesis.blend import blended
from ecg_batch.synthesis.retime import Timing, read_loop, time_beats
from ecg_batch.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class Skeleton:
    """ecg_uv: (8 leads, time) in microvolts; donor_rows: of the bank, the first one's labels, age and sex hold."""

    ecg_uv: np.ndarray
    timing: Timing
    donor_rows: tuple[int, ...]


def make_skeleton(
    synthesizer: Synthesizer, key: int, ranked: np.ndarray, rr_samples: float, draws: np.ndarray,
    asked: Variation | None, turned_deg: float | None,
) -> Skeleton:  # fmt: skip
    """key: of its draws; ranked (k,): rows of its donors as retrieved; draws (2,) in [0, 1): which beat comes first, and when;
    asked, turned_deg: see queries.own_variations.
    """
    request, row = synthesizer.request, int(ranked[0])
    loop = synthesizer.loop(row)
    if asked is None:
        timing = time_beats(loop, rr_samples, request.samples, request.fs_hz, draws)
        return Skeleton(read_loop(loop, timing.donor_time), timing, (row,))
    factors = variation.rr_factors(asked, request.seed, key, rr_samples / request.fs_hz) if asked.rr_cv else None
    timing = time_beats(loop, rr_samples, request.samples, request.fs_hz, draws, factors)
    if asked.blend:
        ecg_uv, rows = blended(synthesizer, key, ranked, timing, draws)
    else:
        ecg_uv, rows = read_loop(loop, timing.donor_time), (row,)
    return Skeleton(variation.lead_matrix(asked, request.seed, key, turned_deg) @ ecg_uv, timing, rows)
