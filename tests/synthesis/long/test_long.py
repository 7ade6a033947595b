"""Long records: whatever is made in pieces is what it would be in one; beats are the donor's; every minute keeps the rules."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from kernel_builds import RUNS_HERE, needs_kernel
from making import PUBLISHED, plan_of

from ecg_batch import draws
from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.donors.split import ATRIAL_BAND_HZ
from ecg_batch.donors.usable import enough_beats
from ecg_batch.kernels import stitch as stitch_kernel
from ecg_batch.leads import MODELLED_INDEX, MV_PER_UV, identity_residual, to_uv, twelve_leads
from ecg_batch.models import decode
from ecg_batch.signal.filters import band, low_pass, low_pass_of
from ecg_batch.signal.interpolate import catmull_rom
from ecg_batch.synthesis.long.batch import LongBatch, Minute, make_long_shard, ramps
from ecg_batch.synthesis.long.begin import _begin, begin_records
from ecg_batch.synthesis.long.check import MinuteCheck, check_minute
from ecg_batch.synthesis.long.donor import ATRIAL_HZ, TooFewBeats, lone_noise, long_donor, without_atrial
from ecg_batch.synthesis.long.respiration import _going_on
from ecg_batch.synthesis.long.stitch import Placed, in_rounds, intervals, place, stitch
from ecg_batch.synthesis.long.texture_stream import WARM_UP_S, TextureStream
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

LABELS = {"NORM": 0.3, "AFIB": 0.2, "PVC": 0.2, "PAC": 0.1, "MI": 0.2}
MIX = {"labels": LABELS, "hr_bpm": {"uniform": [55, 100]}}
LONG = {**PUBLISHED, "records": 8, "duration_s": 150, "batch": 8, "shard": 8, "mix": MIX}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("plan"), **LONG)


@pytest.fixture(scope="module")
def synthesizer(plan):
    return open_synthesizer(plan)


@pytest.fixture(scope="module")
def begun(plan, synthesizer):
    return begin_records(synthesizer, query_source(plan.request, Path("unused"))(0, 8))


def make(plan, synthesizer, start, stop):
    """(ecg (record, 12, time), rows, beats, progress) of some records made as one batch."""
    progress = []
    batch = LongBatch(synthesizer, query_source(plan.request, Path("unused"))(start, stop), progress.append)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    rows, beats = batch.tables(0)
    return ecg, rows, pa.concat_tables(beats), progress


@pytest.fixture(scope="module")
def made(plan, synthesizer):
    return make(plan, synthesizer, 0, 8)


def beats_of(table, record: int, symbols=("N", "V", "A")) -> np.ndarray:
    rows = table.to_pandas()
    return rows[(rows.record == record) & rows.symbol.isin(symbols)]["sample"].to_numpy()


# In pieces as in one ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_streamed_texture_is_what_one_piece_would_be(plan, synthesizer):
    """The same draws, tokens and decoder in one call: equal to a millionth of a step, far below what rounding keeps."""
    request, models, records = plan.request, synthesizer.models, np.arange(8)
    conditions = decode.conditions_of(models, ["NORM"] * 8, [["NORM"]] * 8)
    stream = TextureStream(request, models, records, conditions)
    pieces = np.concatenate([np.stack(stream.next(samples)) for samples in (6000, 6000, 1000)], axis=-1)
    count = (WARM_UP_S * 100 + 13_000) // 4 + 60
    uniforms = torch.from_numpy(draws.uniforms(request.seed, records, draws.Stream.TOKENS, count))
    tokens = decode.sample_tokens(models, conditions, uniforms)
    whole = decode.decode_texture(models, tokens, decode.draw_noise(models, request.seed, records, count)).numpy()
    from scipy.signal import lfilter

    whole = low_pass(lfilter(*stream._shelf, whole.astype(np.float64)), request.lowpass_hz, 100)
    np.testing.assert_allclose(pieces, whole[..., WARM_UP_S * 100 :][..., :13_000], atol=1e-6 * MV_PER_UV)


@pytest.mark.slow
def test_any_stretch_of_a_skeleton_is_the_same_bits(begun):
    for each in begun:
        whole = stitch(each.donor, each.placed, 0, 9000)
        pieces = [stitch(each.donor, each.placed, start, stop) for start, stop in ((0, 37), (37, 5000), (5000, 5001), (5001, 9000))]
        np.testing.assert_array_equal(np.concatenate(pieces, axis=-1), whole)


@pytest.mark.slow
def test_filtering_in_pieces_is_filtering_once(begun):
    for each in begun[:3]:
        whole = low_pass(each.skeleton(0, 9000), 40, 100)
        pieces = [low_pass_of(each.skeleton, start, start + 3000, 9000, 40, 100) for start in (0, 3000, 6000)]
        np.testing.assert_allclose(np.concatenate(pieces, axis=-1), whole, atol=1e-6 * MV_PER_UV)


@pytest.mark.slow
def test_a_record_does_not_depend_on_its_neighbours_or_on_what_was_made_before(plan, synthesizer, made):
    ecg, rows, beats, _ = make(plan, synthesizer, 2, 5)
    np.testing.assert_array_equal(ecg, made[0][2:5])
    assert rows.equals(made[1].slice(2, 3))
    for record in (2, 3, 4):
        np.testing.assert_array_equal(beats_of(beats, record), beats_of(made[2], record))


# One patient's beats ---------------------------------------------------------------------------------------------------


def test_a_qrs_is_copied_from_the_donor_at_each_r(begun):
    for each in begun:
        donor, placed = each.donor, each.placed
        atrial = 0 if donor.atrial is None else np.abs(donor.atrial).max() * 1.01
        for r, source in list(zip(placed.r, placed.source, strict=True))[5:60]:
            made, own = stitch(donor, placed, r - 3, r + 4), donor.x[:, donor.r[source] - 3 : donor.r[source] + 4]
            assert np.abs(made - own).max() <= atrial


def test_all_beats_of_the_donor_come_each_as_its_type_and_never_twice_in_a_row(begun):
    for each in begun:
        placed, donor = each.placed, each.donor
        assert set(np.flatnonzero(donor.symbol == "N")) <= set(placed.source)
        assert (np.diff(placed.source.astype(int)) != 0).all()
        symbol = np.where(np.arange(len(placed.r) - 2) % 3 == 1, list(donor.ectopic)[:1] or ["N"], "N")
        asked = place(donor, placed.r[1:-1] / 100, symbol, np.full(len(symbol), 0.8), 15_000, np.random.default_rng(1))
        assert (donor.symbol[asked.source[1:-1]] == symbol).all()


def test_ten_seconds_show_the_donors_beats_about_equally_often():
    """So they vary as those of the recording did: each comes once before any comes again."""
    pool = np.arange(7) + 3
    drawn = in_rounds(pool, 7 * 200 + 4, np.random.default_rng(0))
    assert all(set(drawn[first : first + 7]) == set(pool) for first in range(0, 1400, 7))
    assert (np.diff(drawn) != 0).all() and len(drawn) == 1404
    assert len({tuple(drawn[first : first + 7]) for first in range(0, 1400, 7)}) > 150


def test_an_ectopic_beat_brings_its_neighbours(begun):
    """So that nothing is joined where TP is short: but where a neighbour lies in no usable beat, or two share it."""
    brought = total = 0
    for each in begun:
        donor, source = each.donor, each.placed.source
        ectopic, shared = donor.symbol[source] != "N", np.zeros(len(source), bool)
        shared[1:-1] = ectopic[:-2] & ectopic[2:]
        natural = donor.splice_out == donor.splice_in
        for k in np.flatnonzero(ectopic):
            before, after = natural[:, source[k]], natural[source[k]]
            if after.any() and donor.symbol[after][0] == "N" and not ectopic[k + 1]:
                assert after[source[k + 1]]
            twice = before.any() and k > 1 and before[source[k - 2]]  # another's neighbour already
            if before.any() and donor.symbol[before][0] == "N" and not shared[k - 1] and not twice and not ectopic[k - 1]:
                assert before[source[k - 1]]
                brought += 1
            total += 1
    assert brought > 0.3 * total > 10


@pytest.mark.slow
def test_ectopic_beats_without_their_neighbours_are_a_last_resort(plan, synthesizer):
    """Of a donor, and among the donors of a record."""
    bank, joined = synthesizer.bank, {}
    for row in np.flatnonzero(synthesizer.bank.table.holds("PVC") | synthesizer.bank.table.holds("PAC")):
        with suppress(TooFewBeats):
            donor = long_donor(bank, int(row))
            natural = (donor.splice_out == donor.splice_in) & (donor.symbol == "N")  # (beat, its own next normal one)
            back = (donor.splice_out == donor.splice_in) & (donor.symbol == "N")[:, None]
            whole = natural.any(axis=1) & back.any(axis=0)
            assert donor.ectopic_spliced == (~whole[donor.symbol != "N"]).any()
            joined[int(row)] = donor.ectopic_spliced
    assert 5 < sum(joined.values()) < len(joined) / 2
    lonely, whole = (next(row for row in joined if joined[row] == kind) for kind in (True, False))
    queries = query_source(plan.request, Path("unused"))(0, 1)
    for rows, chosen in (([lonely], lonely), ([lonely, whole], whole)):
        assert _begin(synthesizer, queries, 0, np.array(rows)).donor_row == chosen


def test_ectopic_beats_come_where_the_donor_has_them_and_nowhere_else(begun, synthesizer):
    seen = set()
    for each in begun:
        codes = synthesizer.bank.table.scp_codes(each.donor_row)
        symbols = set(each.donor.symbol[each.placed.source])
        assert "V" not in symbols or {"PVC", "BIGU", "TRIGU"} & set(codes)
        assert "A" not in symbols or "PAC" in codes
        seen |= symbols
    assert seen >= {"N", "V"}


def test_qt_follows_the_lagged_rate_and_gives_way_only_where_there_is_no_room(begun):
    for each in begun:
        donor, placed = each.donor, each.placed
        interval = intervals(donor, placed, np.arange(1, len(placed.r) - 1))
        a = interval.before
        qrs, own = (donor.qrs_off - donor.qrs_on)[a], (donor.t_end - donor.qrs_on)[a]
        wanted = np.maximum(own * np.cbrt(placed.qt_rr[1:-1].astype(float) / donor.rr_samples), qrs + 1)
        got = interval.t_end - interval.qrs_off + qrs
        roomy = interval.p_on - interval.t_end > 1.5
        np.testing.assert_allclose(got[roomy], wanted[roomy])
        assert (got <= wanted + 1e-9).all() and roomy.mean() > 0.5
        corners = np.stack([interval.qrs_off, interval.t_end, interval.splice, interval.p_on, interval.qrs_on])
        assert (np.diff(corners, axis=0) > 0).all()


def test_value_and_slope_go_on_across_every_joint(begun):
    """Where the two sides are laid over each other they agree in value and slope, so no fade has anything to hide."""
    from ecg_batch.synthesis.long.stitch import _side_a, _side_b, _sides

    for each in begun:
        k = np.arange(1, len(each.placed.r) - 1)
        interval = intervals(each.donor, each.placed, k)
        sides, all_k, splice = _sides(each.donor, interval), np.arange(len(k)), interval.start + interval.splice
        step = 1e-4
        made = []
        for side in (_side_a, _side_b):
            for by in (-step, step):
                time, rise, tilt, value, slope = side(each.donor, interval, sides, all_k, splice + by)
                made.append(
                    catmull_rom(sides.x, np.clip(time, 1, len(sides.x) - 3)) + rise[:, None] * value + tilt[:, None] * slope
                )
        a0, a1, b0, b1 = made
        room = np.maximum(sides.rate_a, sides.rate_b) < 3  # else TP is all but used up
        assert room.mean() > 0.3
        assert np.abs((a0 + a1) - (b0 + b1)).max() < 0.5  # microvolts
        assert np.abs((a1 - a0) - (b1 - b0))[room].max() / (2 * step) < 1  # microvolts a sample: a QRS has hundreds


@needs_kernel
@pytest.mark.parametrize("build", RUNS_HERE)
def test_compiled_stitching_and_sway_are_the_plain_ones(begun, build, monkeypatch):
    library = stitch_kernel.library
    monkeypatch.setattr(stitch_kernel, "library", lambda _=None: library(build))
    compiled = [each.skeleton(500, 9000) for each in begun]
    monkeypatch.setattr(stitch_kernel, "library", lambda: None)
    for each, ours in zip(begun, compiled, strict=True):
        np.testing.assert_allclose(ours, each.skeleton(500, 9000), atol=1e-6 * MV_PER_UV)


def test_a_breath_goes_on_between_beats_that_are_almost_a_breath_apart():
    turns = np.cumsum([0.1, 0.3, 0.7, 0.95, 0.6])
    np.testing.assert_allclose(_going_on(2 * np.pi * (turns % 1)), 2 * np.pi * turns)
    assert len(_going_on(np.empty(0))) == 0


def test_jumps_at_joints_lie_inside_the_donors_own(begun, synthesizer):
    """Largest step and largest change of step near a splice, against those of the donor's ECG outside its QRS."""
    for each in begun:
        donor = each.donor
        own = synthesizer.bank.skeleton[each.donor_row].astype(float) + synthesizer.bank.texture[each.donor_row]
        interval = intervals(donor, each.placed, np.arange(5, len(each.placed.r) - 5))
        near = (interval.start + np.rint(interval.splice).astype(int))[:, None] + np.arange(-2, 3)
        made = stitch(donor, each.placed, 0, int(near.max()) + 2)
        for order in (1, 2):
            assert np.abs(np.diff(made, order, axis=1)[:, near - 1]).max() <= np.abs(np.diff(own, order, axis=1)).max()


def test_a_donor_without_three_whole_beats_gives_no_long_record():
    bank = read_bank(BUNDLED)
    columns = (bank.p_on[:5], bank.t_end[:5], 1000, 100)
    few = np.full((5, 4), -1)
    few[:, :2] = (300, 400)
    assert enough_beats(bank.r_sample[:5], *columns).all()
    assert not enough_beats(few, *columns).any()


@pytest.mark.slow
def test_bundled_donors_with_enough_beats_can_be_taken_apart():
    """But for a few whose beats are of several shapes: their records take the next donor."""
    bank = read_bank(BUNDLED)
    fs_hz, samples = bank.table.fs_hz, bank.skeleton.shape[-1]
    enough = np.flatnonzero(enough_beats(bank.r_sample, bank.p_on, bank.t_end, samples, fs_hz))[::25]
    donors = []
    for row in enough.tolist():
        with suppress(TooFewBeats):
            donors.append(long_donor(bank, row))
    assert len(donors) > 0.95 * len(enough) > 0.9 * len(bank.table) / 25
    for donor in donors:
        assert (donor.symbol == "N").sum() >= 3
        for points in (donor.splice_out, donor.splice_in):
            assert points.min() >= 5 and points.max() < 995


# The rules, in every minute --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lead_identities_hold(made):
    assert identity_residual(made[0]).max() <= 0.5


@pytest.mark.slow
def test_the_prd_limit_holds_in_every_minute_and_in_the_record(plan, begun, made):
    for ecg, each, stated in zip(made[0], begun, made[1]["prd_pct"].to_pylist(), strict=True):
        skeleton = twelve_leads(low_pass_of(each.skeleton, 0, plan.request.samples, plan.request.samples, 40, 100))
        error = np.square(ecg * MV_PER_UV - skeleton)
        for start in range(0, plan.request.samples, 6000):
            minute = slice(start, start + 6000)
            assert 1 < 100 * np.sqrt(error[:, minute].sum() / np.square(skeleton[:, minute]).sum()) <= plan.request.prd_limit_pct
        assert 100 * np.sqrt(error.sum() / np.square(skeleton).sum()) == pytest.approx(stated, rel=1e-4)


def test_alpha_never_steps_and_never_exceeds_what_its_minute_allows():
    minutes = [Minute(0, 600, np.array([0.6, 0.2]), []), Minute(600, 1200, np.array([0.1, 0.5]), []),
               Minute(1200, 1300, np.array([0.4, 0.4]), [])]  # fmt: skip
    alpha = [ramps(now, before, after) for before, now, after in zip([None, *minutes], minutes, [*minutes[1:], None], strict=False)]
    for part, minute in zip(alpha, minutes, strict=True):
        assert (part <= minute.alpha[:, None] + 1e-12).all()
    assert np.abs(np.diff(np.concatenate(alpha, axis=1))).max() < 0.01


def test_the_mean_rate_is_the_asked_one_and_beats_are_found_where_they_are_said_to_be(made):
    asked, measured = (np.array(made[1][name], float) for name in ("hr_bpm_requested", "hr_bpm_measured"))
    flagged = np.array([flags != "" for flags in made[1]["flags"].to_pylist()])
    assert (np.abs(asked - measured)[~flagged] <= 3).all() and flagged.mean() <= 0.25
    for record, rate in enumerate(asked):
        beats = beats_of(made[2], record)
        assert 60 * 100 * (len(beats) - 1) / (beats[-1] - beats[0]) == pytest.approx(rate, abs=1)


@pytest.mark.slow
def test_another_detector_finds_the_annotated_beats(made):
    """wfdb's XQRS, lead II at 250 Hz. Ten hours, two detectors: benchmarks/holter.py."""
    from scipy.signal import resample_poly
    from wfdb.processing import xqrs_detect

    missed = invented = total = 0
    for record, label in enumerate(made[1]["label"].to_pylist()):
        if label in ("NORM", "AFIB", "MI"):
            found = xqrs_detect(resample_poly(made[0][record, 1] / 1000, 5, 2), 250, verbose=False) / 2.5
            found, beats = found[(found > 300) & (found < 14_700)], beats_of(made[2], record)
            inner = beats[(beats > 300) & (beats < 14_700)]
            missed += (np.abs(inner[:, None] - found).min(axis=1) > 15).sum()
            invented += (np.abs(found[:, None] - beats).min(axis=1) > 15).sum()
            total += len(inner)
    assert missed <= 0.01 * total and invented <= 0.01 * total and total > 500


def test_beats_are_in_order_and_the_rhythm_is_named(made):
    rows = made[2].to_pandas()
    assert (np.diff(rows.record * 10**9 + rows["sample"]) >= 0).all()
    first = rows[rows.symbol == "+"]
    assert first.record.tolist() == list(range(8)) and (first["sample"] == 0).all()
    expected = ["(AFIB" if label == "AFIB" else "(" for label in made[1]["label"].to_pylist()]
    assert all(aux.startswith(word) for aux, word in zip(first.aux, expected, strict=True))


def test_progress_is_told_every_minute(made):
    assert made[3] == pytest.approx([8 * 60 / 150, 8 * 120 / 150, 8])


def test_a_beat_missed_or_invented_marks_its_minute(plan, begun):
    each = begun[0]
    steps = twelve_leads(to_uv(low_pass_of(each.skeleton, 0, plan.request.samples, plan.request.samples, 40, 100)))
    beats = each.placed.r[1:-1]

    def failed(known: np.ndarray) -> MinuteCheck:
        check = MinuteCheck(100, plan.request.samples, known)
        for start in range(0, plan.request.samples, 6000):
            check_minute([check], steps[None, :, start : start + 6000])
        return check

    assert failed(beats).failed == [] and failed(beats).found(each.hr_bpm)[1] == []
    late = int(np.searchsorted(beats, 8000))
    for wrong in (np.delete(beats, late), np.insert(beats, late, (beats[late - 1] + beats[late]) // 2)):
        assert failed(wrong).failed == [(6000, ["beats"])]
    assert failed(beats[::2]).found(each.hr_bpm)[1] == ["beats"]
    assert failed(beats).found(each.hr_bpm + 4)[1] == ["heart_rate"]


# Lengths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [11, 60, 61, 119])
def test_all_lengths_are_made(synthesizer, tmp_path, duration_s):
    streamed = duration_s > 60
    changes = {"batch": 2, "shard": 2} if streamed else {"batch": 2, "shard": 64}
    plan = plan_of(tmp_path, records=2, duration_s=duration_s, mix=MIX, **changes)
    made = make_long_shard(replace(synthesizer, request=plan.request), plan.shards[0], query_source(plan.request, tmp_path), print)
    if streamed:
        ecg = np.concatenate(list(made.blocks), axis=-1)
        rows, beats = made.tables()
    else:
        ecg, rows, beats = made
    assert ecg.shape == (2, 12, 100 * duration_s) and ecg.dtype == np.int16
    assert (np.ptp(ecg[:, MODELLED_INDEX, -500:], axis=-1) > 20).all()
    asked, measured = np.array(rows["hr_bpm_requested"], float), np.array(rows["hr_bpm_measured"], float)
    assert (np.abs(asked - measured) <= 3).all()
    assert [set(each["record"].to_pylist()) for each in beats] == [{0}, {1}]


def test_a_placed_record_covers_its_ends(begun):
    for each in begun:
        placed: Placed = each.placed
        assert placed.r[0] < 0 and placed.r[-1] >= 15_000
        assert np.isfinite(each.skeleton(0, 15_000)[:, [0, -1]]).all()


def test_tp_is_smooth_where_one_beat_alone_reaches_and_nowhere_else():
    """After its longest cycle, and after a beat that is alone of its type; beside T and P nothing changes."""
    r, types = np.array([100, 180, 260, 340, 470, 550, 690]), np.array([0, 0, 0, 0, 0, 1, 0])
    x, t_end, p_on = np.random.default_rng(0).standard_normal((8, 800)), r + 40, r - 20
    smooth = x - lone_noise(x, r, types, t_end, p_on, 100)
    changed = np.flatnonzero((smooth != x).any(axis=0))
    assert set(changed) == {*range(390, 446), *range(594, 666)}  # others reach 50 samples behind R; the lone one's T ends at 590
    for inside in (slice(400, 436), slice(604, 656)):
        assert smooth[:, inside].std() < 0.5 * x[:, inside].std()


def test_atrial_activity_and_the_texture_of_another_are_together_as_loud_as_recorded():
    """The split leaves 1 - B in texture, which is of another patient: a dip of 3 dB at 14 Hz if B were all."""
    impulse = np.zeros(4000)
    impulse[2000] = 1
    kept, taken = (np.abs(np.fft.rfft(band(impulse, edges, 100))) for edges in (ATRIAL_BAND_HZ, ATRIAL_HZ))
    hz = np.fft.rfftfreq(4000, 0.01)
    whole = 10 * np.log10(np.square(taken) + np.square(1 - kept))[(hz > 0.5) & (hz < 45)]
    assert np.abs(whole).max() < 0.25


def test_what_is_louder_beside_the_qrs_than_in_tp_stays_with_its_beat():
    """f waves go on through T and QRS as loud as in TP, though T waves vary by more: each beat keeps its own."""
    rng, time = np.random.default_rng(5), np.arange(1000)
    r = np.cumsum(np.insert(rng.integers(85, 125, 8), 0, 60))
    lead = np.arange(1, 9)[:, None] / 8
    height = np.where(np.arange(len(r)) % 2, 350.0, 150.0)
    t_waves = lead * sum(high * np.exp(-0.5 * ((time - at - 28) / 4) ** 2) for at, high in zip(r, height, strict=True))
    qrs = lead * sum(1000 * np.exp(-0.5 * ((time - at) / 1.5) ** 2) for at in r)
    f_waves = lead * 40 * np.sin(2 * np.pi * (6 * time / 100 + 0.3 * np.sin(time / 37)))
    skeleton = t_waves + qrs + f_waves
    x, atrial = without_atrial(skeleton, np.zeros_like(skeleton), r, np.zeros(len(r), int), r + 45, r - 15, 100)

    inner, after = r[2:-2], np.arange(len(r))[2:-2] % 2 == 1
    rms = {name: np.sqrt(np.square(atrial[:, np.concatenate([at + np.arange(low, high) for at in inner])]).mean(axis=1))
           for name, low, high in (("QRS", -8, 9), ("T", 22, 36), ("TP", 46, 60))}  # fmt: skip
    whole = np.sqrt(np.square(f_waves).mean(axis=1))
    for name, found in rms.items():  # in QRS it is the mean of what comes before and after, which are out of step
        assert (np.abs(20 * np.log10(found / whole)) < (4 if name == "QRS" else 1)).all(), name
    peaks = np.stack([x[:, at + 26 : at + 31].mean(axis=1) for at in inner])
    assert (peaks[after].mean(axis=0) - peaks[~after].mean(axis=0) > 0.3 * 200 * lead[:, 0]).all()  # less what is under 1.4 Hz


@pytest.mark.parametrize("rr", [24, 26, 28, 31, 40, 70, 240])
def test_atrial_activity_at_any_rate(rr):
    """At 250 bpm one QRS follows another, and there is no place where it could be seen to go on."""
    r, skeleton = np.arange(20, 1000, rr), 50 * np.random.default_rng(rr).standard_normal((8, 1000))
    x, atrial = without_atrial(skeleton, np.zeros_like(skeleton), r, np.zeros(len(r), int), r + rr // 2, r - rr // 3, 100)
    assert np.isfinite(x).all() and np.isfinite(atrial).all() and np.abs(atrial).max() <= 2 * np.abs(skeleton).max()
