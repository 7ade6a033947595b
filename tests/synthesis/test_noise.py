"""Noise by request: at the ratio that was asked, where the row says, and nothing else of a record changes."""

from pathlib import Path

import numpy as np
import pytest
from making import make, plan_of
from prd import skeletons_uv
from scipy.signal import butter, sosfiltfilt

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.rows import NOISE_COLUMNS, mask_of
from ecg_batch.donors.bank import read_bank
from ecg_batch.leads import LEADS, MODELLED_INDEX, identity_residual, twelve_leads
from ecg_batch.request.model import MODELLED_NOISE
from ecg_batch.statements import NOISE_KINDS
from ecg_batch.synthesis.batch import candidate_rows
from ecg_batch.synthesis.generate import make_batches
from ecg_batch.synthesis.noise import RAIL_UV, intervals, power_of_leads
from ecg_batch.synthesis.noise_models import ELECTRODES, LEADS_OF, electrode_noise
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

FEW = {"records": 64, "batch": 64, "shard": 64}
II, III, AVR, AVL, AVF = 1, 2, 3, 4, 5


def made_with(tmp_path_factory, noise: dict | None, **changes):
    plan = plan_of(tmp_path_factory.mktemp("noise"), **{**FEW, **changes}, **({"noise": noise} if noise is not None else {}))
    ecg, rows = make(plan)
    return plan, ecg.astype(np.int32), rows


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return made_with(tmp_path_factory, None)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """made(noise, key=value, ...) -> (plan, ecg, rows), once for each."""
    kept = {}

    def made(noise: dict | None, **changes):
        if (named := repr((noise, changes))) not in kept:
            kept[named] = made_with(tmp_path_factory, noise, **changes)
        return kept[named]

    return made


def fast_power(x: np.ndarray) -> np.ndarray:
    """Above 0.5 Hz: (record, 12, time) -> (record, 12)."""
    x = x.astype(np.float64)
    return np.square(x - sosfiltfilt(butter(2, 0.5, fs=100, output="sos"), x, axis=-1)).mean(axis=-1)


# The ratio ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("level", [-6, 12, 24])
@pytest.mark.parametrize("kinds", [{"muscle": 1}, {"electrode": 1}, {"baseline": 1}, {"muscle": 1, "electrode": 1, "baseline": 1},
                                   {"static_noise": 1}, {"burst_noise": 1, "muscle": 1}],
                         ids=["muscle", "electrode", "baseline", "mixed", "recorded", "both"])  # fmt: skip
def test_beats_to_noise_is_what_was_asked_and_each_lead_what_its_row_says(clean, noisy, kinds, level):
    """By definition: against the skeleton made again, and the difference from the same record without noise."""
    plan, ecg, rows = noisy({"snr_db": level, "kinds": kinds})
    untouched = np.array([not masked for masked in rows["masked"]])
    assert untouched.mean() > 0.9
    beats, added = fast_power(skeletons_uv(clean[0], clean[2])), fast_power(ecg - clean[1])
    of_record = 10 * np.log10(beats.sum(axis=1) / added.sum(axis=1))
    np.testing.assert_allclose(rows["snr_db"], level, atol=0.05)
    np.testing.assert_allclose(of_record[untouched], level, atol=0.1)
    loud = untouched[:, None] & (added > 30)  # in aVR, aVL and aVF halves of microvolts are rounded
    by_lead = np.array(rows["snr_db_by_lead"], float)  # NaN where all rounds to nothing
    np.testing.assert_allclose(by_lead[loud], 10 * np.log10(beats[loud] / added[loud]), atol=0.1)
    assert loud.mean() > 0.3 and {name for names in rows["noise_kinds"] for name in names} == set(kinds)


@pytest.mark.slow
def test_lead_identities_hold_and_all_else_of_the_record_is_as_without_noise(clean, noisy):
    _, ecg, rows = noisy({"snr_db": {"uniform": [-6, 24]}})
    assert identity_residual(ecg).max() <= 0.5
    assert tuple(rows)[-4:] == NOISE_COLUMNS and {name: rows[name] for name in clean[2]} == clean[2]
    levels = np.array([level for level in rows["snr_db"] if level is not None])
    assert levels.min() > -6.01 and levels.max() < 24.01 and levels.std() > 5
    assert {name for names in rows["noise_kinds"] for name in names} >= {"muscle", "electrode", "baseline"}
    assert (ecg != clean[1]).any(axis=(1, 2)).all()


@pytest.mark.slow
def test_recorded_noise_is_of_those_in_whom_it_was_seen_and_its_row_names_them(clean, noisy):
    plan, ecg, rows = noisy({"snr_db": 6, "kinds": {"static_noise": 1, "electrodes_problems": 0.1}}, donor_folds=[1, 2, 3])
    _, without, own = noisy(None, donor_folds=[1, 2, 3])
    lenders = ("texture_ecg_id", "texture_patient_id", "texture_fold")
    assert {name: rows[name] for name in own if name not in lenders} == {name: own[name] for name in own if name not in lenders}
    assert (ecg != without).any(axis=(1, 2)).all() and {name for names in rows["noise_kinds"] for name in names} <= set(NOISE_KINDS)
    bank = read_bank(BUNDLED)
    kinds = [NOISE_KINDS.index(kind) for kind in ("static_noise", "electrodes_problems")]
    seen = set(bank.table.ecg_id[bank.noise[:, kinds].any(axis=(1, 2))].tolist())
    for at in range(64):
        texture = own["texture_ecg_id"][at]
        assert rows["texture_ecg_id"][at][: len(texture)] == texture and set(rows["texture_fold"][at]) <= {1, 2, 3}
        assert rows["donor_patient_id"][at] not in rows["texture_patient_id"][at]
        assert set(rows["texture_ecg_id"][at][len(texture) :]) <= seen
    assert sum(len(rows["texture_ecg_id"][at]) > len(own["texture_ecg_id"][at]) for at in range(64)) > 60


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [{}, {"kinds": {"static_noise": 1, "burst_noise": 1}}], ids=["usual", "recorded"])
def test_the_same_bytes_in_any_batch_and_shard(noisy, tmp_path, kinds):
    asked = {"snr_db": {"uniform": [-6, 24]}} | kinds
    _, ecg, rows = noisy(asked)
    plan = plan_of(tmp_path, records=192, batch=32, shard=64, noise=asked)
    again, rows_again = make(plan, [plan.shards[2], plan.shards[0]])
    np.testing.assert_array_equal(again[64:], ecg)
    assert {name: values[64:] for name, values in rows_again.items()} == rows


@pytest.mark.slow
def test_noise_of_a_part_leaves_the_rest_alone_and_comes_and_goes(clean, noisy):
    _, ecg, rows = noisy({"snr_db": 0, "length_s": 4, "kinds": {"muscle": 1}})
    changed = (ecg != clean[1]).any(axis=1)
    first, last = changed.argmax(axis=1), 999 - changed[:, ::-1].argmax(axis=1)
    assert (last - first < 400).all() and (last - first > 380).all() and first.min() < 100 and last.max() > 900
    for at, start in enumerate(first):
        edge = np.abs(ecg - clean[1])[at, :, start : start + 3].max()
        assert edge < 0.5 * np.abs(ecg - clean[1])[at].max()


def test_noise_is_low_passed_as_the_record_is(tmp_path):
    """Nothing that is added lies above the edge."""
    plan = plan_of(tmp_path, **{**FEW, "records": 4}, lowpass_hz=20, noise={"snr_db": 0, "kinds": {"muscle": 1}})
    bare = plan_of(tmp_path, **{**FEW, "records": 4}, lowpass_hz=20)
    added = make(plan)[0].astype(float) - make(bare)[0]
    power = np.square(np.abs(np.fft.rfft(added))).sum(axis=(0, 1))
    assert power[400:].sum() < 0.01 * power.sum()  # from 40 Hz on; without a low-pass a sixth


# Faults ---------------------------------------------------------------------------------------------------------------


def mask(rows: dict, at: int) -> np.ndarray:
    return mask_of(rows["masked"][at], 1000)


@pytest.mark.slow
def test_an_electrode_that_is_off_is_masked_in_its_leads_which_show_no_beats(clean, noisy):
    _, ecg, rows = noisy({"kinds": {"lead_off": 1}})
    assert rows["snr_db"] == [None] * 64 and rows["snr_db_by_lead"] == [[None] * 12] * 64
    limbs = {"RA": {"I", "II"}, "LA": {"I"}, "LL": {"II"}}
    seen = set()
    for at in range(64):
        masked = mask(rows, at)
        assert (masked.all(axis=1) | ~masked.any(axis=1)).all()
        off = {LEADS[lead] for lead in np.flatnonzero(masked.any(axis=1))}
        seen.add(frozenset(off & {"I", "II"}) or frozenset(off))
        fed = off & {"I", "II"} or off
        assert all((ecg[at, LEADS.index(lead)] == 0).all() for lead in fed)
        if not off & {"I", "II"}:
            assert len(off) == 1
            others = [lead for lead in range(12) if LEADS[lead] not in off]
            np.testing.assert_array_equal(ecg[at, others], clean[1][at, others])
        else:
            assert off == {"III", "aVR", "aVL", "aVF"} | (off & {"I", "II"})
    assert seen == {frozenset(leads) for leads in limbs.values()} | {frozenset({f"V{n}"}) for n in range(1, 7)}
    assert identity_residual(ecg).max() <= 0.5


@pytest.mark.slow
def test_a_lost_limb_leaves_wilsons_terminal_the_mean_of_the_others(clean, noisy):
    """Worked out from potentials: against the mean of the limbs, LA is (I - III) / 3, LL (II + III) / 3, RA -(I + II) / 3."""
    _, ecg, rows = noisy({"kinds": {"lead_off": 1}})
    checked = set()
    for at in range(64):
        off = {place.partition(":")[0] for place in rows["masked"][at]} & {"I", "II"}
        lost = {("I", "II"): "RA", ("I",): "LA", ("II",): "LL"}.get(tuple(sorted(off)))
        if lost:
            i, ii, iii, *_, v2, _, _, _, _ = clean[1][at].astype(float)
            potentials = {"RA": -(i + ii) / 3, "LA": (i - iii) / 3, "LL": (ii + iii) / 3}
            terminal = np.mean([potentials[limb] for limb in potentials if limb != lost], axis=0)
            np.testing.assert_allclose(ecg[at, LEADS.index("V2")], v2 - terminal, atol=1)
            checked.add(lost)
    assert checked == {"RA", "LA", "LL"}


@pytest.mark.slow
def test_arms_exchanged_turn_lead_i_and_change_the_places_of_others(clean, noisy):
    _, ecg, rows = noisy({"kinds": {"swapped": 1}})
    assert rows["noise_kinds"] == [["swapped"]] * 64 and rows["masked"] == [[]] * 64
    was = clean[1]
    np.testing.assert_array_equal(ecg[:, 0], -was[:, 0])
    np.testing.assert_array_equal(ecg[:, [II, III]], was[:, [III, II]])
    assert np.abs(ecg[:, [AVR, AVL]] - was[:, [AVL, AVR]]).max() <= 1  # halves are rounded
    np.testing.assert_allclose(ecg[:, AVF:], was[:, AVF:], atol=1)
    _, louder, said = noisy({"kinds": {"swapped": 1, "muscle": 1e-3}, "snr_db": 6})
    added = fast_power(louder - ecg)
    beats = fast_power(skeletons_uv(clean[0], clean[2]))[:, [0, 2, 1, 4, 3, *range(5, 12)]]
    both = np.array([names == ["muscle", "swapped"] for names in said["noise_kinds"]])
    assert both.mean() > 0.9
    np.testing.assert_allclose(np.array(said["snr_db_by_lead"])[both], (10 * np.log10(beats / added))[both], atol=0.2)


@pytest.mark.slow
def test_a_converter_ends_where_it_is_masked_and_only_there(clean, noisy):
    _, ecg, rows = noisy({"kinds": {"clipped": 1}})
    modelled, before = ecg[:, list(MODELLED_INDEX)], clean[1][:, list(MODELLED_INDEX)]
    for at in range(64):
        masked, rail = mask(rows, at), np.abs(modelled[at]).max()
        assert 0.3 * np.abs(before[at]).max() < rail < 0.95 * np.abs(before[at]).max()
        np.testing.assert_array_equal(masked[list(MODELLED_INDEX)], np.abs(before[at]) >= rail)
        np.testing.assert_array_equal(masked[[2, 3, 4, 5]], np.broadcast_to(masked[0] | masked[1], (4, 1000)))
        np.testing.assert_array_equal(ecg[at][~masked], clean[1][at][~masked])
    assert identity_residual(ecg).max() <= 0.5


@pytest.mark.slow
def test_what_no_converter_holds_is_masked_too(clean, noisy):
    _, ecg, rows = noisy({"snr_db": -20, "kinds": {"baseline": 1}})
    assert np.abs(ecg[:, list(MODELLED_INDEX)]).max() == RAIL_UV and identity_residual(ecg).max() <= 0.5
    masked = np.stack([mask(rows, at) for at in range(64)])
    np.testing.assert_array_equal(masked[:, list(MODELLED_INDEX)], np.abs(ecg[:, list(MODELLED_INDEX)]) == RAIL_UV)


def test_masks_there_and_back_again():
    masked = np.random.default_rng(0).random((12, 300)) < 0.3
    names = [f"{lead}:{start}-{stop}" for lead, start, stop in intervals([(0, masked[:, :100]), (100, masked[:, 100:])])]
    np.testing.assert_array_equal(mask_of(names, 300), masked)
    assert intervals([(0, np.zeros((12, 9), bool))]) == [] and not mask_of([], 9).any()


# The models -----------------------------------------------------------------------------------------------------------


def test_an_arms_noise_goes_into_both_limb_leads_and_a_third_of_it_into_each_chest_lead():
    right_arm = np.eye(9)[ELECTRODES.index("RA")]
    np.testing.assert_allclose(LEADS_OF @ right_arm, [-1, -1, *[-1 / 3] * 6])
    np.testing.assert_allclose(LEADS_OF @ np.ones(9), 0, atol=1e-15)  # what all electrodes have in common is in no lead


def test_power_of_twelve_leads_from_eight():
    modelled = np.random.default_rng(0).normal(size=(3, 8, 50))
    np.testing.assert_allclose(power_of_leads(modelled), np.square(twelve_leads(modelled)).sum(axis=-1))


@pytest.mark.parametrize("samples", [100, 1000, 1377])
@pytest.mark.parametrize("kind", MODELLED_NOISE)
@pytest.mark.parametrize("fs_hz", [100, 500])
def test_every_kind_is_finite_of_any_length_and_drawn_from_its_numbers_alone(kind, samples, fs_hz):
    one, same, other = (electrode_noise(kind, np.random.default_rng(seed), samples, fs_hz) for seed in (1, 1, 2))
    assert one.shape == (9, samples) and np.isfinite(one).all() and one.std() > 0
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_where_the_power_of_each_kind_lies():
    draws, hz = np.random.default_rng(0), np.fft.rfftfreq(5000, 0.002)

    def share(kind: str, low: float, high: float) -> float:
        x = np.concatenate([electrode_noise(kind, draws, 5000, 500) for _ in range(20)])
        power = np.square(np.abs(np.fft.rfft(x * np.hanning(5000)))).sum(axis=0)
        return power[(hz >= low) & (hz < high)].sum() / power.sum()

    assert share("muscle", 5, 110) > 0.9 and share("muscle", 0, 2) < 0.01
    assert share("electrode", 0, 10) > 0.9 and share("electrode", 0.5, 10) > 0.15
    assert share("baseline", 0, 0.5) > 0.9
    assert share("mains", 49, 61) > 0.9
    lines = {round(hz[np.abs(np.fft.rfft(electrode_noise("mains", draws, 5000, 500)[0])).argmax()]) for _ in range(20)}
    assert lines == {50, 60}


@pytest.mark.slow
def test_each_kind_comes_as_often_as_its_weight_says(tmp_path):
    """The first of a record, of 512; half of them have a second."""
    asked = {"kinds": {"muscle": 3, "electrode": 1}}
    plan = plan_of(tmp_path, records=512, batch=64, shard=512, noise=asked, alpha=0.0)
    _, rows = make(plan)
    first = np.array([names[0] for names in rows["noise_kinds"]])
    assert abs((first == "muscle").mean() - 0.75) < 0.07
    assert abs(np.mean([len(names) == 2 for names in rows["noise_kinds"]]) - 0.5) < 0.08


@pytest.mark.slow
def test_the_gate_judges_the_record_without_noise(tmp_path):
    """At -15 dB no beat can be seen, and donors, rates and flags are those of the clean record."""
    plan = plan_of(tmp_path, **FEW, noise={"snr_db": -15, "kinds": {"muscle": 1}})
    synthesizer, queries = open_synthesizer(plan), query_source(plan.request, Path("unused"))(0, 64)
    (batch,) = make_batches(synthesizer, [queries])
    candidates = candidate_rows(synthesizer, queries)
    assert (batch.donor_row == candidates[:, 0]).mean() > 0.9
    assert np.mean([flags == [] for flags in batch.flags]) > 0.95 and np.isfinite(batch.measured_bpm).all()
