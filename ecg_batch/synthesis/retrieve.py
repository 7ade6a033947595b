"""Retrieve: which donor a query gets. Weighted k-NN over heart rate, age, sex and class, then one of the k by lot.

Published: query -> R^8 (3 numbers and 5 superclasses), standardised, weighted Euclidean distance. Here a donor must hold the
label that was asked for, and its rate statements must be true at the heart rate that was asked for; the distance then
chooses among those. The lot favours nearer donors, so that a million equal queries do not all return one patient. A query that asks
for neither rate nor age has no near and far: every holder of the label, of the sex where one is asked, is as likely as the next; of
a set of records that differ in rate every holder who can be brought to all of these rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ecg_batch.donors.bank import DonorTable, read_beats, read_table
from ecg_batch.donors.usable import enough_beats
from ecg_batch.errors import UserError
from ecg_batch.request.model import Request
from ecg_batch.statements import SUPERCLASSES, rates_that_agree
from ecg_batch.synthesis.queries import Queries

# Weights of the standardised dimensions: the rate is what re-timing must bridge, so it counts most.
WEIGHTS = {"hr_bpm": 1.0, "age": 0.7, "sex": 0.7, "superclass": 0.3}
MAX_STRETCH = 1.6  # a donor further from the rate is taken only when the label has no other
CONTRADICTION, FAR = 1e6, 1e3  # added to a squared distance: worse than any distance, in this order


@dataclass(frozen=True)
class DonorIndex:
    """The donors a run may use, standardised. table: what they count as holders of; rows: theirs in the bank; features (donor, 8);
    scale (8,).
    """

    table: DonorTable
    rows: np.ndarray
    features: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    slowest_bpm: np.ndarray
    fastest_bpm: np.ndarray


def index_donors(
    table: DonorTable, folds: tuple[int, ...], usable: np.ndarray | None = None, min_likelihood: int = 0
) -> DonorIndex:
    """Standardises the donors of the allowed folds; no other donor can ever be returned. usable: bool (donor,), only of these.

    min_likelihood: percent; below, a statement makes no holder, but what it says of the rate stays true.
    """
    held = table.at_least(min_likelihood)
    counts = (held.likelihood >= 0).any(axis=1) | (min_likelihood == 0)
    rows = np.flatnonzero(np.isin(table.fold, folds) & counts & (True if usable is None else usable))
    if not len(rows):
        raise UserError("no donor of the bank may be used. Allow more with donor_folds or min_likelihood, or take a larger bank")
    numbers = np.stack([table.hr_bpm, table.age, table.sex], axis=1)[rows].astype(np.float64)
    features = np.concatenate([numbers, held.superclasses[rows]], axis=1)
    spread = features.std(axis=0)
    slowest, fastest = np.array([rates_that_agree(table.scp_codes(row), table.hr_bpm[row]) for row in rows], np.float64).T
    return DonorIndex(held, rows, features, features.mean(axis=0), np.where(spread > 0, spread, 1.0), slowest, fastest)


def donors_for(request: Request, table: DonorTable | None = None) -> DonorIndex:
    """The donors that a request may use: of its folds, for long records those with enough beats. table: of its bank, where read."""
    table = read_table(Path(request.bank)) if table is None else table
    usable = enough_beats(*read_beats(Path(request.bank)), table.fs_hz) if request.is_long else None
    return index_donors(table, request.donor_folds, usable, request.min_likelihood)


def retrieve(index: DonorIndex, queries: Queries, uniforms: np.ndarray, rates_bpm: Sequence[float] = ()) -> np.ndarray:
    """Donors of each query in the order in which they are to be tried: rows of the bank, int64 (record, k).

    uniforms (record, k) in [0, 1): the lot. Draws k without replacement with weights 1 / rank (Efraimidis and Spirakis 2006,
    doi:10.1016/j.ipl.2005.11.003); where a label has fewer than k donors they come again from the first.
    rates_bpm: all that one donor has to serve, where records of a set differ in rate; a donor is as far as from the farthest.
    """
    out = np.empty(uniforms.shape, np.int64)
    for label in np.unique(queries.label):
        asked = np.flatnonzero(queries.label == label)
        holders = np.flatnonzero(index.table.holds(str(label))[index.rows])
        distance = _farthest(index, holders, queries, asked, str(label), rates_bpm)
        nearest = _nearest(distance, uniforms.shape[1])  # (record, up to k)
        lot = uniforms[asked, : nearest.shape[1]] ** (1 + np.arange(nearest.shape[1]))  # u ** (1 / weight)
        order = np.take_along_axis(nearest, np.argsort(-lot, axis=1, kind="stable"), axis=1)
        repeated = np.resize(np.arange(order.shape[1]), uniforms.shape[1])
        out[asked] = index.rows[holders[order[:, repeated]]]
        own_bpm = np.full(len(asked), np.nan) if rates_bpm else queries.hr_bpm[asked]
        for at in np.flatnonzero(np.isnan(own_bpm) & np.isnan(queries.age[asked])):
            fit = holders[distance[at] < FAR]  # all of them, where no rate is asked
            if len(fit):
                out[asked[at]] = _anyone(index.rows[fit], index.table.sex, queries.sex[asked[at]], uniforms[asked[at]])
    return out


def _nearest(distance: np.ndarray, count: int) -> np.ndarray:
    """The columns of the `count` smallest numbers of each row, ascending, of equals the first; all columns where there are fewer.

    What a stable sort puts first, but only what is not above the last of them is sorted.
    """
    count = min(count, distance.shape[1])
    last = np.partition(distance, count - 1, axis=1)[:, count - 1 : count]
    near = np.flatnonzero(distance <= last)  # more than `count` of a row where others are as far as the last
    row, column = np.divmod(near, distance.shape[1])
    order = np.lexsort((distance[row, column], row))  # stable
    return column[order[np.searchsorted(row, np.arange(len(distance)))[:, None] + np.arange(count)]]


def _anyone(holders: np.ndarray, sex_of: np.ndarray, sex: int, uniforms: np.ndarray) -> np.ndarray:
    """k of the holders by lot, of the asked sex where there is one; some may come twice."""
    alike = holders[sex_of[holders] == sex]
    chosen = alike if len(alike) else holders
    return chosen[(uniforms * len(chosen)).astype(np.int64)]


def _farthest(
    index: DonorIndex, holders: np.ndarray, queries: Queries, asked: np.ndarray, label: str, rates_bpm: Sequence[float]
) -> np.ndarray:
    """_squared_distance, of several rates the largest: that from the lowest or from the highest."""
    if not rates_bpm:
        return _squared_distance(index, holders, queries, asked, label)
    ends = (replace(queries, hr_bpm=np.full(len(queries), rate, np.float32)) for rate in (min(rates_bpm), max(rates_bpm)))
    return np.maximum(*(_squared_distance(index, holders, end, asked, label) for end in ends))


def _squared_distance(index: DonorIndex, holders: np.ndarray, queries: Queries, asked: np.ndarray, label: str) -> np.ndarray:
    """Squared weighted distance (record, donor); what a query does not ask for does not count."""
    hr_bpm, age = (column[asked].astype(np.float64)[:, None] for column in (queries.hr_bpm, queries.age))
    sexes, of_sex = np.unique(queries.sex[asked], return_inverse=True)
    parent = label if label in SUPERCLASSES else index.table.superclass_of.get(label)
    of_label = [float(name == parent) if parent else np.nan for name in SUPERCLASSES]
    wanted = [hr_bpm, age, np.where(sexes >= 0, sexes, np.nan)[:, None], *of_label]
    weights = [WEIGHTS["hr_bpm"], WEIGHTS["age"], WEIGHTS["sex"], *5 * [WEIGHTS["superclass"]]]
    features = index.features.T[:, holders]  # so that the donors of one lie side by side
    # (record, donor) each, c (sex, donor), those of superclasses (donor,). Added as numpy adds eight numbers: another order would
    # round otherwise
    a, b, c, d, e, f, g, h = map(_square, wanted, weights, features, index.scale)
    a += b
    a += (c + d)[of_sex]
    a += (e + f) + (g + h)
    stretch = hr_bpm / features[0]
    a += FAR * ((stretch > MAX_STRETCH) | (stretch < 1 / MAX_STRETCH))
    a += CONTRADICTION * ((hr_bpm < index.slowest_bpm[holders]) | (hr_bpm > index.fastest_bpm[holders]))
    return a


def _square(wanted: np.ndarray | float, weight: float, feature: np.ndarray, scale: float) -> np.ndarray:
    """Of the weighted distance in one dimension, 0 where it is not known."""
    apart = wanted - feature
    apart *= weight
    apart /= scale
    apart *= apart
    if np.isnan(wanted).any() or np.isnan(feature).any():
        apart[np.isnan(apart)] = 0.0
    return apart


def contradictions(index: DonorIndex, donors: np.ndarray, hr_bpm: np.ndarray) -> np.ndarray:
    """Whether a donor's rate statements (SBRAD, STACH ...) are false at this rate: bool (record,). donors: rows of the bank."""
    at = np.searchsorted(index.rows, donors)
    return (hr_bpm < index.slowest_bpm[at]) | (hr_bpm > index.fastest_bpm[at])
