"""ST episodes and changes of posture: as high as annotated, where annotated, over whatever stretch of a record is made."""

import re

import numpy as np
import pytest

from ecg_batch.leads import twelve_leads
from ecg_batch.request.events import KINDS, OVERLAYS
from ecg_batch.request.model import Distribution, Event
from ecg_batch.request.places import Place
from ecg_batch.synthesis.long.events.overlays import ST_MV, Overlays, Posture, StEpisode, drawn_overlays
from ecg_batch.synthesis.long.events.patient import Asked

FS, SAMPLES = 100, 60_000
R = np.arange(40, SAMPLES, 80)
J, T_END = R + 5.0, R + 35.0
EVENTS = (Event("st_episode", Distribution(20, 20), Distribution(120, 120), 1.0), Event("posture", Distribution(60, 60), None, 1.0))


@pytest.fixture(scope="module")
def drawn():
    return overlays({"st_episode": 20.0, "posture": 60.0}, np.arange(8.0), seed=4)


def overlays(rates: dict[str, float], level: np.ndarray, seed: int, places=()) -> Overlays:
    draws = np.random.default_rng(seed), np.random.default_rng(99)
    return drawn_overlays(Asked(EVENTS, rates), tuple(places), SAMPLES, FS, level, J, T_END, *draws)


def only(drawn, **parts) -> Overlays:
    return Overlays(FS, drawn.level, parts.get("st", []), parts.get("postures", []), J, T_END)


def test_they_come_as_often_as_asked():
    counts = np.zeros(2)
    for seed in range(40):
        made = overlays({"st_episode": 6.0, "posture": 30.0}, np.zeros(8), seed)
        counts += len(made.st), len(made.postures)
        ends = [(one.start, one.stop) for one in made.st]
        assert all(before[1] <= after[0] for before, after in zip(ends[:-1], ends[1:], strict=True)), "one at a time"
    asked = 40 * SAMPLES / FS / 3600 * np.array([6, 30])
    assert (np.abs(counts - asked) < 4 * np.sqrt(asked)).all() and set(OVERLAYS) <= set(KINDS)


def test_one_of_drawn_length_ends_where_the_next_has_its_place():
    places = [Place(None, "st_episode", 5.0, None), Place(None, "posture", 10.0, None), Place(None, "st_episode", 20.0, 30.0)]
    made = overlays({}, np.zeros(8), 3, places)
    assert [(one.start, one.stop) for one in made.st] == [(5 * FS, 20 * FS), (20 * FS, 50 * FS)]


def test_an_st_episode_is_as_high_as_its_annotation_says(drawn):
    assert drawn.st
    for one in drawn.st:
        out = only(drawn, st=[one]).put_over(np.zeros((8, SAMPLES)), 0)
        twelve = twelve_leads(np.rint(out).astype(np.int64))
        note = next(aux for _, symbol, aux in only(drawn, st=[one]).annotations() if aux.startswith("AST"))
        lead, sign, height_uv = re.fullmatch(r"AST([0-9]+)([-+])([0-9]+)", note).groups()
        middle = (one.start + one.stop) / 2
        beat = int(np.argmin(np.abs(J - middle)))
        found = twelve[int(lead), int(J[beat]) + 6]  # 60 ms after J
        assert abs(found - float(f"{sign}{height_uv}")) < 0.08 * float(height_uv) + 3
        assert 1000 * ST_MV[0] - 3 <= int(height_uv) <= 1000 * ST_MV[1] + 3
        assert np.abs(twelve[:, int(J[beat]) + 6]).max() == abs(found), "in the lead in which it is highest"


def test_nothing_moves_outside_st_and_outside_the_episode(drawn):
    one = drawn.st[0]
    out = only(drawn, st=[one]).put_over(np.zeros((8, SAMPLES)), 0)
    inside = np.zeros(SAMPLES, bool)
    for j, end in zip(J, T_END, strict=True):
        inside[int(j) : int(end) + 1] = True
    assert not out[:, ~inside].any() and not out[:, : one.start].any() and not out[:, one.stop :].any()
    assert np.abs(np.diff(out, axis=1)).max() < 0.25 * np.abs(out).max(), "it rises and falls without a step"


def test_a_posture_lasts_until_the_next(drawn):
    first, second = np.eye(8) * 1.1, np.eye(8) * 0.9
    over = only(drawn, postures=[Posture(1000, first), Posture(3000, second)])
    x = np.random.default_rng(0).normal(0, 100, (8, 5000)) + drawn.level[:, None]
    out, about = over.put_over(x, 0), x - drawn.level[:, None]
    np.testing.assert_allclose(out[:, :1000], x[:, :1000])
    np.testing.assert_allclose(out[:, 1300:3000] - drawn.level[:, None], 1.1 * about[:, 1300:3000])
    np.testing.assert_allclose(out[:, 3300:] - drawn.level[:, None], 0.9 * about[:, 3300:])
    assert over.annotations() == [(1000, '"', "posture"), (3000, '"', "posture")]


def test_any_stretch_is_what_it_is_in_the_whole(drawn):
    x = np.random.default_rng(1).normal(0, 100, (8, SAMPLES))
    whole = drawn.put_over(x.copy(), 0)
    assert np.abs(whole - x).max() > 50
    for start, stop in ((0, 6000), (drawn.st[0].start - 10, drawn.st[0].start + 500), (5999, 6001), (59_000, SAMPLES)):
        np.testing.assert_allclose(drawn.put_over(x[:, start:stop].copy(), start), whole[:, start:stop], atol=1e-9)


def test_a_beat_without_a_mark_of_its_t_is_taken_to_last_as_usual(drawn):
    one = StEpisode(0, SAMPLES, np.full(8, 100.0))
    over = Overlays(FS, drawn.level, [one], [], J, np.full(len(J), np.nan))
    out = over.put_over(np.zeros((8, SAMPLES)), 0)
    middle = int(np.argmin(np.abs(J - SAMPLES / 2)))
    assert out[0, int(J[middle]) + 6] > 90 and out[0, int(J[middle]) + 30] == 0
