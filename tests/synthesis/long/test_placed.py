"""Events at their places: each begins at the first beat at or after its time, wherever the record's rate has gone until then."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from making import plan_of

from ecg_batch.dataset.beats import BEAT_SYMBOLS, LONE_P, RHYTHM
from ecg_batch.draws import Stream, generator
from ecg_batch.errors import UserError
from ecg_batch.request.events import AV_BLOCKS, KINDS, OVERLAYS
from ecg_batch.request.model import Distribution, Event
from ecg_batch.request.places import Place
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.long.beat_times import WITHIN_BPM
from ecg_batch.synthesis.long.begin import begin_records
from ecg_batch.synthesis.long.events.patient import Asked, Host, drawn_habits
from ecg_batch.synthesis.long.events.write_order import FROM_BEAT_BEFORE, Crowded, write_order
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

SINUS = Host(sinus=True, fibrillation=False, pr_s=0.16, rhythm="(N", ectopic={})
NAMES = [name for name in KINDS if name not in OVERLAYS]
LENGTH = {"": None, "beats": 6.0, "s": 20.0}
RATES = (Event("v_beat", Distribution(60, 60), None, 1.0), Event("fibrillation", Distribution(4, 4), Distribution(60, 60), 1.0))


def rhythm_with(places, record: int, bpm: float, duration_s: float, rates=(), host: Host = SINUS):
    """The rhythm of a record with events at these places, and others by chance."""
    habits = drawn_habits(generator(2, record, Stream.EVENTS))
    asked = Asked(tuple(rates), {event.name: event.per_hour.low for event in rates}, tuple(places),
                  lambda at: generator(2, record, Stream.PLACES, 1 + at))  # fmt: skip

    def order_of(rr_s, first):
        draws = generator(2, record, Stream.EVENTS, 1)
        return write_order(RhythmParameters(), host, habits, asked, rr_s, 60 / bpm, duration_s, draws, first)

    draws = generator(2, record, Stream.LONG_RHYTHM)
    return make_rhythm(RhythmParameters(), DonorRhythm(bpm, host.fibrillation), bpm, duration_s, draws, None, order_of, timed=True)


def scattered(record: int, duration_s: float) -> list[Place]:
    """One event about each two minutes, of any kind."""
    draws = np.random.default_rng(record)
    at = np.arange(20, duration_s - 100, 100) + draws.uniform(0, 20, len(np.arange(20, duration_s - 100, 100)))
    names = [NAMES[draws.integers(len(NAMES))] for _ in at]
    return [Place(None, name, float(time), 2.5 if name == "pause" else LENGTH[KINDS[name].unit])
            for name, time in zip(names, at, strict=True)]  # fmt: skip


@pytest.mark.parametrize("rates", [(), RATES], ids=["alone", "beside rates"])
@pytest.mark.parametrize("duration_s", [600, 7200])
def test_an_event_begins_within_a_beat_of_its_place(duration_s, rates):
    seen, missed_bpm = Counter(), []
    for record in range(12 if duration_s == 600 else 3):
        bpm = 45.0 + 60 * record / 11
        places = scattered(record, duration_s)
        rhythm = rhythm_with(places, record, bpm, duration_s, rates)
        r_s, rr = rhythm.r_s, np.diff(rhythm.r_s)
        begun = [(r_s[beat - (name in FROM_BEAT_BEFORE)], name) for beat, name in rhythm.order.events if beat < len(r_s)]
        for place in places:
            late_s = min(time - place.start_s for time, name in begun if name == place.event and time >= place.start_s)
            near = rr[(r_s[1:] > place.start_s - 4) & (r_s[1:] < place.start_s + 4)]
            assert late_s <= near.max() + 1e-9, place
            seen[place.event] += 1
        missed_bpm.append(abs(60 / rr.mean() - bpm))
    assert len(seen) > 20 and max(missed_bpm) < 1.0 and np.mean(np.array(missed_bpm) < WITHIN_BPM) > 0.6, missed_bpm


def test_alone_they_are_all_that_comes():
    places = [Place(None, "v_beat", 30.0, None), Place(None, "v_run", 60.0, 5.0)]
    rhythm = rhythm_with(places, 0, 70.0, 600)
    assert (rhythm.symbol == "V").sum() == 6 and [name for _, name in rhythm.order.events] == ["v_beat", "v_run"]


def test_what_is_placed_is_the_same_whatever_comes_beside_it():
    place = Place(None, "sv_run", 300.0, None)
    def lengths(rhythm):
        return [(rhythm.symbol[beat : beat + 200] != "N").argmin() for beat, name in rhythm.order.events if name == "sv_run"]
    alone, beside = rhythm_with([place], 1, 70.0, 600), rhythm_with([place], 1, 70.0, 600, RATES[:1])
    assert lengths(alone) == lengths(beside)


@pytest.mark.parametrize("bpm", [45.0, 70.0, 100.0])
def test_lengths_in_seconds_are_those_asked(bpm):
    places = [Place(None, "pause", 60.0 * at, 2.5) for at in range(1, 30)] + [Place(None, "fibrillation", 1900.0, 120.0)]
    rhythm = rhythm_with(places, 3, bpm, 2400)
    rr, order = np.diff(rhythm.r_s), rhythm.order
    pauses = np.array([rr[beat - 1] for beat, name in order.events if name == "pause"])
    assert len(pauses) == 29 and np.abs(pauses - 2.5).max() < 0.01
    ((first, stop, _),) = order.atrial
    assert 0 <= rhythm.r_s[stop - 1] - rhythm.r_s[first - 1] - 120 < rr[stop - 2] + 1e-9, "it ends with the first beat after"


def test_an_event_that_is_not_over_is_said():
    places = [Place(None, "v_bigeminy", 30.0, 40.0), Place(None, "sv_run", 41.0, 5.0)]
    with pytest.raises(Crowded, match="sv_run is to begin at 41 s, and what came before it ends at "):
        rhythm_with(places, 0, 60.0, 120)


@pytest.mark.parametrize("name", ["fibrillation", "v_bigeminy", "sv_run", "junctional", "wenckebach", "pacing"])
def test_a_drawn_length_leaves_room_for_the_next_place(name):
    """Else of many records with one table some could not be made."""
    places = [Place(None, name, 30.0, None), Place(None, "v_beat", 75.0, None)]
    for record in range(12):
        rhythm = rhythm_with(places, record, 50.0 + 5 * record, 200)
        (first, _), (beat, _) = rhythm.order.events
        assert rhythm.r_s[first] >= 30 and 75 <= rhythm.r_s[beat] < 75 + 1.5 * (rhythm.r_s[beat] - rhythm.r_s[beat - 1] + 1)


# Whole records ------------------------------------------------------------------------------------------------------------

TABLE = """record,event,start_s,length
,v_run,20,6
,posture,15,
0,fibrillation,40,30
0,pause,100,3
1,mobitz,60,20
1,st_episode,30,100
2,v_beat,80,
"""
ASKED = {"records": 4, "duration_s": 150, "batch": 4, "shard": 4, "seed": 5, "mix": {"labels": {"NORM": 1.0}}}


def planned(tmp_path: Path, table: str = TABLE, **changes):
    (tmp_path / "p.csv").write_text(table)
    return plan_of(tmp_path, **{**ASKED, "events": {"table": "p.csv"}, **changes}, bank="bundled", models="bundled")


def annotations(plan, synthesizer, start: int, stop: int):
    batch = LongBatch(synthesizer, query_source(plan.request, Path("unused"))(start, stop), lambda done: None)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    return ecg, pa.concat_tables(batch.tables(0)[1]).to_pandas()


def test_the_annotations_have_them_where_the_table_says(tmp_path):
    plan = planned(tmp_path)
    synthesizer = open_synthesizer(plan)
    ecg, rows = annotations(plan, synthesizer, 0, 4)
    for record in range(4):
        own = rows[rows.record == record]
        v = own["sample"][own.symbol == "V"].to_numpy() / 100
        assert len(v) == 6 + (record == 2) and 20 <= v[0] < 21.6
        assert own["sample"][own.aux == "posture"].tolist() == [1500]
        assert ("(AFIB" in set(own.aux)) == (record == 0) and ((own.symbol == LONE_P).any()) == (record == 1)
    first = rows[rows.record == 0]
    (start,), r = first["sample"][first.aux == "(AFIB"], first["sample"][first.symbol.isin(BEAT_SYMBOLS)].to_numpy()
    assert 39.8 <= start / 100 < 41.5 and set(first.aux[first.symbol == RHYTHM]) == {"(N", "(VT", "(AFIB"}
    at = np.diff(r).argmax()
    assert abs(np.diff(r)[at] - 300) <= 1 and 100 <= r[at] / 100 < 101.6
    second = rows[rows.record == 1]
    st = second[second.symbol == "s"]
    assert st["sample"].tolist() == [3000, 8000, 12_999] and st.aux.iloc[1].startswith("AST")
    again, more = annotations(plan, synthesizer, 2, 3)
    np.testing.assert_array_equal(again[0], ecg[2])
    assert more.equals(rows[rows.record == 2].reset_index(drop=True))


def test_the_run_needs_no_table_once_it_is_planned(tmp_path):
    plan = planned(tmp_path)
    (tmp_path / "p.csv").unlink()
    assert len(begin_records(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 1))) == 1


def test_records_get_donors_that_can_have_what_is_placed_or_are_refused_by_name(tmp_path):
    """Of STTC some have no clear P wave; of BIGU and PVC some are in fibrillation."""
    table = "event,start_s,length\nmobitz,30,20\n"
    plan = planned(tmp_path, table, records=24, mix={"labels": {"STTC": 0.5, "PVC": 0.5}})
    synthesizer = open_synthesizer(plan)
    begun = begin_records(synthesizer, query_source(plan.request, Path("unused"))(0, 24))
    assert all(len(one.atrial.lone) for one in begun)
    without = planned(tmp_path, "event,start_s,length\nv_beat,30,\n", records=24, mix={"labels": {"STTC": 0.5, "PVC": 0.5}})
    others = begin_records(open_synthesizer(without), query_source(without.request, Path("unused"))(0, 24))
    assert [one.donor_row for one in begun] != [one.donor_row for one in others], "some would have had another donor"
    one = replace(plan.request, mix=replace(plan.request.mix, labels=(("AFIB", 1.0),)), seed=3)
    with pytest.raises(UserError, match="record 0: mobitz is to begin at 30 s, but none of the donors for AFIB that are near"):
        begin_records(synthesizer.asked(**{"mix": one.mix}), query_source(one, Path("unused"))(0, 1))


def test_events_that_run_into_each_other_are_refused_by_their_record(tmp_path):
    plan = planned(tmp_path, "record,event,start_s,length\n3,v_bigeminy,30,40\n3,sv_run,41,5\n")
    with pytest.raises(UserError, match="record 3: sv_run is to begin at 41 s, and what came before it ends at"):
        begin_records(open_synthesizer(plan), query_source(plan.request, Path("unused"))(3, 4))


def test_an_event_in_fibrillation_may_go_on_far_beyond_the_record(tmp_path):
    table = "event,start_s,length\nv_trigeminy,50,4000\n"
    mix = {"labels": {"AFIB": 1.0}, "hr_bpm": 150}
    plan = planned(tmp_path, table, records=2, duration_s=61, batch=2, shard=2, mix=mix)
    for one in begin_records(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 2)):
        assert "(T" in [aux for _, aux in one.changes]


def test_av_blocks_are_among_them():
    assert AV_BLOCKS < set(NAMES)


def test_a_p_wave_that_the_end_of_the_record_cuts_is_annotated(tmp_path):
    """Of a complete block at the end, where P waves march on without regard to the beats."""
    table = "event,start_s,length\ncomplete_block,30,60\n"
    plan = planned(tmp_path, table, records=12, duration_s=61, batch=12, shard=12)
    batch = LongBatch(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 12), lambda done: None)
    list(batch.blocks())
    rows = pa.concat_tables(batch.tables(0)[1]).to_pandas()
    cut = 0
    for record, one in enumerate(batch._records):
        peaks = np.rint(one.atrial.lone[:, 1])
        found = rows["sample"][(rows.record == record) & (rows.symbol == LONE_P)]
        assert found.tolist() == peaks[(peaks >= 0) & (peaks < 6100)].tolist()
        cut += ((peaks < 6100) & (one.atrial.lone[:, 2] >= 6100)).sum()
    assert cut
