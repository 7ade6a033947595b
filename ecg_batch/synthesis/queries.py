"""Queries: what is asked of some records, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Queries:
    """What is asked of some records; every array has the axis (record,)."""

    record: np.ndarray  # int64
    label: np.ndarray  # str
    hr_bpm: np.ndarray  # float32, NaN = not asked
    age: np.ndarray  # float32, years, NaN = not asked
    sex: np.ndarray  # int8, 0 male, 1 female, -1 = not asked

    def __len__(self) -> int:
        return len(self.record)

    def take(self, at: np.ndarray | slice) -> "Queries":
        """Those of some of the records."""
        return Queries(*(getattr(self, name)[at] for name in COLUMNS))

    @staticmethod
    def concatenate(parts: Sequence["Queries"]) -> "Queries":
        return Queries(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


COLUMNS = tuple(field.name for field in fields(Queries))
