"""The table of places: a row is an event of a record, none is guessed, and what cannot come is named by its row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_batch.errors import UserError
from ecg_batch.request.model import request_from_resolved
from ecg_batch.request.parse import load_request
from ecg_batch.request.places import Place, all_places, places_of, read_places
from ecg_batch.run.folder import open_run
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.ask import mix_queries

HEAD = "record,event,start_s,length\n"


def asked(tmp_path, rows: str, events=None, **more):
    (tmp_path / "p.csv").write_text(rows if rows.startswith(("record", "event", "start")) else HEAD + rows)
    mix = {"labels": {"NORM": 1.0}}
    request = {"records": 4, "duration_s": 600, "mix": mix, "events": {"table": "p.csv"} | (events or {})} | more
    (tmp_path / "r.yaml").write_text(json.dumps(request))
    return load_request(tmp_path / "r.yaml")


@pytest.mark.parametrize(("rows", "says"), [
    ("record,event,strat_s\n0,v_beat,5\n", "needed event and start_s and, where asked, record and length, each once. Rename or "
     "drop the others, so that none is overlooked: strat_s (did you mean start_s?)"),
    ("event,event,start_s\nv_beat,v_beat,5\n", "each once"),
    (HEAD, "has no rows; needed one per event"),
    ("0,v_rum,5,\n", "row 1: event is 'v_rum' (did you mean v_run?)"),
    ("0,,5,\n", "row 1: event is blank"),
    ("0,v_beat,,\n", "row 1: start_s is blank"),
    ("0,v_beat,1 min,\n", "row 1: start_s is '1 min', not a number"),
    ("0,v_beat,5,\n0,v_beat,-1,\n", "1 of 2 rows cannot be made: row 2: start_s is -1, outside 0 to 597"),
    ("0,v_beat,600,\n", "row 1: start_s is 600, outside 0 to 597 (a record lasts 600 s"),
    ("4,v_beat,5,\n", "row 1: record is 4, outside 0 to 3; there are 4 records, counted from 0"),
    ("0.5,v_beat,5,\n", "row 1: record is 0.5, not a whole number"),
    ("0,v_beat,5,3\n", "row 1: length is 3, but v_beat has none; leave it blank"),
    ("0,v_run,5,2\n", "row 1: length is 2, outside 3 to 10000 beats of v_run"),
    ("0,pause,5,0.5\n", "row 1: length is 0.5, outside 1.2 to 10 s of pause"),
    ("0,fibrillation,5,inf\n", "length is inf, outside 1 to 86400 s"),
    ("0,fibrillation,5,30\n0,v_beat,20,\n", "row 2: v_beat at 20 s begins before fibrillation of row 1 ends, at 35 s at the earli"),
    ("0,v_beat,20,\n,fibrillation,5,30\n", "row 1: v_beat at 20 s begins before fibrillation of row 2 ends"),
    ("0,v_beat,5,\n0,sv_beat,5,\n", "row 2: sv_beat at 5 s begins before v_beat of row 1 ends"),
    ("0,v_run,5,40\n0,v_beat,10,\n", "ends, at 15 s at the earliest"),
    ("0,st_episode,5,200\n0,st_episode,50,20\n", "row 2: st_episode at 50 s begins before st_episode of row 1 ends"),
])  # fmt: skip
def test_what_cannot_come_is_refused_by_its_row(tmp_path, rows, says):
    with pytest.raises(UserError) as caught:
        read_places(asked(tmp_path, rows))
    assert says in str(caught.value) and "p.csv" in str(caught.value)


def test_no_file_and_a_path_to_nowhere_are_refused(tmp_path):
    with pytest.raises(UserError, match="events: cannot read table .*nothing.csv: no such file"):
        read_places(asked(tmp_path, HEAD, {"table": "nothing.csv"}))
    with pytest.raises(UserError, match="events.table is '~nobody-of-this-name/p.csv', which leads nowhere"):
        asked(tmp_path, HEAD, {"table": "~nobody-of-this-name/p.csv"})


def test_overlays_lie_over_anything(tmp_path):
    rows = "0,st_episode,5,200\n0,fibrillation,5,60\n0,posture,5,\n0,posture,6,\n0,v_beat,100,\n"
    assert len(read_places(asked(tmp_path, rows)).splitlines()) == 6


def test_a_record_has_its_own_rows_and_those_of_every_record_by_time(tmp_path):
    request = make_plan(asked(tmp_path, "1,v_beat,50,\n,pause,30,2\n1,v_run,20,5\n"))[0].request
    assert request.events is None and request.has_events
    assert [one.event for one in places_of(request, 1)] == ["v_run", "pause", "v_beat"]
    assert places_of(request, 0) == [Place(None, "pause", 30.0, 2.0)]


def test_what_the_table_holds_is_the_request_and_not_its_path_nor_its_order(tmp_path):
    plan, _ = make_plan(asked(tmp_path, "0,v_beat,5,\n0,pause,50,2\n"))
    resolved = json.loads(json.dumps(plan.request.resolved()))
    assert "places_table" not in resolved and "events" not in resolved
    assert request_from_resolved(resolved, plan.request.bank, plan.request.models).places == plan.request.places
    same, _ = make_plan(asked(tmp_path, "event,start_s,length,record\npause,50.0,2.0,0\nv_beat,5,,0\n"))
    table = {"record": [0, 0], "event": ["v_beat", "pause"], "start_s": [5.0, 50.0], "length": [None, 2.0]}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    parquet, _ = make_plan(asked(tmp_path, HEAD, {"table": "p.parquet"}))
    other, _ = make_plan(asked(tmp_path, "0,v_beat,5,\n0,pause,50,2.1\n"))
    assert plan.request.places == "record,event,start_s,length\n0,v_beat,5.0,\n0,pause,50.0,2.0"
    assert all_places(plan.request) == [Place(0, "v_beat", 5.0, None), Place(0, "pause", 50.0, 2.0)]
    assert plan.run_id == same.run_id == parquet.run_id != other.run_id


def test_a_length_that_is_drawn_may_be_as_short_as_the_request_says(tmp_path):
    rows = "0,fibrillation,20,\n0,v_beat,45,\n"
    assert read_places(asked(tmp_path, rows, {"fibrillation": {"length": {"uniform": [10, 20]}}}))
    with pytest.raises(UserError, match="row 2: v_beat at 45 s begins before fibrillation of row 1 ends, at 50 s"):
        read_places(asked(tmp_path, rows))


def test_rules_say_which_beat_comes_with_a_table_too(tmp_path):
    assert asked(tmp_path, "0,v_beat,45,\n").rhythm.order == "rules"
    with pytest.raises(UserError, match="rhythm.order is mamba, but with events rules say which beat comes"):
        asked(tmp_path, "0,v_beat,45,\n", rhythm={"order": "mamba"})


def test_a_table_may_stand_beside_rates_and_is_no_event(tmp_path):
    request = asked(tmp_path, "0,v_beat,5,\n", {"sv_beat": 20})
    assert [event.name for event in request.events] == ["sv_beat"]


def test_with_vary_a_record_is_a_set(tmp_path):
    vary = {"vary": {"snr_db": [0, 12]}, "noise": {}}
    assert read_places(asked(tmp_path, "1,v_beat,5,\n", **vary))
    with pytest.raises(UserError, match="record is 2, outside 0 to 1; there are 2 sets, counted from 0"):
        read_places(asked(tmp_path, "2,v_beat,5,\n", **vary))


def test_a_label_that_is_another_rhythm_is_refused_when_it_is_planned(tmp_path):
    mix = {"labels": {"AFIB": 0.5, "NORM": 0.5}}
    with pytest.raises(UserError, match="every record is to have sv_run at 5 s, but label AFIB means another rhythm"):
        make_plan(asked(tmp_path, ",sv_run,5,4\n", mix=mix))
    label = mix_queries(asked(tmp_path, HEAD, mix=mix), 0, 4).label
    for record in range(4):
        request = asked(tmp_path, f"{record},sv_run,5,4\n", mix=mix)
        if label[record] == "NORM":
            assert make_plan(request)
        else:
            with pytest.raises(UserError, match=f"record {record} is to have sv_run at 5 s, but label AFIB"):
                make_plan(request)
    assert set(label) == {"AFIB", "NORM"} and make_plan(asked(tmp_path, ",v_run,5,4\n,posture,20,\n", mix=mix))


def test_beats_that_nobody_lends_are_refused_when_it_is_planned(tmp_path):
    with pytest.raises(UserError, match="events pre_excitation need the preexcited beats of other patients"):
        make_plan(asked(tmp_path, "0,pre_excitation,5,10\n", donor_folds=[3]))


def test_another_table_is_another_run(tmp_path):
    open_run(*make_plan(asked(tmp_path, "0,v_beat,5,\n")), tmp_path / "run")
    with pytest.raises(UserError, match=r"holds another run: the table of events is not the same\. A folder holds one run"):
        open_run(*make_plan(asked(tmp_path, "0,v_beat,6,\n")), tmp_path / "run")
    with pytest.raises(UserError, match=r"seed is 0 there and 5 here; the table of events is not the same"):
        open_run(*make_plan(asked(tmp_path, "0,v_beat,6,\n", seed=5)), tmp_path / "run")
