"""For torch: records as a map-style dataset, as a shuffled stream, and a loader that resumes. See docs/reading.md."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from copy import copy

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ecg_batch.epoch import Epoch, batch_bounds, worker_bounds
from ecg_batch.errors import UserError
from ecg_batch.leads import MV_PER_STEP
from ecg_batch.records import Records
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.training_set import make_training_set, metadata, multi_hot

WINDOW_RECORDS = 4096  # held in memory by each worker and shuffled: 98 MB of int16 at 100 Hz

THREADS = 2  # that decode, where there are no worker processes


class ECGDataset(Dataset):
    """Items {"signal": float32 (12, time) mV, "labels": float32 (label,) multi-hot in the order of `label_names`, "record_id": int}
    and each of `columns`.

    ECGDataset(open_dataset(path)) or of a selection: ECGDataset(open_dataset(path).where(label="MI")). For evaluation and for
    looking at single records; random order is far faster with ECGIterable.
    """

    def __init__(self, dataset: Records, labels: Sequence[str] = SUPERCLASSES, columns: Sequence[str] = ()):
        self.dataset, self.label_names = dataset, tuple(labels)
        self.labels = torch.from_numpy(multi_hot(dataset, labels).astype(np.float32))  # (record, label)
        self.columns = metadata(dataset, columns)
        self.record_ids = dataset.indices

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """A batch in one read: a DataLoader asks for it. Records of the same chunk are then decoded once."""
        signals = torch.from_numpy(self.dataset[np.asarray(indices)])  # (record, 12, time)
        return [
            {"signal": signal, "labels": self.labels[index], "record_id": int(self.record_ids[index])}
            | {name: values[index] for name, values in self.columns.items()}
            for signal, index in zip(signals, indices, strict=True)
        ]


class ECGIterable(IterableDataset):
    """Batches {"signal": float32 (record, 12, time) mV, "labels": float32 (record, label), "record_id": int64 (record,), "source":
    int64 (record,), which of the datasets} and each of `columns`; single items of these where batch is None.

    Stored chunks come in random order, and a window of `window` records is shuffled in memory; see epoch.py. raw: signal stays
    int16, for to_mv to scale later. shares: of each dataset in an epoch of `records` (default: as many as there are). balance: a
    column, each value of which comes equally often. Where none of these is given, every record comes exactly once an epoch.

    Ranks are those of torch.distributed. Use it through ECGLoader, which counts epochs and resumes; a plain DataLoader(stream,
    batch_size=None, num_workers=2) works too, and set_epoch(epoch) is then to be called before each epoch.
    """

    def __init__(self, *datasets: Records, batch: int | None = 256, shuffle: bool = True, seed: int = 0,
                 window: int = WINDOW_RECORDS, raw: bool = False, drop_last: bool = False, shares: Sequence[float] | None = None,
                 balance: str | None = None, records: int | None = None, labels: Sequence[str] = SUPERCLASSES,
                 columns: Sequence[str] = ()):  # fmt: skip
        self.set = make_training_set(datasets, labels, columns, shares, balance, records)
        self.batch, self.shuffle, self.seed, self.window = batch, shuffle, seed, window
        self.raw, self.drop_last, self.label_names = raw, drop_last, tuple(labels)
        self._state = torch.zeros(4, dtype=torch.int64).share_memory_()  # of `begin`; seen by workers that are running already
        self.begin(0)

    def begin(self, epoch: int, skip: int = 0) -> None:
        """What the next iteration, in this process or in workers, is to bring: an epoch, without its first `skip` batches."""
        self._state.copy_(torch.tensor([epoch, skip, *_rank()]))

    def set_epoch(self, epoch: int) -> None:
        self.begin(epoch)

    def __len__(self) -> int:
        """Batches of this rank in an epoch; records where batch is None."""
        return len(self._bounds(*_rank())) - 1

    def _bounds(self, rank: int, ranks: int) -> np.ndarray:
        return batch_bounds(self.set.records, self.batch or 1, rank, ranks, self.drop_last)

    def __iter__(self) -> Iterator[dict]:
        epoch, skip, rank, ranks = self._state.tolist()
        worker = get_worker_info()
        bounds, done = worker_bounds(
            self._bounds(rank, ranks), worker.id if worker else 0, worker.num_workers if worker else 1, skip
        )
        order = Epoch(self.set.pool, self.seed, epoch, self.set.weights, self.shuffle, self.window)
        step = max(self.window // (self.batch or 1), 1)  # batches of a window
        held = np.empty((min(step * (self.batch or 1), int(bounds[-1] - bounds[0])), *self.set.shape), np.int16)
        with ThreadPoolExecutor(THREADS) as pool:
            for first in range(done - done % step, len(bounds) - 1, step):
                window = bounds[first : first + step + 1]
                yield from self._window(order, window, held, max(done - first, 0), None if worker else pool)

    def _window(self, order: Epoch, bounds: np.ndarray, held: np.ndarray, done: int, pool: Executor | None) -> Iterator[dict]:
        """The batches of one window but the first `done`. held is overwritten: all that is yielded is copied out of it."""
        start, stop = int(bounds[0]), int(bounds[-1])
        pieces = order.pieces(start, stop)
        rows, ecg = np.concatenate([piece.rows for piece in pieces]), self.set.read(pieces, held, pool)
        shuffled = order.shuffled(start, stop)
        for first, last in zip(bounds[done:-1] - start, bounds[done + 1 :] - start, strict=True):
            batch = self._batch(ecg[shuffled[first:last]], rows[shuffled[first:last]])
            yield batch if self.batch else {name: value[0] for name, value in batch.items()}

    def _batch(self, ecg: np.ndarray, rows: np.ndarray) -> dict:
        known = {name: values[rows] for name, values in self.set.columns.items()}
        batch = {
            "signal": torch.from_numpy(ecg),
            "labels": torch.from_numpy(self.set.labels[rows].astype(np.float32)),
            "record_id": torch.from_numpy(self.set.record[rows]),
            "source": torch.from_numpy(self.set.source[rows].astype(np.int64)),
        } | {name: values.tolist() if values.dtype == object else torch.from_numpy(values) for name, values in known.items()}
        return batch if self.raw else to_mv(batch)


class ECGLoader(DataLoader):
    """A DataLoader of an ECGIterable with batches that counts epochs, each in another order, and resumes in the middle of one.

    Workers hand over int16, which is scaled to float32 mV last, on `device`; not at all where the stream is raw, and to_mv does it
    when it suits. state_dict() after any batch, load_state_dict() in a new process with as many ranks and workers: the next batch
    is the one that would have come.
    """

    def __init__(self, stream: ECGIterable, num_workers: int = 0, device: str | torch.device | None = None, **options):
        if not stream.batch:
            raise UserError(
                "ECGLoader: the stream gives single records (batch=None); give the ECGIterable a batch, for example 256"
            )
        self._raw, stream = stream.raw, copy(stream)
        stream.raw = True
        super().__init__(stream, batch_size=None, num_workers=num_workers, **options)
        self._device, self._epoch, self._done, self._resumed = device, 0, 0, False

    def __iter__(self) -> Iterator[dict]:
        if self._done and not self._resumed:
            self._epoch, self._done = self._epoch + 1, 0  # the last epoch was left before its end
        self._resumed = False
        self.dataset.begin(self._epoch, self._done)
        for batch in super().__iter__():
            self._done += 1
            yield batch if self._raw else to_mv(batch, self._device)
        self._epoch, self._done = self._epoch + 1, 0

    def state_dict(self) -> dict:
        return {"epoch": self._epoch, "batches": self._done, "drawn_by": self._drawn_by()}

    def load_state_dict(self, state: dict) -> None:
        if state["drawn_by"] != self._drawn_by():
            changed = [f"{key} was {was}, is {self._drawn_by().get(key)}" for key, was in state["drawn_by"].items()
                       if was != self._drawn_by().get(key)]  # fmt: skip
            raise UserError(
                f"the state is of another loader ({'; '.join(changed)}), whose batches are others. Make the loader as it was"
            )
        self._epoch, self._done, self._resumed = state["epoch"], state["batches"], True

    def _drawn_by(self) -> dict:
        """What a batch depends on, beside the data."""
        stream = self.dataset
        return {"data": stream.set.digest(), "batch": stream.batch, "window": stream.window, "seed": stream.seed,
                "shuffle": stream.shuffle, "drop_last": stream.drop_last, "workers": max(self.num_workers, 1),
                "ranks": _rank()[1]}  # fmt: skip


def to_mv(batch: dict, device: str | torch.device | None = None) -> dict:
    """The batch on a device, its signal moved as int16 where it still is that, and scaled to float32 mV there."""
    moved = {name: value.to(device, non_blocking=True) if torch.is_tensor(value) else value for name, value in batch.items()}
    if moved["signal"].dtype == torch.int16:
        moved["signal"] = moved["signal"].to(torch.float32).mul_(MV_PER_STEP)
    return moved


def _rank() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
