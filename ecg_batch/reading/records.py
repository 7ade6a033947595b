"""Records: what every source of ECGs offers, be it a synthetic dataset (read.py) or a PTB-XL folder (real.py)."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from copy import copy

import numpy as np

from ecg_batch.errors import UserError, clipped
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.reading.choice import matches
from ecg_batch.reading.labels import multi_hot

AHEAD = 64  # chunks that are fetched at once: 55 MB at 100 Hz


class Records(ABC):
    """Records of a source, or those of them that `where` and `select` chose. len, ds[i] and ds[10:20] count within these.

    ds[key] -> float32 mV (record, lead, time), or (lead, time) for one index; ds.raw[key] -> the stored int16 steps.
    key: an index, a slice, an array of indices, or a mask. Safe to send to other processes, by fork or spawn.
    """

    leads = LEADS
    fs_hz: int
    total: int  # records before anything is chosen
    chosen: np.ndarray | None = None  # record numbers, None = all
    label_means: str  # what the column `label` holds

    @property
    @abstractmethod
    def chunks(self):
        """How to read fast: .chunk_records, .shape (record, lead, time), and .read(chunk, out=None) -> int16 of one chunk."""

    def begin(self, chunks: Iterable[int]) -> None:  # noqa: B027 - most sources have nothing to do
        """These chunks will be read next: a source far away begins to fetch them, and forgets others."""

    @property
    def origin(self) -> object:
        """Equal for selections of one source, each of which forgets with begin() what another began."""
        return id(self)

    @abstractmethod
    def content(self) -> str:
        """A digest of all samples of the source: equal where these are."""

    @abstractmethod
    def read_table(self, names: list[str] | None):
        """Columns of all records as a pyarrow Table; None for all columns."""

    @abstractmethod
    def column_names(self) -> list[str]: ...

    def annotations(self, records: np.ndarray) -> Iterator["pa.Table"]:  # noqa: F821
        """The rows of beats.parquet of these record numbers, which ascend, in several tables. UserError where there are none."""
        raise UserError(f"{self}: has no annotations of beats and waves, so there are no targets of these. Leave them out")

    @property
    def raw(self) -> "_Raw":
        return _Raw(self)

    @property
    def indices(self) -> np.ndarray:
        """The numbers of these records in the source, in the order in which they are counted here."""
        return np.arange(self.total) if self.chosen is None else self.chosen

    def columns(self, names: list[str] | None = None):
        """Some columns only, as a pyarrow Table. UserError where one is unknown."""
        known = self.column_names() if names else []
        for name in names or ():
            if name not in known:
                raise UserError(f"{self}: no column '{name}'; columns: {', '.join(known)}")
        table = self.read_table(names)
        return table if self.chosen is None else table.take(self.chosen)

    def where(self, **values) -> "Records":
        """The records whose columns have these values. A list, set or array: any of them. A pair (low, high) of numbers: from low
        to high, None is open; texts have no ranges.

        ds.where(label=["MI", "AFIB"], sex=1, flags="", prd_pct=(None, 8)). Null is never a match. UserError naming column and type
        where a value is none of them.
        """
        table, mask = self.columns(list(values)), np.ones(len(self), bool)
        for name, value in values.items():
            mask &= matches(name, table[name], value)
        return self.select(mask)

    def where_text(self, name: str, text: str) -> "Records":
        """where(name=text), the text read as what the column holds."""
        import pyarrow as pa

        column = self.columns([name])[name]
        try:
            return self.where(**{name: pa.scalar(text).cast(column.type)})
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{name}={text}: the column {name} holds {column.type}, and {text!r} is none") from None

    def holding(self, *labels: str) -> "Records":
        """The records that hold any of these: superclasses of PTB-XL, or SCP-ECG statements at any likelihood. The same for
        synthetic and real records, whatever was asked of them.
        """
        return self.select(multi_hot(self, labels).any(axis=1))

    def select(self, key) -> "Records":
        """These records only: a slice, a mask, or an array of indices."""
        key = self._key(key)
        if len(np.shape(key)) == 1 and np.asarray(key).dtype == bool and len(key) != len(self):
            raise UserError(f"{self}: a mask of {len(key)} values; needed one for each record")
        part = copy(self)
        part.__dict__.pop("_rows", None)
        part.chosen = np.asarray(self.indices[key])
        return part

    def _key(self, key):
        """What chooses records, as numpy takes it. UserError where it is of another type; what lies outside is an IndexError."""
        if isinstance(key, slice) and all(part is None or hasattr(part, "__index__") for part in (key.start, key.stop, key.step)):
            return key
        try:
            several = np.asarray(key)
        except ValueError:  # lists of different lengths
            several = np.empty((0, 0))
        if several.ndim < 2 and (several.dtype.kind in "iub" or not several.size) and key is not None:
            return several if several.size else several.astype(int)
        words = clipped(" ".join(str(key).split()), 60)
        raise UserError(f"{self}: no records are chosen by {words}; needed a number, a slice, a list of numbers, or a mask")

    def read(self, wanted: np.ndarray) -> np.ndarray:
        """int16 (record, lead, time) of these record numbers of the source, each chunk decoded once."""
        chunks = self.chunks
        ecg, number = np.empty((len(wanted), *chunks.shape[1:]), np.int16), wanted // chunks.chunk_records
        try:
            for group in _groups(np.unique(number)):
                self.begin(group)
                for chunk in group:
                    at = np.flatnonzero(number == chunk)
                    ecg[at] = chunks.read(int(chunk))[wanted[at] % chunks.chunk_records]
        finally:
            self.begin(())  # also where one failed: what else was begun shall not be kept
        return ecg

    def __len__(self) -> int:
        return self.total if self.chosen is None else len(self.chosen)

    def __getitem__(self, key) -> np.ndarray:
        return self.raw[key] * np.float32(MV_PER_UV)


def _groups(numbers: np.ndarray) -> list[np.ndarray]:
    return [numbers[first : first + AHEAD] for first in range(0, len(numbers), AHEAD)]


class _Raw:
    """int16 view of records, in steps of 1 microvolt."""

    def __init__(self, records: Records):
        self._records = records

    def __getitem__(self, key) -> np.ndarray:
        wanted = self._records.indices[self._records._key(key)]
        return self._records.read(wanted[None])[0] if np.ndim(wanted) == 0 else self._records.read(wanted)
