"""Marks of donors carried into records of 10 s: each lies where the record shows what the donor has there, whatever was asked."""

from dataclasses import replace

import numpy as np
import pytest
from making import PUBLISHED, make_all, plan_of

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.beats import AFTER, BEAT_SYMBOLS, BEFORE, RHYTHM, WAVES, beats_table, in_order, waves_ms
from ecg_batch.donors.bank import read_bank
from ecg_batch.signal.beats import beat_types
from ecg_batch.signal.interpolate import catmull_rom
from ecg_batch.synthesis.annotate import batch_beats, carried, stated
from ecg_batch.synthesis.batch import make_batch
from ecg_batch.synthesis.donor_marks import bank_marks, rhythms_of
from ecg_batch.synthesis.retime import donor_loop, read_loop, time_beats
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

FASTEST_RR = 6000 / 220  # samples; guarantee E2 is for rates up to this
DRAWS = np.random.default_rng(5)
LABELS = {"NORM": 0.3, "AFIB": 0.2, "PVC": 0.2, "PAC": 0.1, "PACE": 0.1, "CD": 0.1}


@pytest.fixture(scope="module")
def real():
    return read_bank(BUNDLED)


@pytest.fixture(scope="module")
def marks(real):
    return bank_marks(real)


def timings_of(real, donors, ratio, rr_cv):
    """A record of 10 s of each donor at so many times its own rate."""
    factors = 1 + rr_cv * DRAWS.standard_normal((len(donors), 64)).clip(-2, 2)
    each = zip(donors, factors, DRAWS.random((len(donors), 2)), strict=True)
    return [time_beats(donor_loop(real, d), 6000 / (ratio * real.table.hr_bpm[d]), 1000, 100, u, f if rr_cv else None)
            for d, f, u in each]  # fmt: skip


@pytest.mark.parametrize("rr_cv", [0.0, 0.15])
@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_each_mark_shows_the_donor_time_that_is_marked_there(real, marks, ratio, rr_cv):
    """The law of the map, on donors of every kind: time_beats says which loop time an output sample shows."""
    donors = DRAWS.choice(np.flatnonzero(ratio * real.table.hr_bpm < 170), 200, replace=False)
    timings = timings_of(real, donors, ratio, rr_cv)
    record, r, _, found, _ = carried(marks, donors, timings, 1000, 100)
    checked = 0
    for at, (donor, timing) in enumerate(zip(donors, timings, strict=True)):
        mine = record == at
        assert set(timing.r_sample) <= set(r[mine])
        beat = np.flatnonzero(np.isin(timing.placed[:-1], r[mine]))
        if np.diff(timing.placed).min() < FASTEST_RR:
            continue
        checked += 1
        loop, own = donor_loop(real, donor), marks.wave_ms[donor, marks.first[donor] + timing.source[beat]] / 10
        unrolled = timing.corners[1][::5][beat]
        assert np.array_equal(unrolled % loop.loop.shape[1], loop.r_sample[timing.source[beat]] % loop.loop.shape[1])
        assert np.array_equal(np.isnan(own), np.isnan(found[mine]))
        np.testing.assert_allclose(np.interp(found[mine], *timing.corners), unrolled[:, None] + own, atol=1e-4)
        inside = (found[mine] >= 0) & (found[mine] < 999)
        before, wanted = found[mine][inside].astype(int), (unrolled[:, None] + own)[inside]
        assert (timing.donor_time[before] <= wanted + 1e-4).all() and (wanted <= timing.donor_time[before + 1] + 1e-4).all()
    assert checked > 120


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.4])
def test_a_record_shows_at_each_mark_what_its_donor_shows_there(real, marks, ratio):
    """On samples: the noise-free record at the carried mark against the loop at the donor's. Beside a compressed TP segment there
    are too few samples for what lies between them, at one mark of some hundred.
    """
    donors = DRAWS.choice(len(real.table), 100, replace=False)
    timings = timings_of(real, donors, ratio, 0.1)
    record, r, _, found, _ = carried(marks, donors, timings, 1000, 100)
    off_uv, later_uv = [], []  # at the mark, and a sample later
    for at, (donor, timing) in enumerate(zip(donors, timings, strict=True)):
        loop, mine = donor_loop(real, donor), record == at
        made = read_loop(loop, timing.donor_time)  # (lead, time)
        inside = (found[mine] >= 2) & (found[mine] <= 996)
        beat = timing.source[:-1][np.isin(timing.placed[:-1], r[mine])]
        own = loop.r_sample[beat][:, None] + marks.wave_ms[donor, marks.first[donor] + beat] / 10
        donors_own, where = read_loop(loop, own[inside]), found[mine][inside]
        off_uv += [*np.abs(catmull_rom(made.T, where).T - donors_own).max(axis=0)]
        later_uv += [*np.abs(catmull_rom(made.T, where + 1).T - donors_own).max(axis=0)]
    assert np.median(off_uv) < 1 and np.quantile(off_uv, 0.99) < 40
    assert np.median(later_uv) > 15 and np.quantile(later_uv, 0.99) > 150, "a mark that is a sample off would be noticed"


def test_marks_of_the_whole_bank_are_in_order_and_of_each_beat(real, marks):
    there = real.r_sample[:, : marks.symbol.shape[1]] >= 0
    assert in_order(marks.wave_ms[there]) and set(marks.symbol[there]) == {"N", "V", "A", "/", "Q"} < set(BEAT_SYMBOLS)
    assert not np.isnan(marks.wave_ms[there][:, 3:5]).any(), "each beat has a QRS"
    afib, ventricular = rhythms_of(real.table, np.arange(len(real.table))) == "(AFIB", marks.symbol == "V"
    for without in (there & afib[:, None], there & ventricular):
        assert without.sum() > 200 and np.isnan(marks.wave_ms[without][:, :3]).mean() > 0.9
    for donor in range(40):
        r = real.beats(donor)
        assert r[marks.first[donor]] >= real.loop_start[donor] and (r[: marks.first[donor]] < real.loop_start[donor]).all()
        assert np.array_equal(beat_types(real.skeleton[donor].astype(float), r, 100), real.beat_type[donor][: len(r)])


def test_a_bank_without_types_of_beats_has_the_same_marks(real, marks):
    names = ("skeleton", "r_sample", "loop_start", "p_on", "qrs_on", "qrs_off", "t_end")
    table = replace(real.table, ecg_id=real.table.ecg_id[:60])
    few = replace(real, beat_type=None, wave_ms=None, table=table, **{name: getattr(real, name)[:60] for name in names})
    found = bank_marks(few)
    width = found.symbol.shape[1]
    there = real.r_sample[:60, :width] >= 0
    assert np.array_equal(found.symbol[there], marks.symbol[:60, :width][there])


def test_a_bank_that_knows_its_waves_gives_them(real):
    """Its column is int16 (donor, beat, 9), with R in the middle, -32768 where absent."""
    waves = np.tile(np.array([-200, -160, -120, -50, 3, 60, 150, 220, 300], np.int16), (*real.r_sample.shape, 1))
    waves[:, 1, :3] = -32768
    found = bank_marks(replace(real, wave_ms=waves)).wave_ms
    assert found[7, 0].tolist() == [-200, -160, -120, -50, 60, 150, 220, 300]
    assert np.isnan(found[:, 1, :3]).all() and not np.isnan(found[:, 1, 3:]).any()


# Rows -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("plan"), records=192, batch=64, shard=128, mix={"labels": LABELS, "hr_bpm": 75})


def test_each_record_has_its_rhythm_and_the_beats_that_are_inside_it(plan):
    synthesizer = open_synthesizer(plan)
    batch = make_batch(synthesizer, query_source(plan.request, None)(0, 192))
    rows = batch_beats(synthesizer, batch).to_pandas()
    assert (rows.groupby("record").first()["symbol"] == RHYTHM).all() and (rows[rows.symbol == RHYTHM]["sample"] == 0).all()
    assert rows[rows.symbol == RHYTHM]["aux"].tolist() == synthesizer.marks.rhythm[batch.donor_row].tolist()
    beats = rows[rows.symbol.isin(BEAT_SYMBOLS)]
    for record, timing in enumerate(batch.timings):
        assert beats[beats.record == record]["sample"].tolist() == timing.r_sample.tolist()
    assert rows["record"].is_monotonic_increasing and rows["sample"].between(0, 999).all()
    assert {"V", "A", "/", BEFORE, AFTER} <= set(rows.symbol) and len(set(rows.aux)) > 3
    outside = rows[rows.symbol.isin([BEFORE, AFTER])]
    at_s = outside[[f"{name}_ms" for name in WAVES]].to_numpy() / 1000 + outside["sample"].to_numpy()[:, None] / 100
    assert ((at_s >= 0) & (at_s <= 9.99)).any(axis=1).all() and outside.groupby(["record", "symbol"]).size().max() == 1


def test_rows_do_not_depend_on_batches_and_shards(plan):
    whole = make_all(plan)[2]
    other = make_all(replace(plan, request=replace(plan.request, batch=48, shard=192), shards=plan.shards[:1]))[2]
    rows = whole.filter(np.asarray(whole["record"]) < 128)
    assert rows.equals(other)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    {"variation": {"rr_cv": 0.1, "axis_deg": 10, "electrode": 0.3, "gain_sd": 0.1}}, {"variation": {"blend": 0.5}}, PUBLISHED,
], ids=["variation", "blend", "published"])  # fmt: skip
def test_marks_follow_the_beats_whatever_is_asked(tmp_path, changes):
    """The carried marks are those of the beats' times alone: what varies samples moves none."""
    plan = plan_of(tmp_path, records=64, batch=64, shard=64, alpha=0.0, mix={"labels": LABELS, "hr_bpm": 75},
                   **{key: value for key, value in changes.items() if key != "alpha"})  # fmt: skip
    synthesizer = open_synthesizer(plan)
    batch = make_batch(synthesizer, query_source(plan.request, None)(0, 64))
    table = batch_beats(synthesizer, batch)
    wave_ms, record, sample = waves_ms(table), table["record"].to_numpy(), table["sample"].to_numpy()
    for at, timing in enumerate(batch.timings):
        rows = (record == at) & np.isin(table["symbol"].to_pylist(), BEAT_SYMBOLS)
        beat = timing.source[np.isin(timing.placed, sample[rows])]
        own = synthesizer.marks.wave_ms[batch.donor_row[at], synthesizer.marks.first[batch.donor_row[at]] + beat] / 10
        placed = np.flatnonzero(np.isin(timing.placed, sample[rows]))
        wanted = np.interp(timing.corners[1][5 * placed][:, None] + own, *timing.corners[::-1])
        off_ms = 10 * (wanted - sample[rows][:, None]) - wave_ms[rows]
        assert np.array_equal(np.isnan(wave_ms[rows]), np.isnan(own)) and np.nanmax(np.abs(off_ms)) <= 0.51, "of rounding"


def test_a_beat_outside_is_a_row_only_for_what_is_inside():
    r, marks = np.array([-30, -5, 500, 1004, 1060]), np.array([[-10.0], [4.2], [505.0], [998.7], [1000.0]])
    kept, sample, symbol, wave_ms = stated(r, np.full(5, "N"), marks, 1000, 100)
    assert kept.tolist() == [1, 2, 3] and sample.tolist() == [0, 500, 999] and symbol.tolist() == [BEFORE, "N", AFTER]
    np.testing.assert_allclose(wave_ms[:, 0], [42, 50, -3])


def test_a_table_states_milliseconds_and_null():
    wave_ms = np.array([[np.nan] * 8, [-180.4, -120.6, -100, -40, 40, 100, 150.5, 300]])
    table = beats_table(np.array([3, 1]), np.array([5, 7]), np.array(["+", "N"]), np.array(["(N", ""]), wave_ms)
    assert table["record"].to_pylist() == [1, 3] and table["p_on_ms"].to_pylist() == [-180, None]
    assert table["t_peak_ms"].to_pylist()[0] == 150 and str(table.schema.field("t_end_ms").type) == "int16"
    assert in_order(waves_ms(table)) and not in_order(np.array([[1.0, np.nan, 0.5]]))
