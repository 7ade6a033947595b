"""Events of long records: as often and as long as asked, annotated where they are, of other patients, however they are made."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from making import plan_of
from real_sets import write_few_donors

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.beats import BEAT_SYMBOLS, LONE_P, RHYTHM, RHYTHMS, in_order, waves_ms
from ecg_batch.dataset.rows import LENT_COLUMNS
from ecg_batch.donors.bank import read_bank
from ecg_batch.errors import UserError
from ecg_batch.request.events import KINDS, LENT
from ecg_batch.synthesis.long import check
from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.long.begin import begin_records
from ecg_batch.synthesis.long.donor import TooFewBeats, single_beats
from ecg_batch.synthesis.long.events.order import Form
from ecg_batch.synthesis.long.events.patient import RHYTHM_OF_EVENT, Host
from ecg_batch.synthesis.long.events.stock import HOST, cell_of, fused, is_clear, p_wave_of, stocked, with_p, without_p
from ecg_batch.synthesis.long.respiration import wandering
from ecg_batch.synthesis.long.stitch import carried, stitch
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

MIX = {"labels": {"NORM": 0.6, "CD": 0.2, "AFIB": 0.2}, "hr_bpm": {"uniform": [55, 95]}}
EVERY = {name: {"per_hour": 60, "share": 0.5} | ({"length": 4} if kind.unit == "beats" else {"length": 8} if kind.unit else {})
         for name, kind in KINDS.items()}  # fmt: skip
EVERY["pause"]["length"] = 2.5
LONG = {"records": 16, "duration_s": 180, "batch": 8, "shard": 8, "seed": 5, "mix": MIX, "events": EVERY}
SINUS = Host(sinus=True, fibrillation=False, pr_s=0.16, rhythm="(N", ectopic={})


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("plan"), **LONG, bank="bundled", models="bundled")


@pytest.fixture(scope="module")
def synthesizer(plan):
    return open_synthesizer(plan)


@pytest.fixture(scope="module")
def begun(plan, synthesizer):
    return begin_records(synthesizer, query_source(plan.request, Path("unused"))(0, 16))


def make(plan, synthesizer, start, stop):
    """(ecg (record, 12, time), rows, beats) of some records made as one batch."""
    batch = LongBatch(synthesizer, query_source(plan.request, Path("unused"))(start, stop), lambda done: None)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    rows, beats = batch.tables(0)
    return ecg, rows, pa.concat_tables(beats)


@pytest.fixture(scope="module")
def made(plan, synthesizer):
    return make(plan, synthesizer, 0, 16)




# The beats --------------------------------------------------------------------------------------------------------------


def test_each_event_has_the_beats_of_its_name(made, begun):
    """By the annotations alone."""
    table = made[2].to_pandas()
    symbols = set(table.symbol)
    assert {"V", "A", "a", "J", "j", "F", "E", "B", LONE_P} <= symbols <= {*BEAT_SYMBOLS, LONE_P, RHYTHM, *'~tps"'}
    said = set(table.aux[table.symbol == RHYTHM])
    assert set(RHYTHM_OF_EVENT.values()) <= said <= set(RHYTHMS)
    for _, rows in table.groupby("record"):
        rhythm = rows.aux.where(rows.symbol == RHYTHM).ffill()
        in_run = rows[(rhythm == "(VT") & rows.symbol.isin(BEAT_SYMBOLS)]
        assert (in_run.symbol == "V").all()
        fibrillation = rows[rhythm.isin(["(AFIB", "(AFL"]) & (rows.symbol == "N")]
        assert not len(fibrillation) or fibrillation.p_on_ms.isna().mean() > 0.98


def test_a_ventricular_beat_stands_where_its_mark_is(begun):
    """Its QRS is the steepest part of what lies near, whoever lent it."""
    seen = 0
    for each in begun:
        placed, donor = each.placed, each.donor
        lent = (donor.symbol[placed.source] == "V") & (each.lent[placed.source] != HOST)
        for at in np.flatnonzero(lent)[:20]:
            if 100 < placed.r[at] < 17_900:
                x = stitch(donor, placed, placed.r[at] - 16, placed.r[at] + 17)
                speed = np.linalg.norm(np.diff(x, axis=1), axis=0)
                assert abs(int(speed.argmax()) - 16) <= 12
                seen += 1
    assert seen > 60


def test_marks_are_in_order_and_inside(made):
    wave_ms = waves_ms(made[2])
    assert in_order(wave_ms) and made[2].to_pandas()["sample"].between(0, 17_999).all()
    rows = made[2].to_pandas()
    lone = rows.symbol == LONE_P
    assert rows[lone].p_on_ms.notna().all() and rows[lone].t_on_ms.isna().all() and (rows[lone].p_on_ms < 0).all()


def test_a_lone_p_wave_is_what_is_added_and_nothing_else(begun):
    for each in [one for one in begun if len(one.atrial.lone)][:4]:
        added = np.zeros((8, 18_000))
        each.atrial.add_to(added, 0)
        beats = stitch(each.donor, each.placed, 0, 18_000)
        level = each.donor.level
        np.testing.assert_allclose(beats + added - level[:, None], unmoved(each, 0, 18_000) - level[:, None], atol=1e-6)
        quiet = np.ones(18_000, bool)
        for onsets, wave in each.atrial.p_waves:
            for onset in onsets:
                quiet[max(onset, 0) : onset + wave.x.shape[1]] = False
        for one in each.atrial.paroxysms:
            quiet[one.start : one.stop] = False
        assert not added[:, quiet].any()


def unmoved(each, start, stop):
    """The skeleton without respiration: what LongRecord.skeleton hands on."""
    out = stitch(each.donor, each.placed, start, stop)
    each.atrial.add_to(out, start)
    return out


def test_fibrillation_is_heard_between_its_bounds(begun):
    found = [one for each in begun for one in each.atrial.paroxysms if one.stop - one.start > 300]
    assert found
    for each in begun:
        for one in each.atrial.paroxysms:
            out = np.zeros((8, 18_000))
            one.add_to(out, 0, 100)
            assert not out[:, : one.start].any() and not out[:, one.stop :].any()
            middle = out[:, one.start + 60 : one.stop - 60]
            assert one.stop - one.start < 200 or np.abs(middle).max() > 5


def test_forms_are_what_they_say(synthesizer):
    """On donors of the bundled bank: P taken away, another put in its place, two beats at once."""
    checked = 0
    for row in range(0, 400, 7):
        try:
            donor = single_beats(synthesizer.bank, row)
        except TooFewBeats:
            continue
        cell = cell_of(donor, int(np.flatnonzero(donor.symbol == "N")[0]), HOST)
        wave = p_wave_of(cell)
        if wave is None:
            continue
        bare = without_p(cell)
        straight = np.abs(np.diff(bare.x[:, cell.p_on : bare.qrs_on + 1], 2, axis=1))
        assert straight.max() < 1e-6 and np.isnan(bare.waves[:3]).all()
        for beside in (slice(cell.p_on + 1), slice(cell.qrs_on, None)):
            np.testing.assert_array_equal(bare.x[:, beside], cell.x[:, beside])
        back = with_p(cell, wave, donor.fs_hz)
        np.testing.assert_allclose(back.x, cell.x, atol=1e-6)
        np.testing.assert_allclose(back.waves, cell.waves, atol=3.0)  # not before the beat's own P onset
        both = fused(cell, cell, 0.3)
        np.testing.assert_allclose(both.x, cell.x, atol=1e-6)
        checked += 1
    assert checked > 20


def test_a_lent_beat_is_joined_within_the_tp_of_its_own_recording(begun):
    """And not in a flat stretch, which shows: as with_splices finds them, all joints lie inside what was recorded."""
    for each in begun:
        donor, own = each.donor, int((each.lent == HOST).argmin() or len(each.lent))
        lent = np.flatnonzero(np.arange(len(each.lent)) >= own)
        assert (donor.splice_in[:, lent] >= donor.first[lent]).all() and (donor.splice_in[:, lent] <= donor.p_on[lent]).all()
        assert (donor.splice_out[lent] <= donor.last[lent][:, None]).all()
        assert (donor.splice_out[lent] >= donor.t_end[lent][:, None]).all()
        np.testing.assert_allclose(donor.x[:, donor.first[lent]], donor.level[:, None] + np.zeros(len(lent)), atol=1e-6)
        np.testing.assert_allclose(donor.x[:, donor.last[lent]], donor.level[:, None] + np.zeros(len(lent)), atol=1e-6)


def test_ventricular_beats_wander_by_themselves_and_the_same_in_pieces(begun):
    each = next(one for one in begun if (one.donor.symbol[one.placed.source] == "V").sum() > 20)
    moved = wandering(each.respiration, 0, 18_000, 100)
    pieces = [wandering(each.respiration, start, 1000, 100) for start in range(0, 18_000, 1000)]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), moved, atol=1e-12)
    own = np.zeros(18_000, bool)
    for r in each.placed.r[np.isin(each.donor.symbol[each.placed.source], ("V", "E", "F"))]:
        own[max(r - 20, 0) : max(r + 51, 0)] = True
    assert not moved[:, ~own].any() and np.abs(moved[:, own]).mean() > 0.3


def test_a_beat_that_is_none_is_not_lent(synthesizer):
    """Noise that was taken for a beat: low, or its QRS elsewhere."""
    donor = next(each for row, each in usable(synthesizer) if (each.symbol == "V").any()
                 and is_clear(each, int(np.flatnonzero(each.symbol == "V")[0])))  # fmt: skip
    beat = int(np.flatnonzero(donor.symbol == "V")[0])
    around = slice(donor.qrs_on[beat] - 10, donor.qrs_off[beat] + 11)
    donor.x[:, around] *= 0.1
    assert not is_clear(donor, beat)


def usable(synthesizer):
    for row in synthesizer.beat_lenders.ventricular:
        try:
            yield int(row), single_beats(synthesizer.bank, int(row))
        except TooFewBeats:
            continue


# Whose they are ---------------------------------------------------------------------------------------------------------


def test_whoever_lends_is_named_and_is_another_patient_of_the_allowed_folds(made, synthesizer):
    _, rows, beats = made
    rows, beats = rows.to_pandas(), beats.to_pandas()
    assert tuple(rows.columns[-3:]) == LENT_COLUMNS
    some = 0
    for at, row in rows.iterrows():
        own = beats[(beats.record == at) & beats.beat_ecg_id.notna()]
        assert set(own.beat_ecg_id) <= set(row.beat_ecg_id)
        assert row.donor_patient_id not in row.beat_patient_id and set(row.beat_fold) <= set(range(1, 9))
        some += len(own)
    assert some > 300
    of_donor = beats[beats.symbol.isin(["N"]) & beats.beat_ecg_id.notna()]
    assert len(of_donor) < 0.2 * len(beats), "what is the donor's own is not said to be another's"


def test_folds_that_a_request_forbids_lend_nothing(tmp_path):
    events = {name: said for name, said in EVERY.items() if name != "pre_excitation"}  # one donor of the fold has it
    plan = plan_of(tmp_path, **{**LONG, "records": 4, "donor_folds": [3], "events": events}, bank="bundled", models="bundled")
    _, rows, _ = make(plan, open_synthesizer(plan), 0, 4)
    assert {fold for folds in rows["beat_fold"].to_pylist() for fold in folds} <= {3}


# However they are made --------------------------------------------------------------------------------------------------


def test_a_record_is_the_same_whatever_is_made_beside_it(plan, synthesizer, made):
    ecg, rows, beats = make(plan, synthesizer, 5, 9)
    np.testing.assert_array_equal(ecg, made[0][5:9])
    assert rows.equals(made[1].slice(5, 4))
    among = made[2].filter(pa.compute.is_in(made[2]["record"], pa.array([5, 6, 7, 8])))
    assert beats.to_pylist() == among.to_pylist()


def test_any_stretch_is_what_it_is_in_the_whole(begun):
    for each in begun[:6]:
        whole = each.skeleton(0, 18_000)
        for start, stop in ((0, 700), (5990, 6010), (12_345, 13_000), (17_500, 18_000)):
            np.testing.assert_allclose(each.skeleton(start, stop), whole[:, start:stop], atol=1e-9)


def test_without_events_a_record_is_as_it_was(tmp_path, begun):
    """A request that names none has the beats and columns that it had before there were any."""
    plain = {key: value for key, value in LONG.items() if key != "events"}
    plan = plan_of(tmp_path, **{**plain, "records": 2}, bank="bundled", models="bundled")
    assert "events" not in plan.request.resolved()
    _, rows, beats = make(plan, open_synthesizer(plan), 0, 2)
    assert not set(LENT_COLUMNS) & set(rows.column_names) and beats["beat_ecg_id"].null_count == len(beats)
    assert set(beats["symbol"].to_pylist()) <= {"N", "V", "A", "/", RHYTHM, "~", "t", "p"}


def test_placed_marks_of_lent_beats_are_carried_as_all_are(begun):
    each = begun[0]
    marks = carried(each.donor, each.placed)
    inside = ~np.isnan(marks[1:-1])
    assert inside[:, 4].mean() > 0.95, "a QRS end of nearly every beat"
    assert Form.OWN == 0 and each.donor.waves.shape[0] == len(each.lent) == len(each.donor.r)


# What words and marks mean ------------------------------------------------------------------------------------------------


def stretches(rows):
    """(word, its rows) of each rhythm of a record, and the row that ends it."""
    at = np.flatnonzero((rows.symbol == RHYTHM).to_numpy())
    for first, stop in zip(at, [*at[1:], len(rows)], strict=True):
        yield rows.aux.iloc[first], rows.iloc[first + 1 : stop]


def test_a_tachycardia_is_one(tmp_path):
    """Of 100 bpm and more, whatever the sinus node does."""
    events = {"v_run": 40, "sv_run": {"per_hour": 40, "length": {"uniform": [4, 20]}}, "idioventricular": 30}
    mix = {"labels": {"NORM": 1.0}, "hr_bpm": {"uniform": [45, 90]}}
    asked = {**LONG, "records": 16, "duration_s": 600, "mix": mix, "events": events}
    plan = plan_of(tmp_path, **asked, bank="bundled", models="bundled")
    seen = Counter()
    for _, rows in make(plan, open_synthesizer(plan), 0, 16)[2].to_pandas().groupby("record"):
        for word, inside in stretches(rows):
            r = inside["sample"][inside.symbol.isin(["V", "A", "a"])]
            if word in ("(VT", "(SVTA", "(IVR") and len(r) > 2:
                bpm = 6000 / np.diff(r).mean()
                assert (bpm < 103) if word == "(IVR" else (bpm > 97), (word, bpm)
                seen[word] += 1
    assert min(seen[word] for word in ("(VT", "(SVTA", "(IVR")) > 10


def test_blocks_show_what_they_are_called(made):
    table = made[2].to_pandas()
    for _, rows in table.groupby("record"):
        for word, inside in stretches(rows):
            beats = inside[inside.symbol.isin(BEAT_SYMBOLS)]
            if word == "(BI":
                assert beats.p_on_ms.notna().all() and (beats.qrs_on_ms - beats.p_on_ms > 130).all()
            if word == "(BIII":
                assert beats.p_on_ms.isna().all() and (not len(beats) or (inside.symbol == LONE_P).any())
            if word == "(BII" and inside.index[-1] < rows.index[-1]:
                assert (inside.symbol == LONE_P).any(), "a block of second degree drops a beat"
    beats = table[table.symbol.isin(BEAT_SYMBOLS)]
    assert (beats.qrs_on_ms.dropna() < 0).all() and not (beats.p_end_ms > beats.qrs_on_ms).any()


def test_a_p_wave_lies_in_the_rhythm_of_its_beat(made):
    for _, rows in made[2].to_pandas().groupby("record"):
        for word, inside in stretches(rows):
            if word in ("(AFIB", "(AFL") and inside.index[-1] < rows.index[-1]:
                end = rows.loc[inside.index[-1] + 1, "sample"]
                after = rows[(rows["sample"] >= end) & rows.symbol.isin(BEAT_SYMBOLS)].iloc[0]
                assert np.isnan(after.p_on_ms) or after["sample"] + after.p_on_ms / 10 >= end - 1


def test_an_aberrant_beat_names_whoever_has_its_bundle_branch_block(made, synthesizer):
    beats = made[2].to_pandas()
    named = beats.beat_ecg_id[beats.symbol == "a"].dropna().unique()
    table = synthesizer.bank.table
    wide = set(table.ecg_id[table.holds("CLBBB") | table.holds("CRBBB")].tolist())
    assert len(named) and set(named.astype(int).tolist()) <= wide


# Where nobody has what is needed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("events", "kind"), [
    ({"v_run": 5}, "ventricular"), ({"pacing": 5}, "paced"), ({"fibrillation": 1}, "fibrillation"), ({"branch_block": 2}, "wide"),
    ({"pre_excitation": 2}, "preexcited"),
])  # fmt: skip
def test_events_that_nobody_can_lend_are_refused_before_anything_is_made(tmp_path, events, kind):
    """A bank of sinus rhythm alone."""
    bank = sinus_bank(tmp_path / "bank")
    with pytest.raises(UserError, match=f"events {next(iter(events))} need the {kind} beats of other patients"):
        plan_of(tmp_path, **{**LONG, "mix": {"labels": {"NORM": 1.0}}, "events": events}, bank=str(bank), models="bundled")


def test_no_label_stands_for_beats_that_are_not_there(tmp_path):
    """Without a donor that could lend a wide beat, premature beats are conducted as all are, and escapes are narrow."""
    events = {"sv_beat": 300, "complete_block": {"per_hour": 60, "length": 20}}
    asked = {**LONG, "records": 12, "mix": {"labels": {"NORM": 1.0}}, "events": events}
    plan = plan_of(tmp_path, **asked, bank=str(sinus_bank(tmp_path / "bank")), models="bundled")
    _, _, beats = make(plan, open_synthesizer(plan), 0, 12)
    assert {"A", "j", LONE_P} <= set(beats["symbol"].to_pylist()) and not {"a", "E", "V"} & set(beats["symbol"].to_pylist())


def test_a_bank_whose_holders_have_no_usable_beat_says_so(synthesizer):
    nobody = replace(synthesizer.beat_lenders, ventricular=np.empty(0, np.int64))
    host = single_beats(synthesizer.bank, 0)
    with pytest.raises(UserError, match="no other patient of the allowed folds lends ventricular beats"):
        stocked(nobody, 0, host, {Form.IDIOVENTRICULAR}, (), lambda part: np.random.default_rng(part))


def sinus_bank(folder: Path) -> Path:
    """Forty donors of the bundled bank that hold NORM and nothing that could lend."""
    table = read_bank(BUNDLED).table
    lends = np.any([table.holds(code) for statements, _ in LENT.values() for code in statements], axis=0)
    return write_few_donors(folder, np.flatnonzero(table.holds("NORM") & table.holds("SR") & ~lends & (table.fold < 9))[:40])


# The gate -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wide", "wrong"), [(None, True), (np.zeros(60, bool), False)], ids=["without events", "with events"])
def test_leads_that_see_r_and_leads_that_see_s_agree(monkeypatch, wide, wrong):
    """Half of the leads put a beat 40 ms early, half 40 ms late, as in left anterior hemiblock; lead II counts P waves as well."""
    beats = np.arange(50, 6000, 100)
    monkeypatch.setattr(check, "detect_rows", lambda leads, fs_hz: [beats - 4] * 4 + [beats + 4] * 4)
    gate = check.MinuteCheck(100, 6000, beats, wide)
    assert gate.takes(np.full((12, 6000), 100, np.int16) * (np.arange(6000) % 2).astype(np.int16))
    gate.judge(np.sort(np.concatenate([beats, beats - 25])))
    assert ("beats" in gate.found(60.0)[1]) == wrong


# Donors in bigeminy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["mamba", "rules"])
def test_without_events_too_a_record_is_called_bigeminy_where_it_shows_it(tmp_path, order):
    changes = {**LONG, "duration_s": 120, "records": 24, "mix": {"labels": {"BIGU": 1.0}}, "rhythm": {"order": order}}
    plan = plan_of(tmp_path, **{name: value for name, value in changes.items() if name != "events"})
    called = 0
    for each in begin_records(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 24)):
        share = np.mean(each.donor.symbol[each.placed.source[1:-1]] == "V")
        ((_, word),) = each.changes
        assert word == "(AFIB" or (word == "(B") == (share >= 0.35) and word in ("(B", "(N")
        called += word == "(B"
    assert 0 < called < 24


def test_a_donor_in_bigeminy_stays_in_it_and_is_called_so(tmp_path):
    """Of donors that state BIGU those whose recording shows it; where ventricular beats are asked otherwise, or by a table alone,
    the record has these."""
    mix = {"labels": {"BIGU": 1.0}}
    for events, stays in (({"posture": 2}, True), ({"v_beat": 20}, False)):
        plan = plan_of(tmp_path, **{**LONG, "records": 12, "mix": mix, "events": events}, bank="bundled", models="bundled")
        begun = begin_records(open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 12))
        called = 0
        for each in begun:
            symbol = "".join(each.donor.symbol[each.placed.source])
            in_bigeminy = symbol.count("NV") > 0.48 * len(symbol)
            ((_, word),) = each.changes
            assert (word == "(B") == in_bigeminy and word in ("(B", "(N", "(AFIB")
            called += in_bigeminy
        assert (0 < called < 12) if stays else not called, "some donors do not show it"
