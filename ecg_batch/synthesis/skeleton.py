"""The skeletons of records: their donors' beats re-timed, and varied where the request asks for it."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.request.model import Variation
from ecg_batch.synthesis import variation
from ecg_batch.synthesis.blend import blended
from ecg_batch.synthesis.retime import Timing, read_loop, time_records
from ecg_batch.synthesis.synthesizer import Synthesizer


@dataclass(frozen=True)
class Skeletons:
    """Of records. donor_rows: of the bank, the labels, age and sex of the first hold; matrix: what beats are multiplied by, float64
    (record, 8, 8), or None; blended_uv: float64 (record, 8 leads, time) where beats are a mean of several donors', else None.
    """

    timings: list[Timing]
    donor_rows: list[tuple[int, ...]]
    matrix: np.ndarray | None
    blended_uv: np.ndarray | None

    @property
    def rows(self) -> np.ndarray:
        """Of the first donor of each."""
        return np.array([rows[0] for rows in self.donor_rows])

    def ecg_uv(self, synthesizer: Synthesizer) -> np.ndarray:
        """float64 (record, 8 leads, time) in microvolts."""
        if self.blended_uv is None:
            each = zip(self.donor_rows, self.timings, strict=True)
            ecg_uv = np.stack([read_loop(synthesizer.loops[rows[0]], timing.donor_time) for rows, timing in each])
        else:
            ecg_uv = self.blended_uv
        return ecg_uv if self.matrix is None else self.matrix @ ecg_uv


def make_skeletons(
    synthesizer: Synthesizer, keys: np.ndarray, ranked: np.ndarray, rr_samples: np.ndarray, draws: np.ndarray,
    asked: list[tuple[Variation | None, float | None]],
) -> Skeletons:  # fmt: skip
    """keys (record,): of their draws; ranked (record, k): rows of their donors as retrieved; rr_samples (record,); draws
    (record, 2) in [0, 1): which beat comes first, and when; asked: see queries.own_variations.
    """
    request, rows, matrix, factors = synthesizer.request, ranked[:, 0], None, None
    varied, each = request.variation, list(zip(keys.tolist(), asked, strict=True))
    if asked[0][0] is not None:
        matrix = np.stack([variation.lead_matrix(own, request.seed, key, turned) for key, (own, turned) in each])
        if asked[0][0].rr_cv:
            each_rr = zip(each, rr_samples / request.fs_hz, strict=True)
            factors = np.stack([variation.rr_factors(own, request.seed, key, rr_s) for (key, (own, _)), rr_s in each_rr])
    timings = time_records(synthesizer.loops, rows, rr_samples, request.samples, request.fs_hz, draws, factors)
    if varied is None or not varied.blend:
        return Skeletons(timings, [(row,) for row in rows.tolist()], matrix, None)
    made = [blended(synthesizer, *of) for of in zip(keys.tolist(), ranked, timings, draws, strict=True)]
    return Skeletons(timings, [rows for _, rows in made], matrix, np.stack([ecg_uv for ecg_uv, _ in made]))
