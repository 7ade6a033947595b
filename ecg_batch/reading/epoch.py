"""Epoch: the order in which a training run sees the records. Pure arithmetic on record numbers: no sample is touched here.

The stored chunks are put into random order; a window of several chunks is held in memory and shuffled within. Chunks are dealt out
by their commonest label, so that every window has the labels of the whole, even where the dataset is sorted by label.
All follows from (seed, epoch), so a position says all that a resumed run must know.
"""

from dataclasses import dataclass

import numpy as np

from ecg_batch.errors import UserError

UNITS_PER_WINDOW = 4
MOST_PARTS = 16


@dataclass(frozen=True)
class Pool:
    """The records to draw from, sorted by chunk. chunk_start[c] .. chunk_start[c + 1] are those of chunk c; stratum (chunk,)."""

    chunk_start: np.ndarray
    stratum: np.ndarray

    @property
    def records(self) -> int:
        return int(self.chunk_start[-1])


@dataclass(frozen=True)
class Piece:
    """Records of one chunk: rows of the pool."""

    chunk: int
    rows: np.ndarray


def make_pool(chunk_of: np.ndarray, stratum_of: np.ndarray) -> Pool:
    """Pool of records with these chunks, ascending, and strata. A chunk's stratum is its commonest one."""
    start = np.flatnonzero(np.diff(chunk_of, prepend=-1))
    codes = np.unique(stratum_of, return_inverse=True)[1]
    kinds = codes.max(initial=0) + 1
    number = np.repeat(np.arange(len(start)), np.diff(start, append=len(chunk_of)))
    pair, count = np.unique(number * kinds + codes, return_counts=True)
    commonest = np.zeros(len(start), np.int64)
    by_count = np.argsort(count, kind="stable")
    commonest[pair[by_count] // kinds] = pair[by_count] % kinds  # the last one written is the commonest
    return Pool(np.append(start, len(chunk_of)), commonest)


class Epoch:
    """The order of one epoch: units, of records of one chunk each, one after another.

    A unit is a chunk, but what is drawn of it for the second time is another unit, and where a label fills so few chunks that not
    every window of `window` records would get one, its chunks are cut into several units (and decoded as often).
    weights (record,): how often a record comes, on average; whole parts are kept in every epoch, the rest is drawn so that the
    epoch's length is always the same. None: each once.
    """

    def __init__(
        self, pool: Pool, seed: int, epoch: int, weights: np.ndarray | None = None, shuffle: bool = True, window: int = 4096
    ):
        self._seed, self._epoch, self._shuffle = seed, epoch, shuffle
        counts = np.ones(pool.records, np.int64) if weights is None else _draw_counts(weights, self._generator(0))
        chunk_of = np.repeat(np.arange(len(pool.stratum)), np.diff(pool.chunk_start))
        parts = _parts(pool.stratum, int(counts.sum()), window) if shuffle else np.ones_like(pool.stratum)
        part_of = np.floor(self._generator(3).random(pool.records) * parts[chunk_of]).astype(np.int64)
        rows = np.repeat(np.arange(pool.records), counts)
        times = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0 for the first time, 1 for the second
        unit = (chunk_of[rows] * (counts.max() + 1) + times) * parts.max() + part_of[rows]
        order = np.argsort(unit, kind="stable")
        self._rows = rows[order]
        self._first = np.flatnonzero(np.diff(unit[order], prepend=-1))  # of each unit
        self._sizes = np.diff(self._first, append=len(rows))
        self._chunk = chunk_of[self._rows[self._first]]
        if shuffle:
            order = interleave(pool.stratum[self._chunk], self._generator(1))
            self._first, self._sizes, self._chunk = self._first[order], self._sizes[order], self._chunk[order]
        self._start = np.append(0, np.cumsum(self._sizes))

    @property
    def records(self) -> int:
        return int(self._start[-1])

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What lies at positions start .. stop - 1, by chunk."""
        first, last = np.searchsorted(self._start, [start, stop - 1], side="right") - 1
        return [self._piece(unit, start, stop) for unit in range(first, last + 1)]

    def _piece(self, unit: int, start: int, stop: int) -> Piece:
        rows = self._rows[self._first[unit] : self._first[unit] + self._sizes[unit]]
        return Piece(int(self._chunk[unit]), rows[max(start - self._start[unit], 0) : stop - self._start[unit]])

    def shuffled(self, start: int, stop: int) -> np.ndarray:
        """The order within a window: a permutation of its stop - start records."""
        return self._generator(2, start).permutation(stop - start) if self._shuffle else np.arange(stop - start)

    def _generator(self, *use: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, self._epoch, *use])))


def _draw_counts(weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """How often each record comes: floor(weight) or one more, round(sum(weights)) in all. Systematic sampling in random order."""
    order = generator.permutation(len(weights))
    reached = np.floor(np.cumsum(weights[order]) * (round(weights.sum()) / weights.sum()) + 1e-9 + generator.random() * (1 - 1e-6))
    counts = np.empty(len(weights), np.int64)
    counts[order] = np.diff(reached, prepend=0)
    return counts


def _parts(stratum: np.ndarray, records: int, window: int) -> np.ndarray:
    """Into how many units a chunk is cut, so that each stratum has UNITS_PER_WINDOW for every window."""
    chunks = np.bincount(stratum)
    return np.clip(-(-UNITS_PER_WINDOW * (records // window) // chunks[stratum]), 1, MOST_PARTS)


def interleave(strata: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random order in which each stratum is spread evenly: its i-th of n stands somewhere in the i-th n-th of the whole."""
    order = generator.permutation(len(strata))
    place = np.empty(len(strata))
    for stratum in np.unique(strata):
        at = order[strata[order] == stratum]
        place[at] = (np.arange(len(at)) + generator.random(len(at))) / len(at)
    return np.argsort(place, kind="stable")


def batch_bounds(records: int, batch: int, rank: int, ranks: int, drop_last: bool) -> np.ndarray:
    """Where the batches of a rank begin and end. Every rank has the same number of them, so that none waits for another.

    Ranks have equally many records, within one. Without drop_last each record comes, and the last batch of a rank is short; where
    another rank has one batch more to fill, the last full one lends it a record.
    """
    start, stop = records * rank // ranks, records * (rank + 1) // ranks
    if drop_last:
        return start + batch * np.arange(records // ranks // batch + 1)
    longest = -(-records // ranks)
    batches = -(-longest // batch)
    if records // ranks < batches:
        raise UserError(f"{records} records for {ranks} ranks in batches of {batch}: a rank would have a batch less than another, "
                        "which then waits for ever. Say drop_last=True, or use larger batches")  # fmt: skip
    ends = np.arange(batches + 1)
    return start + np.minimum(ends * batch, stop - start - (batches - ends))


def worker_bounds(bounds: np.ndarray, worker: int, workers: int, skip: int) -> tuple[np.ndarray, int]:
    """The part of a rank's batches that a worker reads, one run of neighbours, so that few chunks are read twice; and how many of
    these are done already.

    A DataLoader takes a batch from each worker in turn. skip: batches delivered before a resumed run began; the workers then
    change places, so that its first one brings what would have come next.
    """
    turn = (worker + skip) % workers
    each, more = divmod(len(bounds) - 1, workers)
    first, count = turn * each + min(turn, more), each + (turn < more)
    return bounds[first : first + count + 1], min((worker + skip) // workers, count)
