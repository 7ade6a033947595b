"""The key `events`: what may be asked, and what is said of what may not."""

import json

import pytest

from ecg_batch.errors import UserError
from ecg_batch.request.events import KINDS
from ecg_batch.request.model import Distribution, request_from_resolved
from ecg_batch.request.parse import load_request


def asked(tmp_path, events, **more):
    path = tmp_path / "request.yaml"
    path.write_text(json.dumps({"records": 4, "duration_s": 3600, "mix": {"labels": {"NORM": 1}}, "events": events} | more))
    return load_request(path)


@pytest.mark.parametrize(("events", "says"), [
    ({"v_rum": 5}, "unknown key 'events.v_rum' (did you mean v_run?)"),
    ({"v_run": {"per_hour": 5, "lenght": 5}}, "unknown key 'events.v_run.lenght' (did you mean length?); known keys: length, per"),
    ({"v_run": {"length": 0}}, "events.v_run.length is 0; needed a number from 1 to 86400"),
    ({"v_run": {"length": 2}}, "events.v_run.length reaches from 2 to 2 beats; needed 3 to 10000 beats"),
    ({"v_run": {"share": 1.5}}, "events.v_run.share is 1.5; needed a number from 0 to 1"),
    ({"v_run": {"per_hour": 0}}, "events.v_run.per_hour is 0; needed a number from 0.01 to 3600"),
    ({"v_run": {"length": "1 min"}}, "events.v_run.length is '1 min'; needed a number"),
    ({"v_run": True}, "events.v_run is True; needed how often an hour"),
    ({"v_beat": {"length": 3}}, "events.v_beat.length is given, but these beats come one by one"),
    ({"pause": {"length": 30}}, "events.pause.length reaches from 30 to 30 s; needed 1.2 to 10 s"),
    ({"activity": {"length": 3600}}, "events.activity.length reaches from 3600 to 3600 s; needed 5 to 900 s"),
    ({"fibrillation": {"per_hour": 20, "length": 400}}, "fibrillation would take 222 % of the time at 20 an hour of about 400.0 s"),
    ({name: {"per_hour": 10, "length": 200} for name in ("fibrillation", "mobitz")}, "events would take 111 % of the time in"),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_its_key(tmp_path, events, says):
    with pytest.raises(UserError) as caught:
        asked(tmp_path, events)
    assert says in str(caught.value)


def test_records_of_ten_seconds_have_none(tmp_path):
    with pytest.raises(UserError, match="events is given, but a record of 10 s keeps its donor's own rhythm"):
        asked(tmp_path, {}, duration_s=10)


def test_a_number_is_a_rate_of_every_record_and_nothing_is_the_defaults_of_all(tmp_path):
    (event,) = asked(tmp_path, {"v_beat": 60}).events
    assert (event.name, event.per_hour, event.length, event.share) == ("v_beat", Distribution(60, 60), None, 1.0)
    every = asked(tmp_path, {}).events
    assert [event.name for event in every] == list(KINDS) and [event.share for event in every] == [k.share for k in KINDS.values()]
    (half,) = asked(tmp_path, {"sv_run": {"share": 0.5}}).events
    assert half.share == 0.5 and half.length == Distribution(3, 120)


def test_a_plan_gives_them_back(tmp_path):
    request = asked(tmp_path, {"sv_run": {"per_hour": {"normal": [5, 2]}, "length": {"uniform": [3, 9]}}, "posture": 3})
    resolved = json.loads(json.dumps(request.resolved()))
    assert request_from_resolved(resolved, request.bank, request.models).events == request.events
    with pytest.raises((TypeError, KeyError, ValueError)):
        request_from_resolved(resolved | {"events": [{"name": "v_run"}]}, request.bank, request.models)
