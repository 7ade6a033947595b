"""The order of an epoch: every record once, on any ranks and workers; resumed = not interrupted; labels as in a full shuffle."""

import numpy as np
import pytest

from ecg_batch.errors import UserError
from ecg_batch.reading.epoch import Epoch, batch_bounds, make_pool, worker_bounds

CHUNK, WINDOW = 64, 4096


def taken(bounds: np.ndarray, workers: int, skip: int = 0) -> list[tuple[int, int]]:
    """The batches of a rank as a DataLoader takes them: from each worker in turn, as long as it has one."""
    parts = [worker_bounds(bounds, worker, workers, skip) for worker in range(workers)]
    queues = [list(zip(part[:-1], part[1:], strict=True))[done:] for part, done in parts]
    order = []
    while any(queues):
        order += [queue.pop(0) for queue in queues if queue]
    return order


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("records", "batch"), [(6, 1), (100, 7), (128, 64), (129, 64), (1003, 64), (12_345, 256)])
def test_every_record_once_and_ranks_of_equal_length(records, batch, ranks, workers):
    batches = [taken(batch_bounds(records, batch, rank, ranks, False), workers) for rank in range(ranks)]
    positions = [position for rank in batches for start, stop in rank for position in range(start, stop)]
    assert sorted(positions) == list(range(records))
    assert len({len(rank) for rank in batches}) == 1
    assert all(1 <= stop - start <= batch for rank in batches for start, stop in rank)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_resumed_rank_goes_on_exactly(workers):
    bounds = batch_bounds(1003, 64, 1, 2, False)
    whole = taken(bounds, workers)
    for skip in range(len(whole) + 1):
        assert taken(bounds, workers, skip) == whole[skip:]


def test_drop_last_leaves_full_batches_only():
    for rank in range(3):
        assert set(np.diff(batch_bounds(1003, 64, rank, 3, True))) == {64}


def test_ranks_that_would_wait_for_each_other_are_refused():
    with pytest.raises(UserError, match="5 records for 2 ranks in batches of 1.*drop_last"):
        batch_bounds(5, 1, 0, 2, False)


def drawn(epoch: Epoch, window: int = WINDOW) -> np.ndarray:
    """Rows of the pool in the order in which they come, window by window."""
    rows = []
    for start in range(0, epoch.records, window):
        stop = min(start + window, epoch.records)
        rows.append(np.concatenate([piece.rows for piece in epoch.pieces(start, stop)])[epoch.shuffled(start, stop)])
    return np.concatenate(rows)


def pool_of(labels: np.ndarray):
    return make_pool(np.arange(len(labels)) // CHUNK, labels)


def test_an_epoch_is_a_permutation_and_follows_from_seed_and_number():
    pool = pool_of(np.arange(10_000) % 5)
    orders = {(seed, number): drawn(Epoch(pool, seed, number)) for seed in (0, 1) for number in (0, 1)}
    for order in orders.values():
        np.testing.assert_array_equal(np.sort(order), np.arange(10_000))
    np.testing.assert_array_equal(orders[0, 1], drawn(Epoch(pool, 0, 1)))
    assert len({tuple(order[:20]) for order in orders.values()}) == 4
    np.testing.assert_array_equal(drawn(Epoch(pool, 0, 0, shuffle=False)), np.arange(10_000))


def test_pieces_of_a_cut_epoch_are_those_of_the_whole():
    epoch = Epoch(pool_of(np.zeros(1000, int)), 3, 0)
    whole = np.concatenate([piece.rows for piece in epoch.pieces(0, 1000)])
    for cut in (1, 63, 64, 65, 999):
        parts = epoch.pieces(0, cut) + epoch.pieces(cut, 1000)
        np.testing.assert_array_equal(np.concatenate([piece.rows for piece in parts]), whole)


# Shuffle quality ------------------------------------------------------------------------------------------------------


def statistics(labels: np.ndarray, batch: int = 64) -> np.ndarray:
    """Of labels in the order in which they come: neighbours that are equal, equal ones at distance 64 and 1000, and how far
    batches are from the whole's composition (chi-square).
    """
    kinds = labels.max() + 1
    equal = [np.mean(labels[:-lag] == labels[lag:]) for lag in (1, 64, 1000)]
    counts = np.stack([np.bincount(part, minlength=kinds) for part in labels[: len(labels) // batch * batch].reshape(-1, batch)])
    expected = np.bincount(labels) / len(labels) * batch
    return np.array([*equal, ((counts - expected) ** 2 / expected).mean()])


LABELS = {
    "a mix, as our datasets are": lambda n: np.random.default_rng(5).permutation(np.arange(n) * 5 // n),
    "sorted by label": lambda n: np.arange(n) * 5 // n,
    "sorted, one label rare": lambda n: (np.arange(n) >= n // 100).astype(int),
}


def z_scores(labels: np.ndarray, orders: list[np.ndarray]) -> np.ndarray:
    """How many standard errors the mean statistics of these orders lie from those of 100 full shuffles."""
    generator = np.random.default_rng(11)
    full = np.array([statistics(generator.permutation(labels)) for _ in range(100)])
    ours = np.array([statistics(labels[order]) for order in orders])
    return (ours.mean(axis=0) - full.mean(axis=0)) / (full.std(axis=0) * np.sqrt(1 / len(ours) + 1 / len(full)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_as_in_a_full_shuffle(kind):
    labels = LABELS[kind](65_536)
    assert np.abs(z_scores(labels, [drawn(Epoch(pool_of(labels), 0, number)) for number in range(10)])).max() < 4


@pytest.mark.slow
def test_the_statistics_would_show_a_bad_shuffle():
    """Without dealing chunks out by label, or with a window of one chunk, a sorted dataset is far off."""
    labels = LABELS["sorted by label"](65_536)
    unaware = make_pool(np.arange(65_536) // CHUNK, np.zeros(65_536, int))
    assert np.abs(z_scores(labels, [drawn(Epoch(unaware, 0, number)) for number in range(10)])).max() > 20
    assert np.abs(z_scores(labels, [drawn(Epoch(pool_of(labels), 0, number), CHUNK) for number in range(10)])).max() > 20


# Weights --------------------------------------------------------------------------------------------------------------


def test_weights_are_how_often_a_record_comes():
    labels = np.arange(6400) % 4
    weights = np.array([0.25, 0.5, 1.0, 2.25])[labels]
    counts = np.array([np.bincount(drawn(Epoch(pool_of(labels), 0, number, weights)), minlength=6400) for number in range(40)])
    assert set(counts.sum(axis=1)) == {6400}
    np.testing.assert_allclose([counts[:, labels == kind].mean() for kind in range(4)], [0.25, 0.5, 1.0, 2.25], rtol=0.02)
    assert set(np.unique(counts[:, labels == 2])) <= {0, 1, 2} and counts[:, labels == 3].min() == 2
    assert counts[:, labels == 0].sum(axis=0).max() < 30, "some records come far too often"


def test_repeats_of_a_record_are_spread_over_the_epoch():
    order = drawn(Epoch(pool_of(np.zeros(6400, int)), 0, 0, np.full(6400, 4.0)), 1024)
    apart = np.diff(np.argsort(order, kind="stable").reshape(6400, 4), axis=1)
    assert np.median(apart) > 2000
