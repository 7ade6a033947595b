"""Marks are paired and counted as the page says, and what a network says becomes the marks that it means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_batch.evaluation.waves.delineator import SAID_HZ
from ecg_batch.evaluation.waves.marked import Waves
from ecg_batch.evaluation.waves.scores import (
    BOUNDARIES,
    REFRACTORY_S,
    TOLERANCE_S,
    beats_of,
    f1,
    interval,
    macro,
    pairs,
    score_beats,
    score_lead,
    together,
    waves_of,
)

P, QRS, T = 0, 1, 2
BEAT_S = {P: (-0.20, -0.10), QRS: (-0.05, 0.05), T: (0.16, 0.36)}  # about R
MARKS = st.lists(st.integers(0, 4000), max_size=30, unique=True).map(lambda ms: np.sort(ms) / 1000)


def waves(r_s=(1, 2, 3, 4), shift_s=0.0, without=()) -> Waves:
    rows = [(kind, r + on + shift_s, r + end + shift_s) for r in r_s for kind, (on, end) in BEAT_S.items() if kind not in without]
    kind, on, end = np.array(rows, float).reshape(-1, 3).T
    return Waves(kind.astype(int), on, end)


def said(of: Waves, seconds=10.0) -> np.ndarray:
    """What a network that knew it all would say: (4, time)."""
    time = np.arange(round(seconds * SAID_HZ)) / SAID_HZ
    out = np.zeros((4, len(time)))
    for kind, on, end in zip(of.kind, of.on_s, of.end_s, strict=True):
        out[kind + 1] += np.clip((time - on) * SAID_HZ + 0.5, 0, 1) * np.clip((end - time) * SAID_HZ + 0.5, 0, 1)
    out[0] = 1 - out[1:].sum(axis=0)
    return out


@given(MARKS, MARKS)
def test_each_mark_is_in_one_pair_at_most_and_pairs_lie_within_the_tolerance(theirs, ours):
    found = pairs(theirs, ours)
    assert len(set(found[:, 0])) == len(set(found[:, 1])) == len(found)
    assert (np.abs(theirs[found[:, 0]] - ours[found[:, 1]]) <= TOLERANCE_S + 1e-9).all()
    left = np.delete(theirs, found[:, 0])[:, None] - np.delete(ours, found[:, 1])
    assert not (np.abs(left) < TOLERANCE_S - 1e-12).any()  # no two that could be one are left over


@given(MARKS, MARKS)
def test_who_is_the_reader_makes_no_difference_to_f1(theirs, ours):
    counts = score_beats(theirs, ours)
    assert f1(counts) == f1(score_beats(ours, theirs))
    assert counts[0] + counts[1] == len(ours) and counts[0] + counts[2] == len(theirs)


@pytest.mark.parametrize("shift_ms", [-140, -20, 0, 20, 140])
def test_a_shift_within_the_tolerance_is_an_error_and_no_miss(shift_ms):
    scored = score_lead(waves(), waves(shift_s=shift_ms / 1000))
    assert (scored.counts == [4, 0, 0]).all()
    assert all(np.allclose(off, shift_ms) for off in scored.off_ms)


def test_a_shift_beyond_it_is_a_miss():
    scored = score_lead(waves(), waves(shift_s=TOLERANCE_S + 0.01))
    assert (scored.counts[:, 0] == 0).all() and (scored.counts[:, 2] == 4).all()


def test_an_extra_mark_counts_between_the_first_mark_and_the_last_alone():
    beside = score_lead(waves((3, 4)), waves((1, 2, 3, 4, 5)))
    assert (beside.counts == [2, 0, 0]).all()
    within = score_lead(waves((2, 4)), waves((2, 3, 4)))
    assert (within.counts == [2, 1, 0]).all()
    assert (score_lead(waves(()), waves()).counts == 0).all()  # of a lead that nobody marked nothing is known


def test_a_wave_that_is_absent_costs_its_two_boundaries_only():
    lost = score_lead(waves(), waves(without=(P,)))
    assert dict(zip(BOUNDARIES, f1(lost.counts), strict=True)) == dict.fromkeys(BOUNDARIES, 1.0) | {"P onset": 0, "P end": 0}
    assert macro(lost.counts) == pytest.approx(4 / 6)


def test_records_together_are_their_sums():
    one, other = score_lead(waves(), waves()), score_lead(waves(), waves(shift_s=0.02))
    both = together([one, other])
    assert (both.counts == one.counts + other.counts).all() and len(both.off_ms[0]) == 8


def test_an_interval_holds_its_value_and_of_a_difference_to_itself_nothing():
    counts = np.random.default_rng(0).integers(1, 50, (40, 6, 3))
    value, low, high = interval(counts)
    assert low < value < high and value == pytest.approx(macro(counts.sum(axis=0)))
    assert interval(counts, against=counts) == [0, 0, 0]


# What a network says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_s", [0.0, 0.0013, 0.0051])
def test_waves_come_back_from_what_is_said_of_them_to_the_millisecond(shift_s):
    meant = waves(range(1, 9), shift_s)
    found = waves_of(said(meant))
    assert len(found) == len(meant)
    for kind in (P, QRS, T):
        for end in (0, 1):
            assert np.abs(found.edges(kind, end) - meant.edges(kind, end)).max() < 0.0015


def test_pieces_of_a_wave_are_one_and_a_short_one_is_none():
    split, short = said(waves((2, 4))), said(waves((2, 4)))
    split[2, round(2 * SAID_HZ)] = 0.2
    assert len(waves_of(split).edges(QRS, 0)) == 2
    short[3, round(6 * SAID_HZ) : round(6.03 * SAID_HZ)] = 1
    assert len(waves_of(short).edges(T, 0)) == 2


def test_p_waves_count_where_half_of_the_qrs_near_have_one():
    assert len(waves_of(said(waves((1, 2, 3, 4)))).edges(P, 0)) == 4
    now_and_then = np.concatenate([said(waves((1,)), 1.5), said(waves((0.5, 1.5, 2.5, 3.5), without=(P,)), 8.5)], axis=1)
    assert len(waves_of(now_and_then).edges(P, 0)) == 0 and len(waves_of(now_and_then).edges(QRS, 0)) == 5


def test_nothing_said_is_no_wave_and_no_beat():
    nothing = np.zeros((4, 500))
    assert len(waves_of(nothing)) == len(beats_of(nothing)) == 0


def test_r_is_the_middle_of_a_qrs_and_of_two_within_the_refractory_time_the_surer_one_stays():
    r_s = np.arange(1, 9)
    assert np.allclose(beats_of(said(waves(r_s))), r_s, atol=0.01)
    twice = said(waves((2,))) + 0.8 * said(waves((2 + 0.9 * REFRACTORY_S,)))
    assert np.allclose(beats_of(np.clip(twice, 0, 1)), 2, atol=0.01)


def test_what_is_left_out_counts_on_neither_side():
    theirs, ours = np.array([1.0, 2.0, 8.0]), np.array([1.0, 4.0, 5.0, 8.0])
    assert score_beats(theirs, ours).tolist() == [2, 2, 1]
    assert score_beats(theirs, ours, [(1.9, 5.1)]).tolist() == [2, 0, 0]
