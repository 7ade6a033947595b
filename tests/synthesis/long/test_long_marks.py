"""Marks of single beats carried into long records: each lies where its beat was placed, adapted to the rate as its samples were."""

from pathlib import Path

import numpy as np
import pytest
from making import make_all, plan_of

from ecg_batch.dataset.beats import BEAT_SYMBOLS, BEFORE, QUALITY, RHYTHM, in_order, waves_ms
from ecg_batch.signal.interpolate import catmull_rom
from ecg_batch.synthesis.long.annotate import record_beats
from ecg_batch.synthesis.long.begin import begin_records
from ecg_batch.synthesis.long.stitch import carried, intervals, stitch
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

LABELS = {"NORM": 0.2, "AFIB": 0.2, "PVC": 0.2, "PAC": 0.2, "PACE": 0.2}
LONG = {"records": 12, "duration_s": 150, "batch": 12, "shard": 12, "mix": {"labels": LABELS, "hr_bpm": {"uniform": [45, 130]}}}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("plan"), **LONG)


@pytest.fixture(scope="module")
def begun(plan):
    synthesizer = open_synthesizer(plan)
    return begin_records(synthesizer, query_source(plan.request, Path("unused"))(0, 12))


def test_each_mark_is_where_its_piece_of_the_beat_lies(begun):
    """By a loop over intervals, each piece by itself."""
    for each in begun:
        donor, placed, found = each.donor, each.placed, carried(each.donor, each.placed)
        i = intervals(donor, placed, np.arange(len(placed.r) - 1))
        for k in range(5, 60):
            beat = placed.source[k]
            own, r, before, after = donor.r[beat] + donor.waves[beat], placed.r[k], found[k, :4], found[k, 4:]
            at = i.start[k] + np.array([0, i.qrs_off[k], i.t_end[k], i.splice[k]])
            of_donor = [donor.r[beat], donor.qrs_off[beat], donor.t_end[beat], i.donor_out[k]]
            np.testing.assert_allclose(after, np.interp(own[4:], of_donor, at))
            at = [*(i.start[k - 1] + np.array([i.splice[k - 1], i.p_on[k - 1], i.qrs_on[k - 1]])), r]
            own = np.maximum(own, i.donor_in[k - 1])  # what reaches beyond the splice begins with it, or with P
            of_donor = [i.donor_in[k - 1] - 1e-9, donor.p_on[beat], donor.qrs_on[beat], donor.r[beat]]
            np.testing.assert_allclose(before, np.interp(own[:4], of_donor, at))
            in_qrs = (own >= donor.qrs_on[beat]) & (own <= donor.qrs_off[beat])
            np.testing.assert_allclose(found[k, in_qrs], r + donor.waves[beat, in_qrs], err_msg="QRS complexes are as they are")


def test_a_record_shows_at_each_mark_what_its_donor_shows_there(begun):
    """On samples, but for what the splices add between QRS and splice: some microvolts where P and T are."""
    for each in [one for one in begun if one.donor.atrial is None]:
        donor, marks = each.donor, carried(each.donor, each.placed)
        own = donor.r[each.placed.source][:, None] + donor.waves[each.placed.source]
        made, inside = stitch(donor, each.placed, 0, 15_000).T, (marks > 2) & (marks < 14_990)
        off_uv = np.abs(catmull_rom(made, marks[inside]) - catmull_rom(donor.x.T, np.clip(own[inside], 1, 996))).max(axis=1)
        beat = each.placed.source[:, None]
        is_qrs = ((own >= donor.qrs_on[beat]) & (own <= donor.qrs_off[beat]))[inside]
        assert np.quantile(off_uv[is_qrs], 0.99) < 10 and np.median(off_uv[is_qrs]) < 0.1 and np.median(off_uv) < 10
        later = np.abs(catmull_rom(made, marks[inside] + 1) - catmull_rom(donor.x.T, np.clip(own[inside], 1, 996))).max(axis=1)
        assert is_qrs.sum() > 50 and np.median(later[is_qrs]) > 20, "a mark that is a sample off would be noticed"


def test_rows_are_in_order_and_waves_absent_where_there_are_none(plan, begun):
    seen = set()
    for number, each in enumerate(begun):
        table = record_beats(number, each, [(6000, "beats,flat")], np.full(len(each.placed.r), -1), plan.request, np.arange(9))
        rows, wave_ms = table.to_pandas(), waves_ms(table)
        assert in_order(wave_ms) and rows["sample"].is_monotonic_increasing and rows["sample"].between(0, 14_999).all()
        assert rows.symbol[0] == RHYTHM
        assert rows[rows.symbol == QUALITY][["sample", "aux"]].values.tolist() == [[6000, "beats,flat"]]
        beats = rows.symbol.isin(BEAT_SYMBOLS).to_numpy()
        assert np.array_equal(rows["sample"][beats], each.placed.r[1:-1])
        assert np.isnan(wave_ms[rows.symbol.isin([RHYTHM, QUALITY])]).all()
        no_p = beats & ((rows.symbol == "V").to_numpy() | (each.donor.atrial is not None))
        assert np.isnan(wave_ms[no_p, 0]).mean() > 0.9 if no_p.any() else True
        assert not np.isnan(wave_ms[beats][:, 3:5]).any()
        paced = "PACE" in each.donor.codes
        assert ("/" in set(rows.symbol)) == paced and ("N" in set(rows.symbol)) != paced
        seen |= set(rows.symbol)
    assert {"N", "V", "A", "/", BEFORE} <= seen


def test_records_under_a_minute_have_the_same_rows_whatever_their_batches(tmp_path):
    changes = {**LONG, "duration_s": 30, "records": 6, "shard": 64, "mix": {"labels": {"NORM": 0.5, "PVC": 0.5}, "hr_bpm": 80}}
    plans = [plan_of(tmp_path, **{**changes, "batch": batch}) for batch in (4, 2)]
    one, two = (make_all(plan)[2] for plan in plans)
    assert one.equals(two) and set(one["record"].to_pylist()) == set(range(6))
