"""Targets are what beats.parquet says, sample by sample, for shuffled, repeated and mixed records."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

import ecg_batch
from ecg_batch.dataset.beats import BEAT_SYMBOLS, RHYTHMS
from ecg_batch.errors import UserError
from ecg_batch.reading.targets import TARGETS, make_targets
from ecg_batch.rhythm_words import AAMI, BEAT_CLASSES
from ecg_batch.synthesis.donor_marks import RHYTHM_OF


@pytest.fixture
def dataset(small_dataset):
    return ecg_batch.open_dataset(small_dataset)


def waves_of(dataset, record) -> np.ndarray:
    """The masks of one record by a loop over its rows, uint8 (3, time)."""
    found, time_ms = np.zeros((3, 1000), np.uint8), np.arange(1000) * 10
    for row in dataset.beats(record).to_pylist():
        for at, (on, end) in enumerate((("p_on_ms", "p_end_ms"), ("qrs_on_ms", "qrs_end_ms"), ("t_on_ms", "t_end_ms"))):
            if row[on] is not None and row[end] is not None:
                since_ms = time_ms - 10 * row["sample"]
                found[at] |= ((since_ms >= row[on]) & (since_ms <= row[end])).astype(np.uint8)
    return found


def beats_of(dataset, record) -> list[list[int]]:
    rows = dataset.beats(record).to_pylist()
    return [[row["sample"], BEAT_CLASSES.index(AAMI[row["symbol"]])] for row in rows if row["symbol"] in BEAT_SYMBOLS]


def test_each_record_of_an_epoch_comes_with_its_own_targets(dataset):
    stream = ecg_batch.ECGIterable(dataset, batch=50, seed=3, targets=TARGETS)
    seen = 0
    for batch in ecg_batch.ECGLoader(stream):
        assert batch["waves"].shape == (len(batch["signal"]), 3, 1000) and batch["rhythm"].shape == (len(batch["signal"]), 1000)
        assert str(batch["waves"].dtype) == "torch.uint8" and batch["labels"].shape[1] == 5
        assert (batch["rhythm"] == RHYTHMS.index("(N")).all()
        for at in (0, 7, len(batch["signal"]) - 1):
            record, beats = int(batch["record_id"][at]), batch["beats"][at].numpy()
            np.testing.assert_array_equal(batch["waves"][at], waves_of(dataset, record))
            assert beats[beats[:, 0] >= 0].tolist() == beats_of(dataset, record)
        seen += len(batch["signal"])
    assert seen == 540


def test_targets_are_those_of_chosen_repeated_and_mixed_records(dataset, make_dataset):
    few = dataset.select([500, 7, 7, 130, 131])
    whole = make_targets("waves", [few.select(np.argsort(few.indices))], np.sort(few.indices), np.zeros(5, np.uint8))
    found = whole.of(np.array([4, 0, 1]))["waves"]
    for at, record in enumerate((500, 7, 7)):
        np.testing.assert_array_equal(found[at], waves_of(dataset, record))
    other = ecg_batch.open_dataset(make_dataset("other", seed=8)).select(slice(0, 130))
    stream = ecg_batch.ECGIterable(few, other, batch=9, targets=["beats", "waves"], shares=(0.5, 0.5))
    for batch in stream:
        for source, record, waves in zip(batch["source"], batch["record_id"], batch["waves"], strict=True):
            np.testing.assert_array_equal(waves, waves_of((few, other)[source], int(record)))


def test_single_records_have_them_too(dataset):
    items = ecg_batch.ECGDataset(dataset.select([20, 3]), targets=("waves", "beats"))
    for at, record in enumerate((20, 3)):
        np.testing.assert_array_equal(items[at]["waves"], waves_of(dataset, record))
    assert next(iter(DataLoader(items, batch_size=2)))["beats"].shape == (2, 10, 2)


@pytest.mark.slow
def test_workers_hand_them_over(dataset):
    stream = ecg_batch.ECGIterable(dataset, batch=64, targets=("waves", "rhythm"))
    loader = ecg_batch.ECGLoader(ecg_batch.ECGIterable(dataset, batch=64), num_workers=2, targets=("waves", "rhythm"))
    assert loader.dataset.targets.names == stream.targets.names == ("waves", "rhythm")
    for batch in loader:
        np.testing.assert_array_equal(batch["waves"][5], waves_of(dataset, int(batch["record_id"][5])))


def test_what_there_is_not_is_refused(dataset):
    with pytest.raises(UserError, match="targets names 'wave'; needed some of labels, waves, beats, rhythm"):
        ecg_batch.ECGIterable(dataset, targets=["wave"])
    (dataset.path / "beats.parquet").unlink()
    with pytest.raises(UserError, match="beats.parquet: damaged: it is absent"):
        ecg_batch.ECGIterable(dataset, targets=["waves"])
    (dataset.path / "SHA256SUMS").unlink()  # which names it
    with pytest.raises(UserError, match="before 0.5, records of 10 s came without annotations"):
        ecg_batch.ECGIterable(dataset, targets=["waves"])
    assert len(list(ecg_batch.ECGIterable(dataset, batch=100, targets="labels"))) == 6, "of an older dataset, all else is read"


def test_every_rhythm_and_symbol_that_is_made_has_its_class():
    assert set(RHYTHM_OF.values()) <= set(RHYTHMS) and set(BEAT_SYMBOLS) <= set(AAMI) and len(RHYTHMS) < 255
