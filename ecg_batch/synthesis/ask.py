"""Ask: what a mix or a cohort asks of each record. A pure function of (seed, record index, request), so any task can ask for any
record.
"""

import numpy as np

from ecg_batch.draws import Stream, generator, uniforms
from ecg_batch.request.model import HR_LIMITS_BPM, Distribution, Mix, Request
from ecg_batch.request.rhythm_parameters import rate_limits_bpm
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.retrieve import DonorIndex

# 2**64 / golden ratio. record * PHI mod 2**64 is the most even additive sequence there is: whatever the first n records
# are, the count of a label is its share of n to within a few records, and the integers are exact for any record index.
PHI = np.uint64(0x9E3779B97F4A7C15)
OFFSET_RECORD = 2**63 - 1  # no dataset reaches this record: its draw shifts the label sequence of the whole run by seed


def mix_queries(request: Request, start: int, stop: int) -> Queries:
    """Queries of records start .. stop - 1 of a mix."""
    records = np.arange(start, stop)
    label = _labels(request.mix.labels, request.seed, records)
    draws = uniforms(request.seed, records, Stream.QUERY, 3)  # (record, 3): heart rate, age, sex
    return Queries(records, label, _heart_rates(request.mix, label, draws[:, 0]), _ages(request.mix, draws[:, 1]),
                   _sexes(request.mix, draws[:, 2]))  # fmt: skip


def cohort_queries(request: Request, donors: DonorIndex, start: int, stop: int) -> Queries:
    """Queries of records start .. stop - 1 that ask for what a donor is. donors: those that the request may use."""
    from scipy.special import ndtri

    cohort, records = request.cohort, np.arange(start, stop)
    draws = uniforms(request.seed, records, Stream.QUERY, 2)  # (record, 2): the holder, its rate
    if cohort.labels is None:
        at = (_positions(request.seed, records) * len(donors.rows)).astype(np.int64)  # (record,), of donors.rows
        label = donors.table.rarest_labels()[donors.rows[at]]
    else:
        label = _labels(cohort.labels, request.seed, records)
        holders = {name: np.flatnonzero(donors.table.holds(name)[donors.rows]) for name, _ in cohort.labels}
        at = np.array([holders[name][int(u * len(holders[name]))] for name, u in zip(label, draws[:, 0], strict=True)])
    row = donors.rows[at]
    factor = np.exp(cohort.hr_spread * np.clip(ndtri(draws[:, 1]), -2, 2))
    low, high = rate_limits_bpm(request.rhythm) if request.is_long else HR_LIMITS_BPM
    slowest, fastest = np.maximum(donors.slowest_bpm[at], low), np.minimum(donors.fastest_bpm[at], high)
    hr_bpm = np.clip(donors.table.hr_bpm[row] * factor, slowest, fastest).astype(np.float32)
    return Queries(records, label, hr_bpm, donors.table.age[row].astype(np.float32), donors.table.sex[row].astype(np.int8))


def _positions(seed: int, records: np.ndarray) -> np.ndarray:
    """The most even sequence in [0, 1): (record,)."""
    offset = generator(seed, OFFSET_RECORD, Stream.QUERY).integers(2**64, dtype=np.uint64)
    return (records.astype(np.uint64) * PHI + offset) / 2.0**64  # wraps on purpose


def _labels(shares: tuple[tuple[str, float], ...], seed: int, records: np.ndarray) -> np.ndarray:
    upper = np.cumsum([share for _, share in shares])
    index = np.searchsorted(upper[:-1], _positions(seed, records), side="right")
    return np.array([label for label, _ in shares])[index]


def _heart_rates(mix: Mix, label: np.ndarray, draw: np.ndarray) -> np.ndarray:
    rates = np.full(len(label), np.nan, np.float32)
    if mix.hr_bpm is not None:
        for name in np.unique(label):
            rates[label == name] = quantile(mix.hr_bpm_of(str(name)), draw[label == name])
    return rates


def _ages(mix: Mix, draw: np.ndarray) -> np.ndarray:
    return np.full(len(draw), np.nan, np.float32) if mix.age is None else quantile(mix.age, draw).astype(np.float32)


def _sexes(mix: Mix, draw: np.ndarray) -> np.ndarray:
    return np.full(len(draw), -1, np.int8) if mix.female is None else (draw < mix.female).astype(np.int8)


def quantile(distribution: Distribution, draw: np.ndarray) -> np.ndarray:
    """Inverse CDF of the (truncated) distribution at draw in [0, 1)."""
    low, high = distribution.low, distribution.high
    if distribution.sd is None:
        return low + draw * (high - low)
    from scipy.special import ndtr, ndtri  # 0.1 s

    below, above = (ndtr((edge - distribution.mean) / distribution.sd) for edge in (low, high))
    return np.clip(distribution.mean + distribution.sd * ndtri(below + draw * (above - below)), low, high)
