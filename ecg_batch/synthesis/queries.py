"""Queries: what is asked of some records, as columns; and of sets of records that are alike in all but what the request varies.

Set s is the records s * n .. s * n + n - 1, one for each of the n combinations. What is asked, and every draw, goes by the number
of the set. So donor, beats, texture and noise stay what they are, whatever the value.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecg_batch.request.model import Request, Variation


@dataclass(frozen=True)
class Queries:
    """What is asked of some records; every array has the axis (record,). set_size: so many records, one after another, are alike in
    all but what the request varies; 1 where it varies nothing.
    """

    record: np.ndarray  # int64
    label: np.ndarray  # str
    hr_bpm: np.ndarray  # float32, NaN = not asked
    age: np.ndarray  # float32, years, NaN = not asked
    sex: np.ndarray  # int8, 0 male, 1 female, -1 = not asked
    set_size: int = 1

    @property
    def key(self) -> np.ndarray:
        """What the draws of each record are keyed by, int64 (record,): its own number, or that of its set."""
        return self.record // self.set_size

    def __len__(self) -> int:
        return len(self.record)

    def take(self, at: np.ndarray | slice) -> "Queries":
        """Those of some of the records."""
        return replace(self, **{name: getattr(self, name)[at] for name in COLUMNS})

    @staticmethod
    def concatenate(parts: Sequence["Queries"]) -> "Queries":
        return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS})


COLUMNS = ("record", "label", "hr_bpm", "age", "sex")
QueriesOf = Callable[[int, int], Queries]  # of records start .. stop - 1


# Sets -----------------------------------------------------------------------------------------------------------------


def varied(request: Request, name: str, records: np.ndarray) -> np.ndarray | None:
    """The value that each record gets of what is varied, float64 (record,); None where this is not."""
    if request.vary is None or not request.vary.of(name):
        return None
    return np.array(request.vary.combinations(name))[records % request.vary.size]


def own_variations(request: Request, records: np.ndarray) -> list[tuple[Variation | None, float | None]]:
    """Of each record its variation, and by how many degrees its heart is turned where that is varied."""
    electrode, turned_deg = (varied(request, name, records) for name in ("electrode", "axis_deg"))
    if electrode is None and turned_deg is None:
        return [(request.variation, None)] * len(records)
    asked = request.variation or Variation()
    each = [asked] * len(records) if electrode is None else [replace(asked, electrode=share) for share in electrode.tolist()]
    return list(zip(each, [None] * len(records) if turned_deg is None else turned_deg.tolist(), strict=True))


def in_sets(request: Request, of_sets: QueriesOf) -> QueriesOf:
    """The function (start, stop) -> Queries of records, where of_sets gives what is asked of sets."""
    size = request.vary.size

    def of_records(start: int, stop: int) -> Queries:
        first = start // size
        return members(request, of_sets(first, -(-stop // size))).take(slice(start - first * size, stop - first * size))

    return of_records


def members(request: Request, sets: Queries) -> Queries:
    """All records of these sets, of each what is asked of the set but the rate where that is varied. sets.record: their numbers."""
    size = request.vary.size
    each = sets.take(np.repeat(np.arange(len(sets)), size))
    records = size * each.record + np.tile(np.arange(size), len(sets))
    hr_bpm = varied(request, "hr_bpm", records)
    return replace(each, record=records, hr_bpm=each.hr_bpm if hr_bpm is None else hr_bpm.astype(np.float32), set_size=size)


def whole_sets(request: Request, queries: Queries) -> Queries:
    """These queries with the records before and after them that belong to their sets: one donor has to serve all of a set."""
    if queries.set_size == 1:
        return queries
    numbers, first = np.unique(queries.key, return_index=True)
    whole = members(request, replace(queries.take(first), record=numbers, set_size=1))
    return queries if len(whole) == len(queries) else whole
