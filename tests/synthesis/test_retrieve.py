"""Retrieval: the label held, allowed folds only, nearer donors more often, no two uses of one number."""

import numpy as np
import pytest

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.errors import UserError
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.retrieve import WEIGHTS, _nearest, _squared_distance, contradictions, index_donors, retrieve

UNIFORMS = np.random.default_rng(5).random((400, 8))


@pytest.fixture(scope="module")
def table():
    return bank.read_table(BUNDLED)


def ask(count=400, label="MI", hr=70.0, age=60.0, sex=1):
    return Queries(np.arange(count), np.full(count, label), np.full(count, hr, np.float32), np.full(count, age, np.float32),
                   np.full(count, sex, np.int8))  # fmt: skip


@pytest.mark.parametrize("label", ["NORM", "MI", "STTC", "CD", "HYP", "AFIB", "CLBBB", "1AVB"])
def test_every_donor_holds_the_label(table, label):
    donors = retrieve(index_donors(table, range(1, 9)), ask(label=label), UNIFORMS)
    assert table.holds(label)[donors].all()


def test_no_donor_is_of_a_fold_that_is_not_allowed(table):
    donors = retrieve(index_donors(table, (2, 5)), ask(), UNIFORMS)
    assert set(table.fold[donors].ravel().tolist()) == {2, 5}


def test_where_no_donor_is_left_the_request_is_refused(table):
    with pytest.raises(UserError, match="donor_folds"):
        index_donors(table, (9,))


def test_nearer_donors_come_first_more_often(table):
    donors = retrieve(index_donors(table, range(1, 9)), ask(), UNIFORMS)
    counts = np.sort(np.unique(donors[:, 0], return_counts=True)[1])[::-1]
    assert len(counts) == 8  # all k are used ...
    assert counts[0] > 2 * counts[-1]  # ... unequally
    assert abs(np.median(table.hr_bpm[donors]) - 70) < 5


def test_the_order_of_a_record_is_a_draw_without_replacement(table):
    donors = retrieve(index_donors(table, range(1, 9)), ask(), UNIFORMS)
    assert all(len(set(row)) == 8 for row in donors.tolist())


def test_a_query_for_a_label_alone_may_get_any_of_its_donors(table):
    index = index_donors(table, (1, 2))
    anyone = retrieve(index, ask(count=400, hr=np.nan, age=np.nan, sex=-1), UNIFORMS)
    holders = np.flatnonzero(table.holds("MI") & np.isin(table.fold, (1, 2)))
    assert set(anyone.ravel().tolist()) == set(holders.tolist())
    assert np.bincount(anyone[:, 0]).max() < 400 / len(holders) * 8
    women = retrieve(index, ask(hr=np.nan, age=np.nan, sex=1), UNIFORMS)
    assert set(women.ravel().tolist()) == set(holders[table.sex[holders] == 1].tolist())


def test_what_is_not_asked_does_not_count(table):
    index = index_donors(table, range(1, 9))
    far = retrieve(index, ask(hr=np.nan, age=np.nan, sex=-1), UNIFORMS)
    near = retrieve(index, ask(hr=np.nan, age=25.0, sex=-1), UNIFORMS)
    assert np.median(table.age[near]) < np.median(table.age[far])


def test_a_record_does_not_depend_on_its_neighbours(table):
    index = index_donors(table, range(1, 9))
    mixed = Queries(np.arange(4), np.array(["MI", "CD", "MI", "NORM"]), np.array([60, 70, 80, 90], np.float32),
                    np.full(4, np.nan, np.float32), np.array([0, 1, -1, 0], np.int8))  # fmt: skip
    together = retrieve(index, mixed, UNIFORMS[:4])
    for at in range(4):
        alone = mixed.take(slice(at, at + 1))
        np.testing.assert_array_equal(retrieve(index, alone, UNIFORMS[at : at + 1])[0], together[at])


def test_statements_about_the_rate_stay_true(table):
    """A donor with sinus bradycardia cannot become a record at 90 bpm that still says so."""
    index = index_donors(table, range(1, 9))
    donors = retrieve(index, ask(label="NORM", hr=90.0), UNIFORMS)
    assert not table.holds("SBRAD")[donors].any()
    sinus = np.flatnonzero(table.holds("SR") & ~table.holds("SBRAD") & (table.hr_bpm < 100))[:1]
    np.testing.assert_array_equal(contradictions(index, sinus.repeat(2), np.array([95.0, 120.0])), [False, True])
    fast = np.flatnonzero(table.holds("SR") & ~table.holds("STACH") & (table.hr_bpm > 110))[:1]  # a child
    np.testing.assert_array_equal(contradictions(index, fast, table.hr_bpm[fast]), [False])
    slow = np.flatnonzero(table.holds("SBRAD"))[:1]
    np.testing.assert_array_equal(contradictions(index, slow.repeat(2), np.array([55.0, 90.0])), [False, True])


def test_a_label_with_few_donors_repeats_them(table):
    holders = np.flatnonzero(table.holds("SVTAC") & (table.fold == 1))
    assert 0 < len(holders) < 8
    donors = retrieve(index_donors(table, (1,)), ask(label="SVTAC", hr=150.0), UNIFORMS)
    assert set(donors.ravel().tolist()) == set(holders.tolist())


def test_the_nearest_are_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    for values in (2, 5, 1000):  # the fewer, the more ties
        for shape in ((1, 1), (3, 7), (60, 8), (60, 9), (40, 500)):
            for count in (1, 3, 8, 40):
                distance = rng.integers(0, values, shape) / 7
                by_sort = np.argsort(distance, axis=1, kind="stable")[:, :count]
                np.testing.assert_array_equal(_nearest(distance, count), by_sort)


@pytest.mark.parametrize("label", ["MI", "NORM", "AFIB", "SVTAC"])
def test_the_distance_is_the_sum_over_all_features_at_once_to_the_bit(table, label):
    """What it was when it was written in one line; a bit more or less may change a donor."""
    index, rng = index_donors(table, range(1, 9)), np.random.default_rng(0)
    holders, asked = np.flatnonzero(table.holds(label)[index.rows]), np.arange(60)
    queries = ask(count=60, label=label, hr=rng.normal(75, 20, 60), age=rng.uniform(20, 90, 60), sex=rng.integers(-1, 2, 60))
    queries.hr_bpm[::5] = queries.age[::7] = np.nan
    parent = label if label in SUPERCLASSES else table.superclass_of.get(label)
    numbers = np.stack([queries.hr_bpm, queries.age, np.where(queries.sex >= 0, queries.sex, np.nan)], axis=1, dtype=np.float64)
    of_label = np.tile([float(name == parent) if parent else np.nan for name in SUPERCLASSES], (60, 1))
    weights = np.array([WEIGHTS[name] for name in ("hr_bpm", "age", "sex", *5 * ["superclass"])])
    difference = weights * (np.concatenate([numbers, of_label], axis=1)[:, None] - index.features[holders]) / index.scale
    added = _squared_distance(index, holders, queries, asked, label)
    kept = added < 1e3  # the others have a penalty besides
    np.testing.assert_array_equal(added[kept], np.nansum(difference**2, axis=-1)[kept])
    assert kept.mean() > 0.1
