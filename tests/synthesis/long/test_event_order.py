"""The order of beats with events: as often and as long as asked, whatever the heart does."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_batch.draws import Stream, generator
from ecg_batch.request.events import KINDS, OVERLAYS
from ecg_batch.request.parse import load_request
from ecg_batch.synthesis.long.events.order import Form, Order
from ecg_batch.synthesis.long.events.patient import Asked, Host, drawn_habits, drawn_rates
from ecg_batch.synthesis.long.events.write_order import write_order
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm

SINUS = Host(sinus=True, fibrillation=False, pr_s=0.16, rhythm="(N", ectopic={})


def ordered(tmp_path, events: dict, record: int, duration_s: int = 4 * 3600, host: Host = SINUS, bpm: float = 75.0):
    """The rhythm of a record that has these events."""
    request = load_request(written(tmp_path, events))
    draws = generator(1, record, Stream.EVENTS)
    habits, per_hour = drawn_habits(draws), drawn_rates(request.events, draws)

    asked = Asked(request.events, per_hour)

    def order_of(rr_s, first):
        return write_order(request.rhythm, host, habits, asked, rr_s, 60 / bpm, duration_s,
                           generator(1, record, Stream.EVENTS, 1), first)  # fmt: skip

    draws = generator(1, record, Stream.LONG_RHYTHM)
    return make_rhythm(request.rhythm, DonorRhythm(bpm, host.fibrillation), bpm, duration_s, draws, None, order_of,
                       asked.timed_in(host))  # fmt: skip


def written(tmp_path, events: dict) -> Path:
    import json

    path = tmp_path / "request.yaml"
    path.write_text(json.dumps({"records": 4, "duration_s": 3600, "mix": {"labels": {"NORM": 1.0}}, "events": events}))
    return path


def test_beats_reach_the_end_of_the_record_whatever_slow_rhythms_took(tmp_path):
    """An escape rhythm keeps its own rate, so beside it the mean rate asks for many more beats than were planned."""
    events = {"complete_block": {"per_hour": 10, "length": 300}}
    for record in range(12):
        for bpm in (64.0, 100.0):
            rhythm = ordered(tmp_path, events, record, 480, bpm=bpm)
            assert len(rhythm.order.form) > len(rhythm.r_s) and rhythm.r_s[-1] > 480 - 3


@pytest.mark.parametrize("name", [name for name in KINDS if name not in OVERLAYS])
def test_an_event_comes_as_often_as_asked(tmp_path, name):
    """Twelve hours: the count of a Poisson process, within three of its standard deviations and a tenth for what events take."""
    rate = 3.0 if KINDS[name].unit == "s" else 30.0
    length = {} if not KINDS[name].unit else {"length": 2.5 if name == "pause" else 30 if KINDS[name].unit == "s" else 6}
    counts = 0
    for record in range(3):
        rhythm = ordered(tmp_path, {name: {"per_hour": rate, "share": 1.0, **length}}, record)
        begun = [beat for beat, event in rhythm.order.events if beat < len(rhythm.r_s)]
        assert {event for _, event in rhythm.order.events} == {name}
        counts += len(begun)
    assert abs(counts - 12 * rate) < 3 * np.sqrt(12 * rate) + 0.1 * 12 * rate


def test_events_do_not_crowd_each_other_out(tmp_path):
    """Half of the time is taken by fibrillation, and beats come as often as asked."""
    rhythm = ordered(tmp_path, {"fibrillation": {"per_hour": 6, "length": 300}, "sv_beat": 60}, 0, 12 * 3600)
    counts = Counter(event for beat, event in rhythm.order.events if beat < len(rhythm.r_s))
    assert abs(counts["sv_beat"] - 720) < 130 and abs(counts["fibrillation"] - 72) < 26
    inside = sum(rhythm.r_s[min(stop, len(rhythm.r_s) - 1)] - rhythm.r_s[first]
                 for first, stop, _ in rhythm.order.atrial if first < len(rhythm.r_s))  # fmt: skip
    assert 0.35 < inside / (12 * 3600) < 0.65


def test_lengths_are_those_asked(tmp_path):
    events = {"pause": {"per_hour": 20, "length": 3}, "v_run": {"per_hour": 20, "length": 7}}
    rhythm = ordered(tmp_path, events | {"fibrillation": {"per_hour": 3, "length": 120}}, 2)
    rr, symbol, order = np.diff(rhythm.r_s), rhythm.symbol, rhythm.order
    count = len(rhythm.r_s)
    pauses = [rr[beat - 1] for beat, event in order.events if event == "pause" and 0 < beat < count]
    assert len(pauses) > 40 and np.abs(np.array(pauses) - 3).max() < 0.01
    runs = [beat for beat, event in order.events if event == "v_run" and beat + 8 < count]
    assert len(runs) > 40 and all((symbol[beat : beat + 7] == "V").all() and symbol[beat + 7] == "N" for beat in runs)
    lengths = [rhythm.r_s[stop - 1] - rhythm.r_s[first - 1] for first, stop, _ in order.atrial if stop < count]
    assert lengths and np.abs(np.array(lengths) - 120).max() < 4
    assert abs(60 / rr.mean() - 75) < 0.5, "the mean rate stays the asked one"


@pytest.mark.parametrize("bpm", [45.0, 60.0, 95.0])
def test_a_pause_is_as_long_as_asked_however_slow_the_heart(tmp_path, bpm):
    rhythm = ordered(tmp_path, {"pause": {"per_hour": 60, "length": 2.2}, "v_beat": 60}, 4, 3600, bpm=bpm)
    rr = np.diff(rhythm.r_s)
    pauses = np.array([rr[beat - 1] for beat, event in rhythm.order.events if event == "pause" and beat < len(rhythm.r_s)])
    assert len(pauses) > 30 and abs(60 / rr.mean() - bpm) < 1
    assert np.mean(np.abs(pauses / 2.2 - 1) < 0.01) > 0.9 and pauses.min() > 2.19, "or 1.3 of a long RR"


@pytest.mark.parametrize("name", ["fibrillation", "flutter", "branch_block", "pre_excitation", "av_block_1", "wenckebach", "mobitz",
                                  "complete_block", "pacing"])  # fmt: skip
def test_other_lengths_in_seconds_are_met_to_a_beat_or_a_group(tmp_path, name):
    """Found between the first and the last beat, at 45 bpm, where a beat is longest."""
    rhythm = ordered(tmp_path, {name: {"per_hour": 10, "length": 60}}, 5, 2 * 3600, bpm=45.0)
    r_s, order, lengths = rhythm.r_s, rhythm.order, []
    begun = [beat for beat, _ in order.events if beat < len(r_s)]
    for first, after in zip(begun, [*begun[1:], len(r_s)], strict=True):
        forms = np.array(order.form[first:after])
        last = first + int(np.flatnonzero(forms != Form.OWN).max(initial=0))
        lengths.append(r_s[last] - r_s[first - 1])
    usual = np.median(lengths)
    assert len(lengths) > 8 and 57 < usual < 66, lengths


def test_the_share_of_records_that_have_it(tmp_path):
    request = load_request(written(tmp_path, {"v_beat": {"per_hour": 10, "share": 0.3}}))
    have = sum("v_beat" in drawn_rates(request.events, generator(1, record, Stream.EVENTS)) for record in range(1000))
    assert 250 < have < 350


def test_a_heart_in_fibrillation_has_ventricular_events_alone(tmp_path):
    host = Host(sinus=False, fibrillation=True, pr_s=0.16, rhythm="(AFIB", ectopic={})
    rhythm = ordered(tmp_path, {name: 20 for name in ("v_beat", "sv_run", "sv_beat", "sv_blocked")}, 0, host=host)
    assert {event for _, event in rhythm.order.events} == {"v_beat"}
    assert np.diff(rhythm.r_s).std() / np.diff(rhythm.r_s).mean() > 0.12


def test_what_the_donor_shows_stays_where_nothing_else_is_asked(tmp_path):
    host = Host(sinus=True, fibrillation=False, pr_s=0.16, rhythm="(N", ectopic={"V": 0.1})
    assert 0.07 < (ordered(tmp_path, {"pause": 1}, 0, host=host).symbol == "V").mean() < 0.13
    assert (ordered(tmp_path, {"v_beat": 1}, 0, host=host).symbol == "V").mean() < 0.01


def test_a_rhythm_of_which_one_beat_is_left_keeps_its_name():
    order = Order(changes=[(0, "(N"), (3, "(IVR")])
    assert order.rhythms(np.arange(4.0)) == [(0, "(N"), (3, "(IVR")]
    assert order.rhythms(np.array([0, 1, 2, 3, 3.4, 3.8])) == [(0, "(N"), (3, "(VT")]


def test_hosts_without_a_p_wave_have_no_av_block(tmp_path):
    host = replace(SINUS, has_p=False)
    events = {"mobitz": {"per_hour": 20, "length": 20}, "wenckebach": {"per_hour": 20, "length": 20}, "v_beat": 20}
    rhythm = ordered(tmp_path, events, 0, host=host)
    assert {event for _, event in rhythm.order.events} == {"v_beat"}
