"""Activity: the rate surges and falls back, muscles are heard as loud as annotated, and nothing else of a record changes."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from making import plan_of

from ecg_batch.dataset.beats import BEAT_SYMBOLS
from ecg_batch.request.model import Distribution, Event
from ecg_batch.request.places import Place
from ecg_batch.signal.filters import low_pass
from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.long.events.activity import FALLS_S, RISE_BY, SNR_DB, Activity, drawn_activity, most_surge, quickened
from ecg_batch.synthesis.long.events.patient import Asked
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

ASKED = {"records": 6, "duration_s": 900, "batch": 6, "shard": 6, "seed": 5,
         "mix": {"labels": {"NORM": 1.0}, "hr_bpm": {"uniform": [60, 80]}, "age": {"uniform": [25, 50]}}}  # fmt: skip
START, STOP = 300, 500


def batch_of(tmp_path, **changes):
    plan = plan_of(tmp_path, **{**ASKED, **changes}, bank="bundled", models="bundled")
    batch = LongBatch(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 6), lambda done: None)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    rows, beats = batch.tables(0)
    return batch, ecg, rows.to_pandas(), pa.concat_tables(beats).to_pandas()


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placed")
    (folder / "p.csv").write_text(f"event,start_s,length\nactivity,{START},{STOP - START}\n")
    return batch_of(folder, events={"table": "p.csv"})


def rate(rows, start_s: float, stop_s: float) -> float:
    r = rows["sample"][rows.symbol.isin(BEAT_SYMBOLS)].to_numpy() / 100
    return 60 / np.median(np.diff(r[(r >= start_s) & (r < stop_s)]))


def test_the_rate_rises_and_falls_back_and_its_mean_is_the_asked_one(placed):
    batch, _, _, beats = placed
    risen = []
    for record, rows in beats.groupby("record"):
        before, active, after = rate(rows, 0, START), rate(rows, START + 90, STOP), rate(rows, STOP + 4 * FALLS_S[1], 900)
        risen.append(2 * active / (before + after) - 1)
        assert abs(after / before - 1) < 0.15
        r = rows["sample"][rows.symbol.isin(BEAT_SYMBOLS)].to_numpy() / 100
        assert abs(60 / np.diff(r).mean() - batch._records[record].hr_bpm) < 0.5
    assert RISE_BY[0] - 0.15 < min(risen) and 0.4 < max(risen) < RISE_BY[1] + 0.15, "and slow variation beside it"


def test_its_noise_is_as_loud_as_its_annotation_says(placed):
    batch, ecg, rows, beats = placed
    assert "snr_db" not in rows.columns, "which are of `noise`"
    for record, own in beats.groupby("record"):
        notes = own[own.symbol == '"']
        assert list(zip(notes["sample"], notes.aux, strict=True)) == [(100 * START, "activity"), (100 * STOP - 1, "activity ends")]
        begins, ends = own.aux[own.aux.str.startswith("noise")]
        snr_db = float(re.fullmatch(r"noise muscle ([0-9.]+) dB", begins)[1])
        assert ends == "noise ends" and SNR_DB[0] <= snr_db <= SNR_DB[1]
        assert abs(batch._active[record].known().snr_db - snr_db) < 0.1
        fast = ecg[record].astype(float) - low_pass(ecg[record].astype(float), 25, 100)
        quiet = np.median(np.abs(fast[:, : 100 * START]))
        assert np.median(np.abs(fast[:, 100 * START + 100 : 100 * STOP - 100])) > 1.3 * quiet


def test_records_without_it_stay_as_they_were(tmp_path):
    others = {"v_beat": 60, "posture": 10}
    _, with_ecg, _, beats = batch_of(tmp_path, events=others | {"activity": {"per_hour": 10, "share": 0.5}})
    _, ecg, _, plain = batch_of(tmp_path, events=others)
    active = set(beats.record[beats.aux == "activity"])
    assert 0 < len(active) < 6
    for record in range(6):
        assert np.array_equal(ecg[record], with_ecg[record]) == (record not in active)
        assert (record in active) or beats[beats.record == record].equals(plain[plain.record == record].set_index(
            beats.index[beats.record == record]))  # fmt: skip


def test_noise_that_is_asked_for_comes_beside_it(tmp_path):
    batch, _, rows, beats = batch_of(tmp_path, records=2, duration_s=300, batch=2, shard=2, noise={"kinds": {"baseline": 1}},
                                     events={"activity": {"per_hour": 60, "length": 20}})  # fmt: skip
    assert all("muscle" in kinds for kinds in rows.noise_kinds)


def test_it_comes_as_often_as_asked_and_one_at_a_time():
    asked = Asked((Event("activity", Distribution(3, 3), Distribution(100, 300), 1.0),), {"activity": 3.0})
    found = [drawn_activity(asked, (), 36_000, 9.0, np.random.default_rng(seed), None) for seed in range(20)]
    assert abs(sum(map(len, found)) - 600) < 3.5 * 600**0.5
    for each in found:
        assert all(one.stop_s <= other.start_s for one, other in zip(each[:-1], each[1:], strict=True))
    places = (Place(None, "activity", 100.0, 900.0),)
    one = drawn_activity(asked, places, 3600, 9.0, np.random.default_rng(0), np.random.default_rng(1))
    assert (100.0, 1000.0) in [(each.start_s, each.stop_s) for each in one]


def test_one_of_drawn_length_ends_where_the_next_has_its_place(tmp_path):
    """Its noise is made in one piece, and two at once put it over samples that are not there."""
    (tmp_path / "p.csv").write_text("event,start_s,length\nactivity,50,\nactivity,85,5\n")
    batch, _, _, beats = batch_of(tmp_path, records=2, duration_s=300, batch=2, shard=2, events={"table": "p.csv"})
    assert all(record.overlays.active == ((5000, 8500), (8500, 9000)) for record in batch._records)
    assert beats["sample"][beats.aux == "noise ends"].tolist() == [9000] * len(batch._records)


def test_the_rate_has_no_step_and_stays_below_what_age_allows():
    time_s, one = np.arange(0, 1000, 0.25), Activity(100, 300, 0.8, 10, 30)
    rr_s = quickened(np.full(4000, 0.8), time_s, [one, Activity(320, 400, 0.2, 30, 60)])
    assert np.abs(np.diff(rr_s)).max() < 0.02 and np.allclose(rr_s[:400], 0.8) and abs(rr_s[1199] - 0.8 / 1.8) < 1e-3
    assert 70 * (1 + most_surge(60.0, 70.0)) < 208 - 0.7 * 60 and most_surge(90.0, 130.0) == 0.1
