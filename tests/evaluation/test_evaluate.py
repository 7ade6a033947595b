"""The evaluation exposes what it is meant to expose, and runs from a dataset to a page."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from making import write_request
from places import ROOT
from ptbxl_layout import write_record, write_tables
from real_sets import bundled_records, few_donors, write_few_donors

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.plan import read_plan
from ecg_batch.errors import UserError, need
from ecg_batch.evaluation import fidelity, privacy, sections, sets, usefulness, validity
from ecg_batch.evaluation import usefulness_rows as evaluate_usefulness
from ecg_batch.evaluation.labelled import from_ptbxl, from_rows, together
from ecg_batch.evaluation.report import evaluate_dataset
from ecg_batch.evaluation.scores import macro_auroc
from ecg_batch.evaluation.train_judge import JudgeTraining, train_judge, turned_and_scaled
from ecg_batch.leads import MODELLED_INDEX, identity_residual, twelve_leads
from ecg_batch.models.judge import JudgeConfig, embed, filtered, load_judge, superclasses
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.signal.vcg import DOWER, INVERSE_DOWER
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.synthesizer import open_synthesizer

rng = np.random.default_rng(0)
LABELS = {"NORM": 0.2, "MI": 0.2, "STTC": 0.2, "CD": 0.2, "HYP": 0.2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """256 records of donors of folds 1 to 4."""
    folder = tmp_path_factory.mktemp("evaluated")
    mix = {"labels": LABELS, "hr_bpm": {"uniform": [55, 100]}, "age": {"uniform": [25, 85]}, "sex": {"female": 0.5, "male": 0.5}}
    request = load_request(write_request(folder, records=256, batch=64, shard=256, donor_folds=[1, 2, 3, 4], mix=mix,
                                         bank=str(write_few_donors(folder / "bank"))))  # fmt: skip
    synthesize(request, folder / "dataset", 1, open_generator)
    return folder / "dataset"


@pytest.fixture(scope="module")
def made(dataset):
    opened = open_dataset(dataset)
    return from_rows(opened.raw[:], opened.records, opened.fs_hz)


@pytest.fixture(scope="module")
def real():
    """(donors' folds, patients that are no donors)."""
    records = bundled_records()
    return records.in_folds(1, 2, 3, 4), records.in_folds(5, 6, 7, 8)


@pytest.fixture(scope="module")
def encoder():
    return load_judge(BUNDLED / "encoder.safetensors")[0]


@pytest.fixture(scope="module")
def features(encoder, real, made):
    return {
        name: embed(encoder, filtered(part.ecg, 100)) for name, part in zip(("train", "new", "made"), (*real, made), strict=True)
    }


# Exposed by the metric meant for it -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_copies_are_exposed_by_the_distance_ratio(real, made):
    train, new = real[0].take(np.arange(120)), real[1].take(np.arange(60))
    some = made.take(np.isin(made.ecg_id, train.ecg_id)).take(np.arange(40))
    copies, honest = (privacy.attacks(part, train, new) for part in (train.take(np.arange(40)), some))
    assert copies["distance ratio, synthetic"] == 0 and copies["re-identified share"] == 1 and copies["membership AUC"] > 0.6
    assert honest["distance ratio, synthetic"] > 0.05 and honest["distance ratio, held-out real"] > 0.8


@pytest.mark.slow
def test_white_noise_is_exposed_by_frechet_kid_and_coverage(encoder, features, made):
    noise = (rng.standard_normal((200, 12, 1000)) * 200).astype(np.int16)
    fake, floor = embed(encoder, filtered(noise, 100)), sections.distances(features["train"], features["new"])
    exposed, honest = (sections.distances(x, features["new"]) for x in (fake, features["made"]))
    assert exposed["Frechet"] > 10 * floor["Frechet"] > 5 * honest["Frechet"] / 2 and exposed["KID"] > 10 * honest["KID"]
    assert exposed["coverage"] < 0.15 < 0.6 < honest["coverage"]
    qrs = [[validity.measure(ecg, 100)["QRS"] for ecg in ecgs] for ecgs in (noise[:20], made.ecg[:40])]
    assert validity.ks(*map(np.array, qrs)) > 0.8


@pytest.mark.slow
def test_shuffled_labels_are_exposed_by_the_judge(made):
    predicted = superclasses(load_judge(BUNDLED / "judge.safetensors")[0], filtered(made.ecg, 100))
    assert macro_auroc(made.labels, predicted) > 0.8
    assert abs(macro_auroc(made.labels[rng.permutation(len(made))], predicted) - 0.5) < 0.1


@pytest.mark.slow
def test_one_donor_repeated_is_exposed_by_use_and_coverage(made, features):
    one = made.take(np.repeat(np.flatnonzero(made.ecg_id == made.ecg_id[0]), 50)[:100])
    use = privacy.donor_use(one)
    assert use["donor patients"] == 1 and use["share of the top patient"] == 1 and use["effective patients"] == pytest.approx(1)
    assert privacy.donor_use(made)["effective patients"] > 50
    repeated = features["made"][np.repeat(0, 100)] + rng.standard_normal((100, features["made"].shape[1])) * 1e-3
    assert fidelity.prdc(features["new"], repeated)["coverage"] < 0.1 < fidelity.prdc(features["new"], features["made"])["coverage"]


@pytest.mark.slow
def test_noise_of_the_same_beats_is_no_new_patient(features, made):
    """Within-donor spread: 0 for copies of donors, 1 when donors do not matter."""
    twice = np.concatenate([features["made"], features["made"]])
    doubled = replace(made, ecg_id=np.arange(len(made))).take(np.tile(np.arange(len(made)), 2))
    assert privacy.within_donor_spread(twice, doubled) == pytest.approx(0, abs=1e-9)
    shuffled = replace(made, ecg_id=rng.integers(0, 5, len(made)))
    assert privacy.within_donor_spread(features["made"], shuffled) == pytest.approx(1, abs=0.1)


# Metrics by hand ------------------------------------------------------------------------------------------------------


def test_frechet_of_two_normals_by_hand():
    """Means 3 apart, standard deviations 1 and 2 in each of two dimensions: 9 + 2 (1 - 2)^2 = 11."""
    x = rng.standard_normal((40_000, 2))
    y = 2 * rng.standard_normal((40_000, 2)) + [3, 0]
    assert fidelity.frechet(x, y) == pytest.approx(11, rel=0.03)
    assert fidelity.frechet(x, x) == pytest.approx(0, abs=1e-6)


def test_kid_is_zero_in_the_mean_for_one_distribution_and_grows_with_distance():
    sets = [rng.standard_normal((80, 6)) for _ in range(40)]
    same = np.mean([fidelity.kid(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)])
    assert abs(same) < 0.1 < fidelity.kid(sets[0], sets[1] + 1) < fidelity.kid(sets[0], sets[1] + 2)


def test_prd_and_alignment_by_hand():
    x = np.sin(np.arange(200) / 7)[None]
    assert fidelity.prd_pct(1.1 * x, x)[0] == pytest.approx(10)
    moved = np.roll(x, 13, axis=-1)
    assert fidelity.prd_pct(fidelity.aligned(moved, x), x)[0] == pytest.approx(0, abs=1e-9) and fidelity.prd_pct(moved, x)[0] > 50


def test_matching_pairs_equal_diagnoses_and_uses_nobody_twice():
    labels, like = rng.random((300, 5)) < 0.3, rng.random((100, 5)) < 0.3
    rows, at = fidelity.matched(labels, like, np.random.default_rng(1))
    assert np.array_equal(labels[rows], like[at]) and len(set(rows)) == len(rows) > 50


def test_the_axis_and_rate_are_what_the_leads_say():
    """A beat that is 1 mV in I and nothing in aVF has its axis at 0 degrees; II = aVF + I / 2."""
    beat = np.exp(-((np.arange(1000) % 80 - 40) ** 2) / 6)
    for i, avf, degrees in ((1, 0, 0), (0, 1, 90), (1, np.sqrt(3) / 2, 45), (-1, 0, 180)):
        modelled = np.stack([i * beat, (avf + i / 2) * beat, *[beat] * 6]) * 1000
        found = validity.measure(twelve_leads(np.rint(modelled).astype(np.int32)).astype(np.int16), 100)
        assert abs(abs(found["axis"]) - degrees) < 3 and found["HR"] == pytest.approx(75, abs=0.2)


# Usefulness ---------------------------------------------------------------------------------------------------


def test_a_gain_is_seen_and_no_gain_is_not():
    """Nine folds of 100 records: a classifier, one as good with other noise, one that knows the second class better."""
    folds, draw = (*range(1, 9), 10), np.random.default_rng(4)
    truth = {fold: draw.random((100, 2)) < 0.3 for fold in folds}

    def classifier(*sharpness):
        p = {fold: 0.5 + sharpness * (y - 0.5) + draw.normal(0, 0.5, y.shape) for fold, y in truth.items()}
        return [usefulness.Tested(fold, truth[fold], p[fold], p[fold] >= 0.5, np.arange(100)) for fold in folds]

    base, as_good, better = classifier(0.6, 0.6), classifier(0.6, 0.6), classifier(0.6, 1.2)
    none, gain = (usefulness.summarise(runs, base)["gain"] for runs in (as_good, better))
    for score in ("AUROC", "F1"):
        assert none[score][1] < 0 < none[score][2] and 0 < gain[score][1] < gain[score][0]
    told = np.concatenate([run.probability for run in better])
    assert usefulness.pooled(better)["AUROC"] == pytest.approx(macro_auroc(np.concatenate(list(truth.values())), told))
    with pytest.raises(ValueError, match="same folds"):
        usefulness.summarise(better[:3], base)


def test_intervals_are_of_patients_and_not_of_their_records():
    """The same 60 answers, of 60 patients or each five times of 12; and three trainings of one fold bring no new patients."""
    truth = np.repeat(np.random.default_rng(1).random((12, 1)) < 0.5, 5, axis=0)
    p = np.where(truth, 0.6, 0.4) + np.repeat(np.random.default_rng(2).normal(0, 0.15, (12, 1)), 5, axis=0)

    def width(patient, trainings=1):
        runs = [usefulness.Tested(10, truth, p, p >= 0.5, patient)] * trainings
        _, low, high = usefulness.summarise(runs)["AUROC"]
        return high - low

    alone, five_each = width(np.arange(60)), width(np.repeat(np.arange(12), 5))
    assert five_each > 1.5 * alone and width(np.repeat(np.arange(12), 5), 3) > 0.8 * five_each


def test_a_gain_of_few_trainings_is_no_surer_than_they_agree():
    """Ten gains of three trainings each, which differ by chance alone: the interval holds 0 mostly, as 95 % should."""
    draw, held = np.random.default_rng(7), 0
    truth = draw.random((400, 1)) < 0.5
    for _ in range(10):
        sides = [[usefulness.Tested(10, truth, p, p >= 0.5, np.arange(400))
                  for p in (truth * sharpness + draw.normal(0, 1, truth.shape) for sharpness in 1.5 + draw.normal(0, 0.3, 3))]
                 for _ in range(2)]  # fmt: skip
        _, low, high = usefulness.summarise(*sides)["gain"]["AUROC"]
        held += low < 0 < high
    assert held >= 9


def test_trainings_of_other_classes_are_not_taken_for_these(made, real):
    some = sets.Sets(*real, *real, made, None, {}, {}, {}, {}, ("AFIB", "NORM"), ("AFIB",), None)
    others = replace(some, rare_statements=("CLBBB",))
    assert evaluate_usefulness.data_of(some, "run") == evaluate_usefulness.data_of(replace(some), "run")
    assert evaluate_usefulness.data_of(some, "run") != evaluate_usefulness.data_of(others, "run")


def test_whoever_lent_the_noise_of_one_beat_is_among_a_records_patients(made, dataset):
    """Records of 10 s may have the noise of twenty people: the last of them may be of the test fold."""
    rows = open_dataset(dataset).records
    lent = [set(held) for held in rows["texture_patient_id"].to_pylist()]
    assert max(map(len, lent)) > 6
    both = together(made.take(np.arange(3)), made.take(np.arange(3, len(made))))
    for named, others, host in zip(both.patients.tolist(), lent, made.patient_id.tolist(), strict=True):
        assert set(named) - {-1} == others | {host}


def test_records_of_few_patients_hold_nobody_else(dataset, ptbxl, monkeypatch):
    monkeypatch.setattr(sets, "shares_of", lambda real: (0.5,))
    real = from_ptbxl(ptbxl)
    synthesizer = open_synthesizer(sets.with_this_software(read_plan(dataset)))
    made = sets.of_few_patients(synthesizer, real, TINY.of(real), iter)
    assert list(made) == [usefulness.few_name(0.5, 10, 10)]
    allowed = usefulness.few_patients(real.patients, real.fold, 0.5, 10, 10)
    assert len(made[usefulness.few_name(0.5, 10, 10)]) == TINY.records and 1 < len(allowed) <= len(set(real.patient_id)) / 2
    for records in made.values():
        assert np.isin(records.patients, [*allowed, -1]).all() and len(np.unique(records.patient_id)) > 1


def test_what_an_evaluation_spends_goes_by_the_size_of_ptbxl(real):
    _, few = real
    whole = few.take(np.resize(np.arange(len(few)), 1200))
    in_fold = [replace(part, fold=np.full(len(part), 10)) for part in (few.take(np.arange(100)), whole)]
    assert sets.Settings().of(in_fold[0]).folds == 9 and sets.Settings().of(in_fold[0]).seeds == 1
    assert sets.Settings().of(in_fold[1]).folds == 1 and sets.Settings().of(in_fold[1]).seeds == 3
    assert sets.Settings(steps=7, folds=3).of(in_fold[1]).steps == 7 and sets.Settings(folds=3).of(in_fold[1]).folds == 3


def test_turned_and_scaled_leads_stay_leads_and_what_is_no_dipole_stays_as_it_is():
    ecg = twelve_leads(rng.normal(size=(5, 8, 50)))
    turned = turned_and_scaled(torch.from_numpy(ecg).float(), np.random.default_rng(3)).double().numpy()
    assert identity_residual(turned).max() < 1e-5
    before, after = ecg[:, MODELLED_INDEX], turned[:, MODELLED_INDEX]
    longer = np.linalg.norm(INVERSE_DOWER @ after, axis=1) / np.linalg.norm(INVERSE_DOWER @ before, axis=1)  # (record, time)
    assert longer.min() > 0.99 and longer.max() < 1.51 and longer.std() > 0.05
    rest = np.eye(8) - DOWER @ INVERSE_DOWER
    assert np.abs(rest @ (after - before)).max() < 0.01 < 0.5 < np.abs(after - before).max()


def test_nobody_of_the_test_fold_is_trained_on():
    patients, fold = np.array([[1, -1, -1], [2, -1, -1], [3, -1, -1], [4, -1, -1], [5, -1, -1]]), np.array([1, 2, 8, 9, 10])
    made = np.array([[1, -1, -1], [1, 3, -1], [2, -1, -1], [3, 2, 1], [77, -1, -1]])
    assert usefulness.may_train(made, patients, fold, 8).tolist() == [True, False, True, False, True]
    assert usefulness.may_train(patients, patients, fold, 10).tolist() == [True, True, True, False, False]


def test_rare_statements_are_those_that_can_be_learned_and_chosen(real):
    train, choice = real
    found = sets.rare_statements(train, choice, ["AFIB", "NORM", "CLBBB", "LVH", "WPW"])
    for code in found:
        assert 20 <= train.holds(code).sum() < 0.1 * len(train) and choice.holds(code).sum() >= 3
    assert "NORM" not in found and "WPW" not in found and found


# From a dataset to a page ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ptbxl(tmp_path_factory):
    """A PTB-XL in which donors of folds 5 and 6 play folds 9 and 10: none of them is a donor of `dataset`."""
    folder, records, held = tmp_path_factory.mktemp("ptbxl"), bundled_records(), few_donors()
    (folder / "records100" / "00000").mkdir(parents=True)
    rows = []
    for fold, plays, count in ((1, 1, 30), (2, 2, 30), (3, 3, 30), (5, 9, 40), (6, 10, 40)):
        for at in np.flatnonzero(records.fold == fold)[:count]:
            name, donor = f"{records.ecg_id[at]:05d}_lr", int(np.flatnonzero(held.table.ecg_id == records.ecg_id[at])[0])
            write_record(folder / "records100" / "00000", name, records.ecg[at])
            rows.append({"ecg_id": int(records.ecg_id[at]), "patient_id": float(records.patient_id[at]), "age": 60.0, "sex": 0,
                         "scp_codes": str({c: float(p) for c, p in held.table.scp_codes(donor).items()}), "strat_fold": plays,
                         "filename_lr": f"records100/00000/{name}", "filename_hr": ""})  # fmt: skip
    write_tables(folder, rows, held.table)
    return folder


@pytest.fixture(scope="module")
def judges(ptbxl, tmp_path_factory):
    folder, tiny = tmp_path_factory.mktemp("judges"), JudgeConfig(widths=(8, 12), blocks=1, stem_stride=4)
    for seed, name in enumerate(("judge", "encoder")):
        train_judge(from_ptbxl(ptbxl), folder, tiny, JudgeTraining(steps=4, look_every=2, seed=seed), name)
    return folder


TINY = sets.Settings(folds=2, few_folds=1, steps=2, records=64, compared=30, delineated=4, workers=1, told_seeds=1,
                         told_steps=10)


@pytest.mark.slow
def test_a_tiny_evaluation_from_dataset_to_page_twice_the_same(dataset, ptbxl, judges, tmp_path, monkeypatch):
    rows = evaluate_usefulness.ablation_rows
    for module in (evaluate_usefulness, sets):
        monkeypatch.setattr(module, "shares_of", lambda real: (0.25,))
    monkeypatch.setattr(evaluate_usefulness, "ablation_rows", lambda smaller: rows(smaller)[-3:])
    monkeypatch.setattr(sets, "RARE", 0.5)  # of 90 records a tenth is too few to learn from
    monkeypatch.setattr(sets, "FEWEST_TAUGHT", 8)
    monkeypatch.setattr(sets, "OF_FOLDS", 4)
    monkeypatch.setattr(sections, "FIDELITY_DRAWS", 2)
    monkeypatch.setattr(usefulness, "DRAWS", 10)
    one = evaluate_dataset(dataset, ptbxl, tmp_path / "one", TINY, judges=judges)
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 6 and "http://" not in page and 'src="/' not in page
    report = json.loads((tmp_path / "one" / "report.json").read_bytes())
    assert set(report) >= {"bars", "first lines", "usefulness", "fidelity"} and report["usefulness"]["rare statements"]
    few, some = report["usefulness"]["donors of smaller banks"].values()
    assert 0 < few < some and set(report["usefulness"]["donors of smaller banks"]) < set(report["fidelity"]["rows"])
    json.loads((tmp_path / "one" / "report.json").read_bytes(), parse_constant=pytest.fail)  # no NaN: browsers cannot read it
    runs = (tmp_path / "one" / "trainings.jsonl").read_text().splitlines()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "trainings.jsonl").write_text("\n".join(runs[4:]) + "\n" + runs[0][:50])  # killed in the middle of a line
    two = evaluate_dataset(dataset, ptbxl, tmp_path / "two", TINY, judges=judges)
    for name in ("usefulness", "fidelity", "distortion", "clinical validity", "diversity and privacy", "judge"):
        assert json.dumps(one[name]) == json.dumps(two[name]), name


@pytest.mark.slow
def test_windows_of_long_records_are_held_against_their_donors_recordings(ptbxl, tmp_path):
    mix = {"labels": LABELS, "hr_bpm": {"uniform": [55, 100]}}
    request = load_request(write_request(tmp_path, records=32, batch=32, shard=64, duration_s=60, donor_folds=[1, 2, 3, 4], mix=mix,
                                         bank=str(write_few_donors(tmp_path / "bank"))))  # fmt: skip
    synthesize(request, tmp_path / "dataset", 1, open_generator)
    report = evaluate_dataset(tmp_path / "dataset", ptbxl, tmp_path / "report", TINY)
    told, opened = report["two-sample test"], open_dataset(tmp_path / "dataset")
    known = np.isin(opened.records["donor_ecg_id"], from_ptbxl(ptbxl).ecg_id)
    assert told["records"] == [2 * known.sum(), len(set(opened.records["donor_ecg_id"].to_numpy()[known]))] and known.any()
    assert {bar["what"].split(",")[0] for bar in report["bars"]} > {"two-sample test"} and "windows" in report["first lines"][0]
    assert "Two-sample test" in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.slow
def test_a_patient_of_the_test_fold_among_the_donors_is_refused(made, real):
    with pytest.raises(UserError, match="folds 9 and 10 are among"):
        sets.refuse_leak("runs/x", made, real[0].take(np.flatnonzero(real[0].patient_id == made.patient_id[0])))
    sets.refuse_leak("runs/x", made, real[1])


@pytest.mark.slow
def test_a_judge_that_saw_the_test_fold_is_refused(dataset, ptbxl, tmp_path):
    """The bundled judge was trained on the patients who play fold 10 here."""
    with pytest.raises(UserError, match="trained on patients of this test fold"):
        evaluate_dataset(dataset, ptbxl, tmp_path, TINY, skip=("usefulness",))


@pytest.mark.slow
@pytest.mark.parametrize(("words", "says"), [
    (["nowhere", "--ptbxl", "x"], "no dataset"),
    (["nowhere", "--ptbxl", "x", "--set", "seed=3"], "unknown key 'seed'"),
])  # fmt: skip
def test_the_job_says_what_is_wrong(tmp_path, words, says):
    job = [sys.executable, str(ROOT / "jobs" / "evaluate.py"), *words, "--out", str(tmp_path)]
    done = subprocess.run(job, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_a_missing_extra_is_named():
    with pytest.raises(UserError, match=r"no_such_package not installed.*\.\[evaluate\]"):
        need("evaluate", "json", "no_such_package")


@pytest.mark.slow
def test_an_ablation_without_a_change_is_the_dataset(dataset, made):
    from ecg_batch.evaluation.ablations import ablations
    from ecg_batch.synthesis.source import query_source

    plan = read_plan(dataset)
    again = ablations(open_synthesizer(plan), 100, {"same": {}}, query_source(plan.request, dataset), {})["same"]
    assert np.array_equal(again.ecg[:64], made.ecg[:64])
