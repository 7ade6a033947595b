"""Training set: one or several sources of records as one, with labels, weights and columns, as arrays in stored order."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from ecg_batch.errors import UserError
from ecg_batch.reading.epoch import Piece, Pool, make_pool
from ecg_batch.reading.labels import multi_hot
from ecg_batch.reading.records import Records


@dataclass(frozen=True)
class TrainingSet:
    """Rows are the chosen records of all sources, by source and record number. About 20 bytes a record, and no sample.

    labels uint8 (record, label); weights: how often a record comes in an epoch, None = once.
    """

    sources: tuple[Records, ...]
    record: np.ndarray
    source: np.ndarray
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    pool: Pool
    weights: np.ndarray | None

    @property
    def records(self) -> int:
        """Records of an epoch."""
        return len(self.record) if self.weights is None else round(self.weights.sum())

    def digest(self) -> str:
        """Tells training sets apart: by their records, labels and weights."""
        parts = (self.record, self.source, self.labels, np.zeros(0) if self.weights is None else self.weights)
        return sha256(b"".join(np.ascontiguousarray(part) for part in parts)).hexdigest()[:16]

    def content(self) -> str:
        """Tells apart what the same record numbers hold: samples made with another alpha, say."""
        return sha256("".join(f"{source.content()}\n" for source in self.sources).encode()).hexdigest()[:16]

    @property
    def shape(self) -> tuple[int, int]:
        return self.sources[0].chunks.shape[1:]

    def begin(self, pieces: Sequence[Piece]) -> None:
        """These pieces will be read next."""
        wanted: dict[object, dict[int, None]] = {source.origin: {} for source in self.sources}
        for piece in pieces:
            source = self.sources[int(self.source[piece.rows[0]])]
            wanted[source.origin][int(self.record[piece.rows[0]]) // source.chunks.chunk_records] = None
        for origin, source in {source.origin: source for source in self.sources}.items():
            source.begin(wanted[origin])

    def read(self, pieces: Sequence[Piece], out: np.ndarray, pool: Executor | None = None) -> np.ndarray:
        """The pieces' ECGs one after another in out, int16 (record, lead, time), each chunk decoded once. Returns the part used.

        pool: threads to decode with; decoding leaves Python's lock alone.
        """
        ends = np.cumsum([len(piece.rows) for piece in pieces])
        parts = [out[end - len(piece.rows) : end] for end, piece in zip(ends, pieces, strict=True)]
        list((pool.map if pool else map)(self._read_piece, pieces, parts))
        return out[: ends[-1]]

    def _read_piece(self, piece: Piece, out: np.ndarray) -> None:
        chunks, record = self.sources[int(self.source[piece.rows[0]])].chunks, self.record[piece.rows]
        chunk = int(record[0]) // chunks.chunk_records
        at = record % chunks.chunk_records
        if np.array_equal(at, np.arange(chunks.chunk_records)):
            chunks.read(chunk, out)
        else:
            out[:] = chunks.read(chunk)[at]


def make_training_set(sources: Sequence[Records], labels: Sequence[str], columns: Sequence[str], shares: Sequence[float] | None,
                      balance: str | None, records: int | None) -> TrainingSet:  # fmt: skip
    """shares: of each source in an epoch. balance: a column each value of which shall come equally often. records: in an epoch."""
    _refuse_unlike(sources)
    sources = tuple(source.select(np.argsort(source.indices, kind="stable")) for source in sources)
    record = np.concatenate([source.indices for source in sources])
    source_of = np.repeat(np.arange(len(sources), dtype=np.uint8), [len(source) for source in sources])
    hot = np.concatenate([multi_hot(source, labels) for source in sources])
    chunk_of = (
        np.concatenate([source.indices // source.chunks.chunk_records for source in sources]) + source_of.astype(np.int64) * 2**40
    )
    known = [metadata(source, columns) for source in sources]
    weights = _weights(sources, source_of, shares, balance, records)
    joined = {name: np.concatenate([part[name] for part in known]) for name in columns}
    strata = np.unique(hot, axis=0, return_inverse=True)[1].reshape(-1) * len(sources) + source_of
    return TrainingSet(sources, record, source_of, hot, joined, make_pool(chunk_of, strata), weights)


def _refuse_unlike(sources: Sequence[Records]) -> None:
    if not sources or not all(len(source) for source in sources):
        raise UserError(f"no records to train on in {', '.join(map(str, sources)) or 'no dataset'}. Choose others with where()")
    shapes = {(source.fs_hz, source.chunks.shape[1:]) for source in sources}
    if len(shapes) > 1:
        named = "; ".join(f"{source} of {source.chunks.shape[2]} samples" for source in sources)
        raise UserError(f"records of one training set must be of one rate and length, found {named}. Make the dataset at the rate "
                        "of the other (fs_hz in the request)")  # fmt: skip


def metadata(source: Records, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of records.parquet as arrays: numbers (null is NaN) or objects."""
    table = source.columns(list(columns))
    return {name: table[name].to_numpy() for name in columns}


def _weights(sources, source_of, shares, balance, records) -> np.ndarray | None:
    if shares is None and balance is None and records is None:
        return None
    weights = np.ones(len(source_of))
    if balance is not None:
        _refuse_two_meanings(sources, balance)
        values = np.concatenate([source.columns([balance])[balance].to_numpy() for source in sources])
        _, kind, count = np.unique(values.astype(str), return_inverse=True, return_counts=True)
        weights = 1 / count[kind]
    if shares is not None:
        if len(shares) != len(sources) or min(shares) < 0 or not sum(shares) > 0:
            raise UserError(f"shares is {tuple(shares)}; needed a number from 0 for each of the {len(sources)} datasets")
        weights *= (np.asarray(shares) / np.bincount(source_of, weights))[source_of]
    return weights * ((records or len(source_of)) / weights.sum())


def _refuse_two_meanings(sources: Sequence[Records], balance: str) -> None:
    """A column whose values mean another thing in each source is none to balance by."""
    meanings = list(dict.fromkeys(source.label_means for source in sources))
    if balance == "label" and len(meanings) > 1:
        raise UserError(f"balance='label': label is {' in some of the sources and '.join(meanings)} in others, so equal words "
                        "are not equal things. Balance by another column, or give shares alone")  # fmt: skip
