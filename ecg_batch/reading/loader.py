"""For torch: records as a map-style dataset, as a shuffled stream, and a loader that resumes. See docs/reading.md."""

import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from ecg_batch.errors import UserError, shown
from ecg_batch.leads import MV_PER_UV
from ecg_batch.reading.epoch import Epoch, Piece, batch_bounds, worker_bounds
from ecg_batch.reading.labels import multi_hot, names_of
from ecg_batch.reading.records import Records
from ecg_batch.reading.targets import make_targets
from ecg_batch.reading.training_set import make_training_set, metadata
from ecg_batch.statements import SUPERCLASSES

WINDOW_RECORDS = 4096  # held in memory by each worker and shuffled: 98 MB of int16 at 100 Hz

THREADS = 2  # that decode, where there are no worker processes


class ECGDataset(Dataset):
    """Items {"signal": float32 (12, time) mV, "labels": float32 (label,) multi-hot in the order of `label_names`, "record_id": int}
    and each of `columns` and `targets` (see ECGIterable).

    ECGDataset(open_dataset(path)) or of a selection: ECGDataset(open_dataset(path).where(label="MI")). For evaluation and for
    looking at single records; random order is far faster with ECGIterable.
    """

    def __init__(self, dataset: Records, labels: Sequence[str] = SUPERCLASSES, columns: Sequence[str] = (),
                 targets: str | Sequence[str] = ()):  # fmt: skip
        self.dataset, self.label_names = dataset, tuple(labels)
        self.labels = torch.from_numpy(multi_hot(dataset, labels).astype(np.float32))  # (record, label)
        self.columns = metadata(dataset, columns)
        self.record_ids = dataset.indices
        order = np.argsort(self.record_ids, kind="stable")
        self._place = np.argsort(order)  # of each record in the order of their numbers
        self._targets = make_targets(targets, [dataset], self.record_ids[order], np.zeros(len(order), np.uint8))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """A batch in one read: a DataLoader asks for it. Records of the same chunk are then decoded once."""
        signals = torch.from_numpy(self.dataset[np.asarray(indices)])  # (record, 12, time)
        known = self._targets.of(self._place[np.asarray(indices)]) if self._targets else {}
        return [
            {"signal": signal, "labels": self.labels[index], "record_id": int(self.record_ids[index])}
            | {name: values[index] for name, values in self.columns.items()}
            | {name: torch.from_numpy(values[at]) for name, values in known.items()}
            for at, (signal, index) in enumerate(zip(signals, indices, strict=True))
        ]


class ECGIterable(IterableDataset):
    """Batches {"signal": float32 (record, 12, time) mV, "labels": float32 (record, label), "record_id": int64 (record,), "source":
    int64 (record,), which of the datasets} and each of `columns` and `targets`; single items of these where batch is None.

    targets, one or some of: "waves", uint8 (record, 3, time), 1 inside P, QRS and T; "beats", int32 (record, beat, 2), sample of
    each R and class in targets.BEAT_CLASSES, filled up with -1; "rhythm", uint8 (record, time), index in dataset.beats.RHYTHMS.

    Stored chunks come in random order, and a window of `window` records is shuffled in memory; see epoch.py. raw: signal stays
    int16, for to_mv to scale later. shares: of each dataset in an epoch of `records` (default: as many as there are). balance: a
    column, each value of which comes equally often. Where none of these is given, every record comes exactly once an epoch.

    Ranks are those of torch.distributed, as they are when reading begins; ranks=(rank, of) says otherwise: (0, 1) reads everything,
    and a group that trains one model on the same batches gives the number of the group. Use it through
    ECGLoader, which counts epochs and resumes; a plain DataLoader(stream, batch_size=None, num_workers=2) works too, and
    set_epoch(epoch) is then to be called before each epoch.
    """

    def __init__(self, *datasets: Records, batch: int | None = 256, shuffle: bool = True, seed: int = 0,
                 window: int = WINDOW_RECORDS, raw: bool = False, drop_last: bool = False, shares: Sequence[float] | None = None,
                 balance: str | None = None, records: int | None = None, labels: Sequence[str] = SUPERCLASSES,
                 columns: Sequence[str] = (), targets: str | Sequence[str] = (), ranks: tuple[int, int] | None = None):  # fmt: skip
        self.ranks = _checked_ranks(ranks)
        _refuse_numbers(batch=(batch, 1, True), window=(window, 1, False), seed=(seed, 0, False), records=(records, 1, True))
        labels, columns = names_of(labels, "labels"), names_of(columns, "columns")
        if odd := next((each for each in datasets if not isinstance(each, Records)), None):
            raise UserError(f"ECGIterable: given {type(odd).__name__}; needed what open_dataset or open_ptbxl gives")
        self.set = make_training_set(datasets, labels, columns, shares, balance, records)
        self.targets = make_targets(targets, self.set.sources, self.set.record, self.set.source)
        self.batch, self.shuffle, self.seed, self.window = batch, shuffle, seed, window
        self.raw, self.drop_last, self.label_names = raw, drop_last, tuple(labels)
        self._state = torch.zeros(4, dtype=torch.int64).share_memory_()  # of `begin`; seen by workers that are running already
        self.begin(0)

    def begin(self, epoch: int, skip: int = 0) -> None:
        """What the next iteration, in this process or in workers, is to bring: an epoch, without its first `skip` batches."""
        self._state.copy_(torch.tensor([epoch, skip, *self.share()]))

    def set_epoch(self, epoch: int) -> None:
        self.begin(epoch)

    def with_targets(self, targets: str | Sequence[str]) -> "ECGIterable":
        """The same stream with these targets."""
        other = copy(self)
        other.targets = make_targets(targets, self.set.sources, self.set.record, self.set.source)
        return other

    def share(self) -> tuple[int, int]:
        """(rank, ranks): the one place that asks for them."""
        distributed = torch.distributed
        if self.ranks is None and distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return self.ranks or (0, 1)

    def __getstate__(self) -> dict:
        """As a worker process gets it: with the ranks of now, since the stream may be older than the process group."""
        self._state[2:] = torch.tensor(self.share())
        return self.__dict__

    def __len__(self) -> int:
        """Batches of this rank in an epoch; records where batch is None."""
        return len(self._bounds(*self.share())) - 1

    def _bounds(self, rank: int, ranks: int) -> np.ndarray:
        return batch_bounds(self.set.records, self.batch or 1, rank, ranks, self.drop_last)

    def __iter__(self) -> Iterator[dict]:
        epoch, skip, rank, ranks = self._state.tolist()
        worker = get_worker_info()
        if worker is None or self.share() != (0, 1):  # known here: in the main process, or in a worker that was forked from it
            rank, ranks = self.share()
        bounds, done = worker_bounds(
            self._bounds(rank, ranks), worker.id if worker else 0, worker.num_workers if worker else 1, skip
        )
        order = Epoch(self.set.pool, self.seed, epoch, self.set.weights, self.shuffle, self.window)
        step = max(self.window // (self.batch or 1), 1)  # batches of a window
        held = np.empty((min(step * (self.batch or 1), int(bounds[-1] - bounds[0])), *self.set.shape), np.int16)
        with ThreadPoolExecutor(THREADS) as pool:
            firsts = range(done - done % step, len(bounds) - 1, step)
            windows = [bounds[first : first + step + 1] for first in firsts]
            following = self._begun(order, windows, 0)
            for at, (first, window) in enumerate(zip(firsts, windows, strict=True)):
                pieces, ecg = following, self.set.read(following, held, None if worker else pool)
                following = self._begun(order, windows, at + 1)
                yield from self._window(order, window, ecg, pieces, max(done - first, 0))

    def _begun(self, order: Epoch, windows: list[np.ndarray], at: int) -> list[Piece]:
        """The pieces of a window, none after the last one. Where they are far away they are fetched from now on."""
        pieces = order.pieces(int(windows[at][0]), int(windows[at][-1])) if at < len(windows) else []
        self.set.begin(pieces)
        return pieces

    def _window(self, order: Epoch, bounds: np.ndarray, ecg: np.ndarray, pieces: list[Piece], done: int) -> Iterator[dict]:
        """The batches of one window but the first `done`. ecg is overwritten: all that is yielded is copied out of it."""
        start, stop = int(bounds[0]), int(bounds[-1])
        rows = np.concatenate([piece.rows for piece in pieces])
        shuffled = order.shuffled(start, stop)
        for first, last in zip(bounds[done:-1] - start, bounds[done + 1 :] - start, strict=True):
            batch = self._batch(ecg[shuffled[first:last]], rows[shuffled[first:last]])
            yield batch if self.batch else {name: value[0] for name, value in batch.items()}

    def _batch(self, ecg: np.ndarray, rows: np.ndarray) -> dict:
        known = {name: values[rows] for name, values in self.set.columns.items()}
        known |= self.targets.of(rows) if self.targets else {}
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

    targets: as ECGIterable has them, in place of its own.

    A trainer that counts epochs says which one begins: Lightning by the sampler's set_epoch, others by set_epoch here. One that
    makes the loader anew of its attributes, as Lightning does for predict and overfit_batches, wants it without shuffling.
    """

    def __init__(self, dataset: ECGIterable, num_workers: int = 0, device: str | torch.device | None = None,
                 targets: str | Sequence[str] = (), **options):  # fmt: skip
        rebuilt = "sampler" in options  # given as None: by a trainer
        _refuse_options(dataset, options)
        dataset = dataset.with_targets(targets) if targets else dataset
        if rebuilt:
            dataset = copy(dataset)
            dataset.shuffle = False
        super().__init__(dataset, batch_size=None, num_workers=num_workers, **options)
        self.device, self._epoch, self._done, self._resumed = device, 0, 0, False
        # Workers hand over int16. `dataset` stays as it was given, for whoever makes another loader of it
        handed = copy(dataset)
        handed.raw, handed._state = True, torch.zeros(4, dtype=torch.int64).share_memory_()
        self._handing = DataLoader(handed, batch_size=None, num_workers=num_workers, **options)
        self.sampler.set_epoch = self.set_epoch

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch, from its beginning, unless a state within it was loaded."""
        _load_what_lightning_keeps()
        if not (self._resumed and epoch == self._epoch):
            self._epoch, self._done, self._resumed = epoch, 0, False

    def __iter__(self) -> Iterator[dict]:
        if self._done and not self._resumed:
            self._epoch, self._done = self._epoch + 1, 0  # the last epoch was left before its end
        self._resumed = False
        self._handing.dataset.begin(self._epoch, self._done)
        for batch in _in_one_sentence(self._handing):
            self._done += 1
            batch = _small_copied(batch) if self.num_workers else batch
            yield batch if self.dataset.raw else to_mv(batch, self.device)
        self._epoch, self._done = self._epoch + 1, 0

    def state_dict(self) -> dict:
        """After an epoch's last batch: of the beginning of the next."""
        over = self._done >= len(self.dataset)
        epoch, batches = (self._epoch + 1, 0) if over else (self._epoch, self._done)
        return {"epoch": epoch, "batches": batches, "drawn_by": self._drawn_by()}

    def load_state_dict(self, state: dict) -> None:
        """UserError where the state is none, or of a loader whose batches are others."""
        try:
            epoch, batches, drawn_by = int(state["epoch"]), int(state["batches"]), dict(state["drawn_by"])
        except (KeyError, TypeError, ValueError):
            raise UserError("this is no state of an ECGLoader: needed what its state_dict() gave, with epoch, batches and "
                            "drawn_by") from None  # fmt: skip
        here = self._drawn_by()  # a state of before 0.4 does not name the content
        changed = [f"{key} was {was}, is {here.get(key)}" for key, was in drawn_by.items() if was != here.get(key)]
        if changed or not 0 <= batches <= len(self.dataset) or epoch < 0:
            changed = changed or [f"epoch {epoch}, {batches} batches; an epoch here has {len(self.dataset)}"]
            raise UserError(
                f"the state is of another loader ({'; '.join(changed)}), whose batches are others. Make the loader as it was"
            )
        over = batches == len(self.dataset)
        self._epoch, self._done, self._resumed = (epoch + 1, 0, True) if over else (epoch, batches, True)

    def _drawn_by(self) -> dict:
        """What a batch depends on."""
        stream = self.dataset
        return {"data": stream.set.digest(), "content": stream.set.content(),
                "batch": stream.batch, "window": stream.window, "seed": stream.seed,
                "shuffle": stream.shuffle, "drop_last": stream.drop_last, "workers": max(self.num_workers, 1),
                "ranks": stream.share()[1]}  # fmt: skip


def _load_what_lightning_keeps() -> None:
    """Where a model asks for `estimated_stepping_batches`, Lightning has the loader at hand before it reads its checkpoint, and
    then keeps the loader's state instead of handing it on. Its loop, which tells us the epoch, is asked to hand it on now.
    """
    frame = sys._getframe(2)  # of who calls set_epoch
    for _ in range(4):
        if frame is None:
            return
        if hand_on := getattr(frame.f_locals.get("self"), "_load_combined_loader_states", None):
            return hand_on()
        frame = frame.f_back


def to_mv(batch: dict, device: str | torch.device | None = None) -> dict:
    """The batch on a device, its signal moved as int16 where it still is that, and scaled to float32 mV there."""
    moved = {name: value.to(device, non_blocking=True) if torch.is_tensor(value) else value for name, value in batch.items()}
    if moved["signal"].dtype == torch.int16:
        moved["signal"] = moved["signal"].to(torch.float32).mul_(MV_PER_UV)
    return moved


def _small_copied(batch: dict) -> dict:
    """The batch with everything but its signal copied out of the memory that workers share: each such tensor is an open file as
    long as somebody keeps it, and labels are kept, by a thousand.
    """
    return {name: value.clone() if name != "signal" and torch.is_tensor(value) else value for name, value in batch.items()}


def _refuse_options(stream: ECGIterable, options: dict) -> None:
    """UserError for what an ECGLoader cannot keep its promises with. Drops what a trainer states that is so already."""
    if not isinstance(stream, ECGIterable):
        raise UserError(
            f"ECGLoader: given {type(stream).__name__}; needed an ECGIterable. For an ECGDataset take torch's DataLoader"
        )
    if not stream.batch:
        raise UserError("ECGLoader: the stream gives single records (batch=None); give the ECGIterable a batch, for example 256")
    for name in ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"):
        if options.pop(name, None):
            raise UserError(f"ECGLoader: {name} is the stream's: the ECGIterable makes batches, in its own order. Say batch, "
                            "shuffle or drop_last there")  # fmt: skip
    if not options.get("in_order", True):
        raise UserError("ECGLoader: in_order=False brings batches in the order in which workers finish, so a resumed run would "
                        "see some records twice and others never. Leave it out, or take torch's own DataLoader")  # fmt: skip


def _refuse_numbers(**numbers: tuple) -> None:
    """UserError for a value that is no whole number. name=(value, lowest, whether None will do)."""
    for name, (value, lowest, none) in numbers.items():
        if (value is None and none) or (isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= lowest):
            continue
        raise UserError(f"ECGIterable: {name} is {shown(value)}; needed a whole number from {lowest}{' or None' * none}")


def _checked_ranks(ranks) -> tuple[int, int] | None:
    if ranks is None:
        return None
    try:
        rank, of = (operator.index(number) for number in ranks)
    except (TypeError, ValueError):
        rank, of = -1, 0
    if not 0 <= rank < of:
        raise UserError(f"ranks is {str(ranks)[:60]}; needed (rank, of), as (0, 4) for the first of four")
    return rank, of


def _in_one_sentence(batches: Iterable[dict]) -> Iterator[dict]:
    """What a worker process could not read is said as in this one; torch puts the worker's traceback before it."""
    try:
        yield from batches
    except UserError as error:
        _, worker, told = str(error).partition("in DataLoader worker process")
        raise (UserError(told.rpartition("UserError: ")[2].removesuffix("\\n")) if worker else error) from None
