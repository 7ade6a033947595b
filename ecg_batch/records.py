"""Records: what every source of ECGs offers, be it a synthetic dataset (read.py) or a PTB-XL folder (real.py)."""

from abc import ABC, abstractmethod
from copy import copy

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS, MV_PER_STEP


class Records(ABC):
    """Records of a source, or those of them that `where` and `select` chose. len, ds[i] and ds[10:20] count within these.

    ds[key] -> float32 mV (record, lead, time), or (lead, time) for one index; ds.raw[key] -> the stored int16 steps.
    key: an index, a slice, an array of indices, or a mask. Safe to send to other processes, by fork or spawn.
    """

    leads = LEADS
    fs_hz: int
    total: int  # records before anything is chosen
    chosen: np.ndarray | None = None  # record numbers, None = all

    @property
    @abstractmethod
    def chunks(self):
        """How to read fast: .chunk_records, .shape (record, lead, time), and .read(chunk, out=None) -> int16 of one chunk."""

    @abstractmethod
    def read_table(self, names: list[str] | None):
        """Columns of all records as a pyarrow Table; None for all columns."""

    @abstractmethod
    def column_names(self) -> list[str]: ...

    @property
    def raw(self) -> "_Raw":
        return _Raw(self)

    @property
    def indices(self) -> np.ndarray:
        """The numbers of these records in the source, in the order in which they are counted here."""
        return np.arange(self.total) if self.chosen is None else self.chosen

    def columns(self, names: list[str] | None = None):
        """Some columns only, as a pyarrow Table. UserError where one is unknown."""
        for name in names or ():
            if name not in self.column_names():
                raise UserError(f"{self}: no column '{name}'; columns: {', '.join(self.column_names())}")
        table = self.read_table(names)
        return table if self.chosen is None else table.take(self.chosen)

    def where(self, **values) -> "Records":
        """The records whose columns have these values. A list: any of them. A pair (low, high): from low to high, None is open.

        ds.where(label=["MI", "AFIB"], sex=1, flags="", prd_pct=(None, 8)). Null is never a match.
        """
        table, mask = self.columns(list(values)), np.ones(len(self), bool)
        for name, value in values.items():
            mask &= _matches(table[name], value)
        return self.select(mask)

    def where_text(self, name: str, text: str) -> "Records":
        """where(name=text), the text read as what the column holds."""
        import pyarrow as pa

        column = self.columns([name])[name]
        try:
            return self.where(**{name: pa.scalar(text).cast(column.type)})
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{name}={text}: the column {name} holds {column.type}, and {text!r} is none") from None

    def select(self, key) -> "Records":
        """These records only: a slice, a mask, or an array of indices."""
        if len(np.shape(key)) == 1 and np.asarray(key).dtype == bool and len(key) != len(self):
            raise UserError(f"{self}: a mask of {len(key)} values; needed one for each record")
        part = copy(self)
        part.__dict__.pop("_rows", None)
        part.chosen = np.asarray(self.indices[key])
        return part

    def read(self, wanted: np.ndarray) -> np.ndarray:
        """int16 (record, lead, time) of these record numbers of the source, each chunk decoded once."""
        chunks = self.chunks
        ecg, number = np.empty((len(wanted), *chunks.shape[1:]), np.int16), wanted // chunks.chunk_records
        for chunk in np.unique(number):
            at = np.flatnonzero(number == chunk)
            ecg[at] = chunks.read(int(chunk))[wanted[at] % chunks.chunk_records]
        return ecg

    def __len__(self) -> int:
        return self.total if self.chosen is None else len(self.chosen)

    def __getitem__(self, key) -> np.ndarray:
        return self.raw[key] * np.float32(MV_PER_STEP)


class _Raw:
    """int16 view of records, in steps of 1 microvolt."""

    def __init__(self, records: Records):
        self._records = records

    def __getitem__(self, key) -> np.ndarray:
        wanted = self._records.indices[key]
        return self._records.read(wanted[None])[0] if np.ndim(wanted) == 0 else self._records.read(wanted)


def _matches(column, value) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(value, tuple):
        low, high = value
        found = pc.and_(pc.greater_equal(column, low if low is not None else -np.inf),
                        pc.less_equal(column, high if high is not None else np.inf))  # fmt: skip
    elif isinstance(value, list):
        found = pc.is_in(column, pa.array(value).cast(column.type))
    else:
        found = pc.equal(column, value)
    return pc.fill_null(found, False).to_numpy()
