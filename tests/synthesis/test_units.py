"""Texture by units: recorded noise of other patients, where the new beats are."""

from dataclasses import fields, replace

import numpy as np
import pytest
from making import make, make_all, plan_of, write_request

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import TABLE_COLUMNS, Bank, read_bank
from ecg_batch.errors import UserError
from ecg_batch.models.sequences.unit_model import load_unit_model
from ecg_batch.request.parse import load_request
from ecg_batch.signal.filters import band, low_pass
from ecg_batch.signal.noise import NO_UNIT, counted, has_unit
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.units import DRIFT_HZ, LENDERS, RECENT, REST_HZ, Laid, heard, level_by_type, rest_of, unit_index


@pytest.fixture(scope="module")
def bank():
    return read_bank(BUNDLED)


@pytest.fixture(scope="module")
def model():
    return load_unit_model(BUNDLED / "units.safetensors")


@pytest.fixture(scope="module")
def index(bank, model):
    return unit_index(bank, tuple(range(1, 9)), model)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_of(tmp_path_factory.mktemp("units"), records=256, shard=128)


@pytest.fixture(scope="module")
def made(plan):
    return make(plan)


def units_of(index, row):
    return np.flatnonzero(index.units.row == row)


@pytest.mark.slow
def test_a_donors_units_laid_under_its_own_beats_are_its_own_texture(bank, index):
    """The law: nothing is invented, moved or lost where the new beats are the recorded ones."""
    for row in range(0, len(bank.table), 200):
        r, own = bank.beats(row), units_of(index, row)
        laid = Laid(r, own[np.clip(np.arange(len(r)) - 1, 0, len(own) - 1)])
        start, stop = index.units.r[own[0]], index.units.r[own[-1]]  # outside, the first and last beats have the units of others
        again = rest_of(index, laid, start, stop)
        drift = np.rint(low_pass(bank.texture[row].astype(np.float64), REST_HZ, bank.table.fs_hz))
        np.testing.assert_array_equal(again, (bank.texture[row] - drift)[:, start:stop])


def test_the_slow_part_of_one_person_and_the_rest_of_another_have_the_power_of_one_at_every_frequency():
    """Filters whose amplitudes add up to one would leave a dip of 3 dB where they meet."""
    pulse = np.zeros(4000)
    pulse[2000] = 1.0
    rest, slow = pulse - low_pass(pulse, REST_HZ, 100), low_pass(pulse, DRIFT_HZ, 100)
    power_db = 10 * np.log10(sum(np.abs(np.fft.rfft(part)) ** 2 for part in (rest, slow)))
    assert np.abs(power_db).max() < 0.2


def test_any_stretch_is_the_same_bits(bank, index):
    r = np.cumsum(np.random.default_rng(0).integers(50, 130, 60)) - 80
    laid = Laid(r, np.random.default_rng(1).integers(0, len(index.units), 60))
    whole = rest_of(index, laid, 0, 3000)
    pieces = [rest_of(index, laid, start, stop) for start, stop in ((0, 41), (41, 42), (42, 1900), (1900, 3000))]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)


def test_beats_that_are_not_heard_change_nothing_and_name_nobody(index):
    rng = np.random.default_rng(3)
    for bpm in (35, 60, 90, 150, 200):
        r = np.cumsum(np.maximum(6000 / bpm * rng.uniform(0.6, 1.6, 80), 20).astype(int)) - 400
        laid, ((start,), (stop,)) = Laid(r, rng.integers(0, len(index.units), 80)), heard(r, np.array([80]), 1000)
        some = slice(start, stop)
        np.testing.assert_array_equal(rest_of(index, laid, 0, 1000), rest_of(index, Laid(r[some], laid.unit[some]), 0, 1000))
        assert some.stop - some.start <= ((r >= 0) & (r < 1000)).sum() + 3


def test_no_unit_comes_again_within_ten_seconds(index):
    """But where there are fewer of its kind: noise that repeats is told, and teaches what no recording has."""
    for host in (3, 500, 2000):
        codes = np.full(40, 17)  # all ask for the same
        chosen = index.rendered(host, codes, np.ones(40, bool))
        assert all(len(set(chosen[at : at + RECENT + 1])) == len(chosen[at : at + RECENT + 1]) for at in range(40))
        few = index.rendered(host, codes, np.zeros(40, bool))
        assert not index.units.ordinary[few].any() or index.units.ordinary[index.lent(host)].all()


def test_units_go_on_as_recorded_where_they_can(index):
    """Noise of another person at each beat is told over 25 Hz, however alike in level (docs/evidence/realism.md)."""
    rng = np.random.default_rng(0)
    hosts = rng.choice(index.rows, 100, replace=False)
    codes = index.drawn(hosts, rng.random((100, 12)), 1.0)
    chosen = np.stack([index.rendered(int(host), own, np.ones(12, bool)) for host, own in zip(hosts, codes, strict=True)])
    goes_on = (np.diff(chosen) == 1) & (np.diff(index.units.row[chosen]) == 0)
    assert 0.45 < goes_on.mean() < 0.8


@pytest.mark.slow
def test_noise_is_silent_in_each_qrs_and_loudest_beside_it(index):
    """As in recordings. Noise that does not know where the beats are is told from real at once."""
    inside, outside = [], []
    for row in range(0, 200, 7):
        r, own = np.arange(-70, 1100, 83), units_of(index, index.lenders(row)[0])
        texture = rest_of(index, Laid(r, own[np.arange(len(r)) % len(own)]), 0, 1000)
        since = np.arange(1000) - r[np.argmin(np.abs(np.arange(1000)[:, None] - r), axis=1)]
        fast = band(texture, (8, 40), 100)
        inside.append(np.sqrt(np.square(fast[:, np.abs(since) < 4]).mean()))
        outside.append(np.sqrt(np.square(fast[:, (since > 15) & (since < 35)]).mean()))
    assert np.median(np.array(inside) / np.array(outside)) < 0.6


@pytest.mark.slow
def test_units_are_of_other_patients_of_the_folds_that_are_allowed(tmp_path):
    _, rows = make(plan_of(tmp_path, records=128, donor_folds=[1, 2, 5]))
    assert all(2 <= len(held) == len(set(held)) <= 40 for held in rows["texture_ecg_id"])
    assert {fold for held in rows["texture_fold"] for fold in held} <= {1, 2, 5}
    assert all(host not in held for host, held in zip(rows["donor_patient_id"], rows["texture_patient_id"], strict=True))
    assert len({one for held in rows["texture_ecg_id"] for one in held}) > 200


@pytest.mark.parametrize("how", [{}, {"duration_s": 30, "records": 4}, {"texture": "decoded"}], ids=["10 s", "long", "decoded"])
def test_each_beat_names_who_lent_its_noise(tmp_path, how):
    """One of those whom the record's row names, which are they and who lent the drift; nobody where texture was decoded."""
    _, rows, beats = make_all(plan_of(tmp_path, **{"records": 16, **how}))
    named, of, symbol = beats["texture_ecg_id"].to_pylist(), beats["record"].to_pylist(), beats["symbol"].to_pylist()
    lent = {record: {one for one, at in zip(named, of, strict=True) if at == record} - {None} for record in rows["record"]}
    for record, held in zip(rows["record"], rows["texture_ecg_id"], strict=True):
        assert lent[record] <= set(held) and len(set(held) - lent[record]) <= (3 if "duration_s" not in how else 16)
    is_beat = np.isin(symbol, ["N", "V", "A", "/", "Q"])
    assert all((one is not None) == ("texture" not in how) for one, beat in zip(named, is_beat, strict=True) if beat)
    assert all(one is None for one, symbol in zip(named, symbol, strict=True) if symbol == "+")


def test_lenders_are_as_loud_as_the_donors_own_texture(bank, index):
    """Lead by lead: the nearest of many is alike, and a stranger is not."""
    rows = np.arange(0, len(bank.table), 19)
    lenders = [index.lenders(row) for row in rows]
    patient = bank.table.patient_id
    assert all(len(of) == LENDERS and (patient[of] != patient[row]).all() for row, of in zip(rows, lenders, strict=True))
    gaps = [np.abs(index.level[of] - index.level[row]).mean() for row, of in zip(rows, lenders, strict=True)]
    strange = [np.abs(index.level[(row + 100) % len(bank.table)] - index.level[row]).mean() for row in rows]
    assert np.mean(gaps) < 0.65 * np.mean(strange)


def test_a_code_is_rendered_by_the_nearest_unit_of_a_lender(index):
    codes, (_, usual) = np.arange(0, 512, 37), level_by_type(index.bank, index.level)
    for host in (3, 500, 2000):
        pool = index.lent(host)
        chosen = np.concatenate([index.rendered(host, codes[[k]], np.ones(1, bool)) for k in range(len(codes))])
        assert np.isin(index.units.row[pool], index.lenders(host)).all() and index.units.ordinary[chosen].all()
        wanted = index.level[host] + usual[host] + index.model.codebook[codes]
        pool = pool[index.units.ordinary[pool]]
        gap = np.square(counted(index.units.level[pool][:, None] - wanted)).sum(axis=-1)  # (unit, beat)
        np.testing.assert_allclose(np.square(counted(index.units.level[chosen] - wanted)).sum(axis=-1), gap.min(axis=0))


@pytest.mark.slow
def test_the_noise_is_as_loud_as_the_donors_own_although_it_is_others(index):
    """Lead by lead and band by band: 2 steps are 1.1 dB."""
    rng = np.random.default_rng(0)
    hosts = rng.choice(index.rows, 200, replace=False)
    codes = index.drawn(hosts, rng.random((200, 12)), 1.0)
    laid = [index.units.level[index.rendered(int(host), own, np.ones(12, bool))] for host, own in zip(hosts, codes, strict=True)]
    off = np.stack(laid).mean(axis=1) - index.level[hosts]  # (record, lead * band)
    assert np.abs(off).mean() < 2.5 and np.abs(off.mean()) < 0.7


def test_ectopic_beats_take_the_noise_of_such_beats_where_there_is_any(index):
    host = next(row for row in range(300) if (~index.units.ordinary[index.lent(row)]).sum() > 20)
    chosen = index.rendered(host, np.arange(10), np.arange(10) % 2 == 0)
    np.testing.assert_array_equal(index.units.ordinary[chosen], np.arange(10) % 2 == 0)


@pytest.mark.slow
def test_ectopic_beats_are_as_loud_as_the_hosts_own_and_quieter_than_others(bank, index):
    """A rare beat keeps in the skeleton what is texture elsewhere."""
    other, usual = level_by_type(bank, index.level)
    there, kinds = has_unit(bank.unit_level)[:, :-2], bank.beat_type[:, 1:-1]
    hosts = [host for host in range(len(bank.table)) if {0, 1} <= set(kinds[host][there[host]] > 0)]
    for host in hosts[:20]:
        for found, which in ((other, there[host] & (kinds[host] > 0)), (usual, there[host] & (kinds[host] == 0))):
            mean = bank.unit_level[host, :-2][which].astype(float).mean(axis=0).ravel()
            np.testing.assert_allclose(index.level[host] + found[host], mean, atol=0.51)
    none = np.setdiff1d(np.arange(len(bank.table)), hosts)
    assert not usual[none].any() and (other[none] == np.rint(np.median(other[hosts], axis=0))).all()
    assert other[hosts].mean() < -2 and abs(usual[hosts].mean()) < 1.5  # in steps of half a decibel


def test_a_bank_of_before_is_measured_at_opening(bank, model):
    few = slice(0, 40)
    table = replace(bank.table, **{name: getattr(bank.table, name)[few] for name in TABLE_COLUMNS})
    arrays = {field.name: getattr(bank, field.name)[few] for field in fields(bank) if field.name != "table"}
    of_now = unit_index(Bank(table, **arrays), tuple(range(1, 9)), model)
    before = unit_index(Bank(table, **{**arrays, "unit_level": None, "beat_type": None, "noise": None}), tuple(range(1, 9)), model)
    np.testing.assert_array_equal(before.units.r, of_now.units.r)
    np.testing.assert_array_equal(before.level, of_now.level)
    assert (before.bank.beat_type >= 0).sum() == (before.bank.r_sample >= 0).sum() and not before.bank.noise.any()
    assert (of_now.bank.unit_level == NO_UNIT).any()


@pytest.mark.slow
def test_a_record_is_a_pure_function(plan, made):
    """Of another batch, from the middle of its shard, with other records made before: the same bits."""
    ecg, rows = make(replace(plan, request=replace(plan.request, batch=32)))
    np.testing.assert_array_equal(ecg, made[0])
    assert rows == made[1]


@pytest.mark.slow
def test_records_are_good_and_nothing_is_decoded(made, monkeypatch, tmp_path):
    assert np.mean([flags == "" for flags in made[1]["flags"]]) > 0.95
    assert set(made[1]["alpha"]) == {1.0}
    monkeypatch.setattr("ecg_batch.models.decode.load_models", lambda *args: pytest.fail("models are not needed"))
    open_generator(plan_of(tmp_path, records=64, shard=64))


@pytest.mark.parametrize(("change", "says"), [
    ({"judge": {"steps": 5}}, "judge moves the latent"),
    ({"device": "cuda"}, "device is a GPU's"),
    ({"lowpass_hz": "off"}, "a number from 1 to 250, or none"),
    ({"prd_limit_pct": 0}, "a number from 0.1 to 100, or none"),
    ({"texture": "unit"}, "needed units or decoded"),
])  # fmt: skip
def test_what_does_not_go_with_units_is_refused(tmp_path, change, says):
    with pytest.raises(UserError, match=says.replace("'", ".?")):
        load_request(write_request(tmp_path, **change))


@pytest.mark.slow
def test_one_patient_alone_has_nobody_to_lend_texture(bank, model):
    alone = replace(bank, table=replace(bank.table, patient_id=np.zeros_like(bank.table.patient_id)))
    with pytest.raises(UserError, match="of fewer than two"):
        unit_index(alone, tuple(range(1, 9)), model)


def test_drift_is_what_is_slow(bank, index):
    drift, texture = index.drift(0), bank.texture[0]
    assert np.abs(band(drift, (5, 40), 100)).max() < 0.05 * np.abs(band(texture - drift, (5, 40), 100)).max()
