"""Vary: the records of a set are one patient's, alike in all but what the request names, however shards and batches cut them."""

from pathlib import Path

import numpy as np
import pytest
from making import make, make_all, plan_of, write_request

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.verify import verify
from ecg_batch.donors.bank import read_table
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.request.model import Variation
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.synthesis.batch import make_batch
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.queries import COLUMNS, Queries
from ecg_batch.synthesis.retrieve import index_donors, retrieve
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer
from ecg_batch.synthesis.variation import lead_matrix

SETS = 10
MIX = {"labels": {"NORM": 0.4, "MI": 0.3, "CD": 0.3}, "age": {"uniform": [25, 85]}, "sex": {"female": 0.5, "male": 0.5}}
ADDED = {"kinds": {"muscle": 1, "electrode": 1, "baseline": 1}}
RATES, RATIOS = [55, 75, 100], [24, 6, 0]
MODELLED = [0, 1, *range(6, 12)]  # I, II, V1 to V6: the others are halves and sums of them


def made_with(folder: Path, vary: dict, **changes):
    """(ecg int32 (set, record of the set, 12, time), rows)."""
    size = int(np.prod([len(values) for values in vary.values()]))
    plan = plan_of(folder, **{"records": SETS * size, "mix": MIX, "batch": 256, "shard": 4096, "vary": vary} | changes)
    ecg, rows = make(plan)
    return ecg.astype(np.int32).reshape(SETS, size, *ecg.shape[1:]), rows


def plain(folder: Path, **changes):
    """The same request without vary: its record s is drawn as set s is. (ecg int32 (set, 12, time), rows)."""
    ecg, rows = make(plan_of(folder, **{"records": SETS, "mix": MIX} | changes))
    return ecg.astype(np.int32), rows


def by_set(values: list) -> list[list]:
    size = len(values) // SETS
    return [values[at : at + size] for at in range(0, len(values), size)]


# Alike in all else ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nine(tmp_path_factory):
    """Sets of three rates by three ratios, of varied patients."""
    vary = {"snr_db": RATIOS, "hr_bpm": RATES}
    return made_with(tmp_path_factory.mktemp("nine"), vary, noise=ADDED, variation={"axis_deg": 10, "gain_sd": 0.2})


def test_a_set_is_one_patient_with_one_noise_at_each_combination(nine):
    ecg, rows = nine
    assert rows["pair_id"] == [at // 9 for at in range(9 * SETS)]
    assert rows["hr_bpm_requested"] == [rate for _ in range(SETS) for rate in RATES for _ in RATIOS]
    np.testing.assert_allclose(rows["snr_db"], SETS * 3 * RATIOS, atol=0.05)
    for name in ("label", "age_requested", "sex_requested", "age", "sex", "donor_ecg_id", "donor_fold", "scp_codes", "noise_kinds"):
        assert all(value == of_one[0] for of_one in by_set(rows[name]) for value in of_one), name
    assert len(set(rows["donor_ecg_id"])) > SETS / 2 and len(set(map(str, rows["noise_kinds"]))) > 2
    for of_one in by_set(rows["texture_ecg_id"]):
        assert of_one[0] == of_one[1] == of_one[2] and of_one[3] == of_one[4] == of_one[5]
        assert of_one[0][0] == of_one[3][0] == of_one[6][0]  # whose drift it is
        assert set(of_one[0]) <= set(of_one[6])  # the slowest has fewer beats
    assert sum(not flags for flags in rows["flags"]) > 0.8 * len(rows["flags"])


@pytest.mark.slow
@pytest.mark.parametrize("length_s", [None, 4])
def test_noise_is_the_same_and_scaled_on_the_record_that_the_request_makes_without_vary(tmp_path, length_s):
    noise = ADDED | ({"length_s": length_s} if length_s else {})
    ecg, rows = made_with(tmp_path, {"snr_db": [24, 6]}, noise=noise)
    clean, clean_rows = plain(tmp_path)
    assert [of_one[0] for of_one in by_set(rows["donor_ecg_id"])] == clean_rows["donor_ecg_id"]
    faint, loud = (ecg[:, at, MODELLED] - clean[:, MODELLED] for at in range(2))
    factor = 10 ** (18 / 20)
    assert np.abs(loud - factor * faint).max() <= 0.5 + 0.5 * factor  # rounding of both to microvolts
    assert np.abs(faint).max(axis=(1, 2)).min() > 10


@pytest.mark.slow
def test_alpha_is_how_much_of_one_texture_a_record_has(tmp_path):
    ecg, rows = made_with(tmp_path, {"alpha": [1, 0, 0.5]})
    whole, none, half = (ecg[:, at, MODELLED] for at in range(3))
    assert np.abs((half - none) - (whole - none) / 2).max() <= 1.5
    assert (np.abs(whole - none).max(axis=(1, 2)) > 10).all()
    assert rows["alpha"] == SETS * [1, 0, 0.5] and max(rows["prd_pct"][1::3]) < 0.5 < min(rows["prd_pct"][0::3])
    first, clean = by_set(rows["donor_ecg_id"]), plain(tmp_path)
    same = np.array([of_one[0] for of_one in first]) == clean[1]["donor_ecg_id"]
    assert same.sum() > SETS / 2 and np.array_equal(ecg[same, 0], clean[0][same])


def test_at_another_rate_each_beat_has_the_same_qrs(tmp_path):
    """Without texture: the donor's beats in the same order, copied sample by sample."""
    plan = plan_of(tmp_path, records=3 * SETS, alpha=0, mix=MIX, vary={"hr_bpm": RATES})
    ecg, rows, beats = make_all(plan)
    said = [row for row in beats.to_pylist() if row["symbol"] in "NVA/Q"]
    r = [[row["sample"] for row in said if row["record"] == record] for record in range(3 * SETS)]
    compared = 0
    for at in range(SETS):
        slow, *others = (r[3 * at + place] for place in range(3))
        for place, fast in enumerate(others, 1):
            inside = [beat for beat in range(len(slow)) if 4 < slow[beat] < 995 and 4 < fast[beat]]
            for beat in inside:
                one, other = (ecg[3 * at + which, :, r0 - 2 : r0 + 3] for which, r0 in ((0, slow[beat]), (place, fast[beat])))
                np.testing.assert_array_equal(one, other)
                compared += 1
    assert compared > 12 * SETS
    measured = np.array(rows["hr_bpm_measured"]).reshape(SETS, 3)
    assert np.abs(measured - RATES).max() < 3


@pytest.mark.slow
def test_turns_are_about_one_axis_and_electrodes_move_one_way(tmp_path):
    """Of a turn, what changes its sign with the angle goes as its sine, and what does not as one minus its cosine."""
    ecg, _ = made_with(tmp_path, {"axis_deg": [0, 20, -20, 40, -40]}, alpha=0, attempts=1)
    none, right, left, further, back = (ecg[:, at, MODELLED].astype(float) for at in range(5))
    odd = np.sin(np.deg2rad(40)) / np.sin(np.deg2rad(20))
    np.testing.assert_allclose(further - back, odd * (right - left), atol=1 + odd)
    even = (1 - np.cos(np.deg2rad(40))) / (1 - np.cos(np.deg2rad(20)))
    np.testing.assert_allclose(further + back - 2 * none, even * (right + left - 2 * none), atol=2 + 2 * even)
    assert (np.abs(right - none).max(axis=(1, 2)) > 50).all()
    np.testing.assert_array_equal(none, plain(tmp_path, alpha=0, attempts=1)[0][:, MODELLED])
    moved, _ = made_with(tmp_path, {"electrode": [0, 0.2, 0.4]}, alpha=0, attempts=1)
    near, far = (moved[:, at, MODELLED] - moved[:, 0, MODELLED] for at in (1, 2))
    assert np.abs(far - 2 * near).max() <= 3 and (np.abs(near).max(axis=(1, 2)) > 10).all() and not near[:, :2].any()
    np.testing.assert_array_equal(moved[:, 0, MODELLED], none)


def test_a_stated_turn_is_that_by_which_a_drawn_one_turns():
    from ecg_batch.draws import Stream, generator

    for key in range(20):
        angle = np.clip(generator(3, key, Stream.VARIATION).standard_normal(2)[1], -2, 2) * 10
        np.testing.assert_allclose(lead_matrix(Variation(axis_deg=10), 3, key), lead_matrix(Variation(), 3, key, angle), atol=1e-12)


# Asked, and one donor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [{"mix": MIX}, {"mix": None, "cohort": {"hr_spread": 0.2}}], ids=["mix", "cohort"])
def test_a_set_asks_what_a_record_of_its_number_asks(tmp_path, what):
    varied = plan_of(tmp_path, records=400, **what, vary={"alpha": [0, 1, 2, 1.5, 0.5]})
    asked, of_sets = (query_source(one.request, Path("unused")) for one in (varied, plan_of(tmp_path, records=80, **what)))
    for start, stop in ((0, 400), (3, 4), (4, 6), (123, 251)):
        found, records = asked(start, stop), np.arange(start, stop)
        assert found.record.tolist() == records.tolist() and found.key.tolist() == (records // 5).tolist()
        expected = of_sets(0, 80).take(records // 5)
        for name in set(COLUMNS) - {"record"}:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_donor_serves_all_rates_of_its_set():
    table = read_table(BUNDLED)
    index = index_donors(table, range(1, 9))
    queries = Queries(np.arange(400), np.full(400, "NORM"), np.full(400, 52, np.float32), np.full(400, np.nan, np.float32),
                      np.full(400, -1, np.int8))  # fmt: skip
    uniforms = np.random.default_rng(5).random((400, 60))
    at = np.searchsorted(index.rows, retrieve(index, queries, uniforms, (52, 48, 84)))
    assert (index.slowest_bpm[at] <= 48).all() and (index.fastest_bpm[at] >= 84).all()
    assert (np.abs(np.log(table.hr_bpm[index.rows[at]][..., None] / (48, 84))) < np.log(1.6)).all()
    own_bpm = table.hr_bpm[index.rows]
    fit = (own_bpm > 84 / 1.6) & (own_bpm < 48 * 1.6) & (index.slowest_bpm <= 48) & (index.fastest_bpm >= 84)
    anyone = np.flatnonzero(fit & index.table.holds("NORM")[index.rows])
    assert np.array_equal(np.unique(at), anyone) and len(anyone) > 100, "who asks for no age gets any of them"
    middle = np.searchsorted(index.rows, retrieve(index, queries, uniforms))
    assert (index.fastest_bpm[middle] < 84).any(), "the middle rate by itself would take donors that contradict the highest"


# However it is cut ----------------------------------------------------------------------------------------------------


HARD = {"records": 175, "batch": 256, "shard": 256, "mix": {"labels": {"AFIB": 0.5, "CLBBB": 0.5}},
        "vary": {"hr_bpm": [46, 60, 75, 90, 104]}}  # fmt: skip


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """Sets at rates and of labels that donors often miss: (plan, ecg, rows)."""
    plan = plan_of(tmp_path_factory.mktemp("hard"), **HARD)
    return plan, *make(plan)




@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The rows of the same with one attempt."""
    return make(plan_of(tmp_path_factory.mktemp("once"), **HARD, attempts=1))[1]


@pytest.mark.slow
def test_a_set_that_misses_is_drawn_again_as_a_whole(hard, once):
    """Another donor for all of it, where that gives fewer flags."""
    _, _, rows = hard
    donors, flags = ([[of_run[name][at : at + 5] for at in range(0, 175, 5)] for of_run in (rows, once)]
                     for name in ("donor_ecg_id", "flags"))  # fmt: skip
    changed = 0
    for now, before, said, said_before in zip(*donors, *flags, strict=True):
        assert len(set(now)) == 1
        count, count_before = (sum(len(one.split(",")) for one in each if one) for each in (said, said_before))
        assert count < count_before if now != before else count <= count_before
        changed += now != before
    assert changed > 1


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "shard"), [(64, 64), (32, 128)])
def test_the_same_bytes_where_batches_and_shards_cut_sets(hard, tmp_path, batch, shard):
    plan, ecg, rows = hard
    again = plan_of(tmp_path, **HARD | {"batch": batch, "shard": shard})
    cut, cut_rows = make(again, [again.shards[1], again.shards[0]])
    order = np.r_[shard : min(2 * shard, 175), :shard]
    np.testing.assert_array_equal(cut, ecg[order])
    assert {name: values for name, values in cut_rows.items() if name != "shard"} == {
        name: [values[at] for at in order] for name, values in rows.items() if name != "shard"
    }


def test_a_record_by_itself_is_as_among_its_set(hard, once):
    """Also one that would pass with the first donor, where others of its set do not."""
    plan, ecg, rows = hard
    synthesizer, queries = open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 175)
    moved = [at for at in range(175) if rows["donor_ecg_id"][at] != once["donor_ecg_id"][at]]
    assert any(once["flags"][at] == "" for at in moved)
    for at in ([0], [7], [14, 15], [33, 170], *([at] for at in moved), moved[::2]):
        alone = make_batch(synthesizer, queries.take(np.array(at)))
        np.testing.assert_array_equal(alone.ecg, ecg[at])
        assert [",".join(flags) for flags in alone.flags] == [rows["flags"][one] for one in at]
        assert alone.queries.record.tolist() == at and len(alone.timings) == len(at)


@pytest.mark.slow
def test_a_dataset_of_sets_is_verified_and_gives_a_set_by_its_number(tmp_path):
    request = write_request(tmp_path, records=150, batch=64, shard=64, mix=MIX, noise=ADDED,
                            vary={"hr_bpm": [60, 80], "snr_db": [20, 10, 0]})  # fmt: skip
    synthesize(load_request(request), tmp_path / "dataset", 1, open_generator)
    assert list(verify(tmp_path / "dataset")) == []
    dataset = open_dataset(tmp_path / "dataset")
    pair = dataset.where(pair_id=10)  # records 60 to 65, which two shards share
    assert len(pair) == 6 and len(set(pair.records["donor_ecg_id"].to_pylist())) == 1
    assert pair.records["hr_bpm_requested"].to_pylist() == [60, 60, 60, 80, 80, 80]
    assert set(dataset.records["shard"].to_numpy()[60:66]) == {0, 1}


# Long records ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [30, 75])
def test_long_records_of_a_set_are_alike_in_all_but_what_is_named(tmp_path, duration_s):
    """As records of ten seconds: against the request without vary, in batches that cut sets."""
    sizes = {30: {"batch": 64, "shard": 64}, 75: {"batch": 3, "shard": 3}}[duration_s]
    asked = {"duration_s": duration_s, "mix": {"labels": {"NORM": 1}}, **sizes}
    noise = ADDED | {"per_hour": 200, "length_s": {"uniform": [5, 20]}}
    plan = plan_of(tmp_path, records=8, vary={"snr_db": [18, 0], "alpha": [1, 0]}, noise=noise, **asked)
    (ecg, rows, beats), (clean, clean_rows, clean_beats) = map(made_long, (plan, plan_of(tmp_path, records=2, **asked)))
    assert rows["pair_id"] == 4 * [0] + 4 * [1] and rows["alpha"] == pytest.approx([1, 0] * 4)
    assert rows["donor_ecg_id"] == [donor for donor in clean_rows["donor_ecg_id"] for _ in range(4)]
    for at in range(8):
        assert sorted(beats[at]) == sorted(clean_beats[at // 4])
    ecg, clean = (each[:, MODELLED].astype(np.int32) for each in (ecg, clean))
    for number in range(2):
        faint, faint_bare, loud, loud_bare = ecg[4 * number : 4 * number + 4]
        noise_uv, factor = faint - clean[number], 10 ** (18 / 20)
        assert np.abs(loud - clean[number] - factor * noise_uv).max() <= 0.5 + 0.5 * factor and np.abs(noise_uv).max() > 10
        np.testing.assert_array_equal(faint - faint_bare, loud - loud_bare)  # the texture


def made_long(plan):
    """(ecg, rows, (sample, symbol) of all beats by record)."""
    generate, queries_of = open_generator(plan), query_source(plan.request, Path("unused"))
    ecg, rows, beats = [], {}, []
    for shard in plan.shards:
        made = generate(shard, plan.request.batch, queries_of, lambda done: None)
        if plan.request.is_streamed:
            blocks = np.concatenate(list(made.blocks), axis=-1)
            made = (blocks, *made.tables())
        ecg.append(made[0])
        rows = {name: rows.get(name, []) + made[1][name].to_pylist() for name in made[1].column_names}
        for table in made[2]:
            said = [row for row in table.select(["record", "sample", "symbol"]).to_pylist() if row["symbol"] in "NVA/Q"]
            for record in dict.fromkeys(table["record"].to_pylist()):
                beats.append([(row["sample"], row["symbol"]) for row in said if row["record"] == record])
    return np.concatenate(ecg), rows, beats
