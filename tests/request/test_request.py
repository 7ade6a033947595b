"""A request says what it means or is refused with the file, the key, and what to do."""

import json

import pytest
from fakes import MIX

from ecg_batch.errors import UserError
from ecg_batch.request.model import Distribution, request_from_resolved
from ecg_batch.request.parse import load_request


def refusal(path, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        load_request(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampling_rate": 100}, ["unknown key 'sampling_rate'", "known keys: alpha, attempts"]),
        ({"record": 5}, ["unknown key 'record' (did you mean records?)"]),
        ({"records": "many"}, ["records is 'many'; needed a whole number"]),
        ({"records": 0}, ["records is 0; needed a whole number from 1 to 1,000,000,000"]),
        ({"records": True}, ["records is True; needed a whole number"]),
        ({"records": None}, ["records is missing"]),
        ({"alpha": float("nan")}, ["alpha is '.nan'; needed a number from 0 to 2"]),
        ({"duration_s": 9}, ["duration_s is 9; needed a whole number from 10 to 86,400"]),
        ({"duration_s": 86_401}, ["duration_s is 86401; needed a whole number from 10 to 86,400"]),
        ({"duration_s": 3600}, ["shard is 128 and batch 64", "Leave shard out"]),
        ({"rhythm": {"lf_hz": 0.1}}, ["rhythm is given", "over 10"]),
        ({"duration_s": 60, "variation": {"rr_cv": 0.1}}, ["variation is given", "too long for the judge"]),
        ({"duration_s": 3600, "batch": 8, "shard": 8, "format": "hdf5"}, ["format is hdf5", "into Zarr alone"]),
        (
            {"duration_s": 60, "rhythm": {"lf_dept": 0.1}},
            ["unknown key 'rhythm.lf_dept' (did you mean lf_depth?)", "known keys: atrial_coupling_ratio"],
        ),
        ({"duration_s": 60, "rhythm": {"lf_depth": 5}}, ["rhythm.lf_depth is 5; needed a number from 0 to 0.15"]),
        ({"duration_s": 60, "rhythm": {"lf_depth": "deep"}}, ["rhythm.lf_depth is 'deep'; needed a number"]),
        ({"duration_s": 60, "rhythm": {"lf_depth": True}}, ["rhythm.lf_depth is True; needed a number"]),
        ({"duration_s": 60, "rhythm": {"fibrillation_short_refractory_s": 0.9}}, ["exchange them"]),
        ({"duration_s": 60, "rhythm": {"order": "chance"}}, ["rhythm.order is 'chance'", "mamba", "rules"]),
        ({"duration_s": 60, "rhythm": {"atrial_coupling_ratio": 0.6}}, ["is of the rules", "order: rules"]),
        ({"duration_s": 60, "rhythm": {"order": "mamba"}, "events": {"v_beat": 9}}, ["with events rules say", "Leave order out"]),
        ({"duration_s": 60, "events": {}, "rhythm": {"order": "rules", "atrial_coupling_ratio": 0.6}}, ["habits of a patient"]),
        ({"duration_s": 60, "rhythm": [1]}, ["rhythm is [1]; needed keys below it: atrial_coupling_ratio"]),
        ({"duration_s": 60, "rhythm": {"start_hour": 25}}, ["rhythm.start_hour is 25; needed a number from 0 to 24"]),
        ({"duration_s": 60, "mix": {"labels": {"NORM": 1}, "hr_bpm": 240}}, ["mix.hr_bpm", "25 to 229 bpm"]),
        ({"fs_hz": 250}, ["fs_hz is 250; needed 100 or 500"]),
        ({"lowpass_hz": 60}, ["lowpass_hz is 60", "50 Hz"]),
        ({"shard": 100}, ["shard is 100", "multiple of batch (64)", "Use 128"]),
        ({"donor_folds": [0, 1]}, ["donor_folds is [0, 1]", "1 to 10"]),
        ({"device": "tpu"}, ["device is 'tpu'; needed cpu or cuda"]),
        ({"table": "t.csv"}, ["found mix and table of mix, table, cohort", "--set mix=null"]),
        ({"mix": None}, ["found none of mix, table, cohort"]),
        ({"mix": {"labels": {"NORM": 0.5, "MI": 0.4}}}, ["mix.labels sums to 0.9, not 1"]),
        ({"mix": {"labels": {"NORM": 1}, "hr": 70}}, ["unknown key 'mix.hr'"]),
        ({"mix": {"labels": {"NORM": 1}, "hr_bpm": 10}}, ["mix.hr_bpm is 10; needed a number from 20 to 300"]),
        ({"mix": {"labels": {"NORM": 1}, "hr_bpm": {"uniform": [90, 60]}}}, ["the lower number comes first: [60, 90]"]),
        ({"mix": {"labels": {"NORM": 1}, "hr_bpm": {"gamma": [1, 2]}}}, ["needed a number from 20 to 300, {uniform"]),
        (
            {"mix": {"labels": {"NORM": 1}, "age": {"normal": [30, 1], "within": [90, 99]}}},
            ["next to nothing within [90, 99]"],
        ),
        ({"mix": {"labels": {"NORM": 1}, "sex": "other"}}, ["mix.sex is 'other'; needed female, male, or shares"]),
        (
            {"mix": {"labels": {"SBRAD": 1}, "hr_bpm": {"uniform": [80, 90]}}},
            ["label SBRAD", "up to 65 bpm", "80 to 90"],
        ),
        ({"mix": {"labels": {"STACH": 1}, "hr_bpm": 70}}, ["label STACH", "from 95 bpm"]),
        ({"cohort": {}}, ["found mix and cohort of"]),
        ({"mix": None, "cohort": "donors"}, ["cohort is 'donors'; needed keys below it: hr_spread, labels"]),
        ({"mix": None, "cohort": {"hr_sd": 0.1}}, ["unknown key 'cohort.hr_sd'"]),
        ({"mix": None, "cohort": {"hr_spread": 2}}, ["cohort.hr_spread is 2; needed a number from 0 to 0.5"]),
        ({"noise": {"snr": 6}}, ["unknown key 'noise.snr' (did you mean snr_db?)", "known keys: kinds, length_s, per_hour"]),
        ({"noise": True}, ["noise is True; needed keys below it: kinds, length_s, per_hour, snr_db"]),
        ({"noise": {"snr_db": 40}}, ["noise.snr_db is 40; needed a number from -20 to 30"]),
        ({"noise": {"snr_db": {"uniform": [20, 10]}}}, ["noise.snr_db.uniform is [20, 10]; the lower number comes first"]),
        ({"noise": {"kinds": {"hum": 1}}}, ["unknown key 'noise.kinds.hum'", "known keys: baseline, baseline_drift, burst_noise"]),
        ({"noise": {"kinds": {"muscle": -1}}}, ["noise.kinds.muscle is -1; needed a number from 0 to 1,000"]),
        ({"noise": {"kinds": {"muscle": 0}}}, ["noise.kinds has no kind with a weight", "one or more of muscle"]),
        ({"noise": {"kinds": {"mains": 1}}}, ["noise.kinds.mains is 1, but at fs_hz 100 nothing is left", "500 Hz"]),
        ({"noise": {"kinds": {"lead_off": 1}, "snr_db": 3}}, ["nothing is added to the beats", "Leave snr_db out"]),
        ({"noise": {"per_hour": 3}}, ["noise.per_hour is given, but a record of 10 s has noise once"]),
        ({"noise": {"length_s": 900}}, ["noise.length_s is 900; needed a number from 1 to 300"]),
        ({"duration_s": 60, "noise": {"kinds": {"swapped": 1}}}, ["noise.kinds.swapped is 1", "noise in episodes"]),
        ({"mix": None, "records": None, "cohort": {}}, ["records is missing: a cohort has no length"]),
        ({"vary": {}}, ["vary names nothing; needed one or more of hr_bpm, snr_db, alpha, axis_deg, electrode"]),
        ({"vary": {"sex": [0, 1]}}, ["unknown key 'vary.sex'", "known keys: alpha, axis_deg, electrode, hr_bpm, snr_db"]),
        ({"vary": {"alpha": [1]}}, ["vary.alpha is [1]; needed two values or more"]),
        ({"vary": {"alpha": []}}, ["vary.alpha is []; needed two values or more"]),
        ({"vary": {"alpha": [1, 0, 1.0]}}, ["vary.alpha names 1 twice"]),
        ({"vary": {"alpha": 1}}, ["vary.alpha is 1; needed a list of numbers from 0 to 2, as [0, 2]"]),
        ({"vary": {"alpha": [1, 3]}}, ["vary.alpha is [1, 3]; needed a list of numbers from 0 to 2"]),
        ({"vary": {"snr_db": [6, "loud"]}}, ["vary.snr_db is [6, 'loud']; needed a list of numbers from -20 to 30"]),
        ({"vary": {"hr_bpm": [10, 60]}}, ["vary.hr_bpm is [10, 60]; needed a list of numbers from 20 to 300"]),
        (
            {"vary": {"alpha": [0, 1, 2], "axis_deg": [*range(11)], "electrode": [0, 0.2]}},
            ["vary makes sets of 3 x 11 x 2 = 66 records; needed 64 or fewer"],
        ),
        ({"vary": {"alpha": [0, 1, 2]}, "records": 541}, ["records is 541, but vary makes sets of 3", "Ask for 540 or 543"]),
        ({"vary": {"alpha": [0, 1, 2]}, "records": 2}, ["vary makes sets of 3 records", "Ask for 3"]),
        ({"vary": {"alpha": [0, 1]}, "alpha": 1}, ["alpha is given, and vary.alpha as well", "Leave one out"]),
        ({"vary": {"hr_bpm": [60, 70]}}, ["mix.hr_bpm is given, and vary.hr_bpm as well", "Leave one out"]),
        ({"vary": {"hr_bpm": [60, 70]}, "mix": {"labels": {"SBRAD": 1}}}, ["vary.hr_bpm has 70, but SBRAD means a rate up to 65"]),
        ({"vary": {"hr_bpm": [60, 70]}, "mix": None, "cohort": {}}, ["a cohort asks for rates as its donors have them"]),
        (
            {"vary": {"hr_bpm": [60, 70]}, "mix": {"labels": {"NORM": 1}}, "duration_s": 60},
            ["vary.hr_bpm is given, but at another rate a record over 10 s has other beats"],
        ),
        ({"vary": {"axis_deg": [0, 9]}, "duration_s": 60}, ["vary.axis_deg is given, but in records over 10 s", "Leave it out"]),
        ({"vary": {"snr_db": [6, 0]}}, ["vary.snr_db is given, but no noise is asked for", "Add noise: {}"]),
        ({"vary": {"snr_db": [6, 0]}, "noise": {"snr_db": 3}}, ["noise.snr_db is given, and vary.snr_db as well"]),
        ({"vary": {"snr_db": [6, 0]}, "noise": {"kinds": {"clipped": 1}}}, ["vary.snr_db is given, but nothing is added"]),
        ({"vary": {"axis_deg": [0, 9]}, "variation": {"axis_deg": 5}}, ["variation.axis_deg is given, and vary.axis_deg as well"]),
        ({"vary": {"alpha": [0, 1]}, "texture": "decoded"}, ["texture is decoded", "Say texture: units, or leave vary out"]),
    ],
)
def test_what_cannot_be_made_is_refused(write_request, changes, said):
    path = write_request(**changes)
    message = refusal(path)
    assert message.startswith(str(path))
    for words in said:
        assert words in message


def test_a_file_that_is_no_request_is_refused(tmp_path):
    assert "cannot read the request" in refusal(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert "the request is [1]; needed 'key: value' lines" in refusal(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("records: [1\n")
    assert "not valid YAML" in refusal(tmp_path / "broken.yaml")


def test_overrides(write_request):
    request = load_request(write_request(), ["records=100", "mix.hr_bpm=70", "mix.labels={MI: 1.0}", "mix.sex=female"])
    assert request.records == 100
    assert request.mix.hr_bpm == Distribution(70.0, 70.0)
    assert request.mix.labels == (("MI", 1.0),)
    assert request.mix.female == 1.0
    assert "needed key=value" in refusal(write_request(), "records")
    assert "with --set mix.hr_bpm=700: mix.hr_bpm is 700" in refusal(write_request(), "mix.hr_bpm=700")


def test_the_order_of_labels_changes_nothing(write_request):
    backwards = {**MIX, "labels": dict(reversed(MIX["labels"].items()))}
    assert load_request(write_request()).resolved() == load_request(write_request(mix=backwards)).resolved()


def test_a_rate_statement_cuts_the_rates_of_its_own_label_only(write_request):
    mix = load_request(write_request()).mix
    assert mix.hr_bpm_of("SBRAD") == Distribution(50, 65)
    assert mix.hr_bpm_of("NORM") == Distribution(50, 90)


def test_who_says_which_beat_comes(write_request):
    """A request that says nothing has the model; one of the rules keeps the run id that it had before there was a model."""
    long = {"duration_s": 60, "batch": 64, "shard": 512}
    asked = load_request(write_request(**long))
    ruled = load_request(write_request(**long, rhythm={"order": "rules", "atrial_coupling_ratio": 0.6}))
    assert asked.rhythm.order == "mamba" == asked.resolved()["rhythm"]["order"]
    assert ruled.rhythm.order == "rules" and "order" not in ruled.resolved()["rhythm"]
    assert load_request(write_request(**long, events={})).rhythm.order == "rules"
    for request in (asked, ruled):
        resolved = json.loads(json.dumps(request.resolved()))
        assert request_from_resolved(resolved, request.bank, request.models).rhythm == request.rhythm


def test_long_records_end_where_their_recordings_do_unless_the_file_says_otherwise(write_request):
    long = {"duration_s": 60, "batch": 64, "shard": 512}
    asked = [long, {**long, "lowpass_hz": "none"}, {**long, "lowpass_hz": 30}, {}]
    assert [load_request(write_request(**each)).lowpass_hz for each in asked] == [47, None, 30, None]


def test_resolved_requests_come_back_from_json(write_request):
    request = load_request(write_request(), ["mix.age={normal: [60, 15], within: [18, 95]}"])
    back = request_from_resolved(json.loads(json.dumps(request.resolved())), request.bank, request.models)
    assert back.resolved() == request.resolved()
    assert back.mix == request.mix


@pytest.mark.parametrize(
    ("changes", "snr_db", "length_s", "per_hour"),
    [({}, (0, 24), None, None), ({"duration_s": 60, "batch": 64, "shard": 512}, (0, 18), (5, 60), 8)],
)
def test_noise_without_keys_takes_its_defaults_and_comes_back_from_json(write_request, changes, snr_db, length_s, per_hour):
    request = load_request(write_request(noise={}, **changes))
    assert (request.noise.snr_db.low, request.noise.snr_db.high) == snr_db
    assert (request.noise.length_s and (request.noise.length_s.low, request.noise.length_s.high)) == length_s
    assert request.noise.per_hour == per_hour
    names = {name for name, _ in request.noise.kinds}
    assert "mains" not in names and ("swapped" in names) == (not request.is_long)  # what they cannot have
    assert sum(share for _, share in request.noise.kinds) == pytest.approx(1)
    back = request_from_resolved(json.loads(json.dumps(request.resolved())), request.bank, request.models)
    assert back.noise == request.noise and back.resolved() == request.resolved()


def test_a_request_without_noise_keeps_its_run_id(write_request):
    assert "noise" not in load_request(write_request()).resolved()
    asked = {"snr_db": {"normal": [6, 3], "within": [0, 12]}, "kinds": {"baseline": 2, "muscle": 6}, "length_s": 4}
    noise = load_request(write_request(noise=asked)).resolved()["noise"]
    assert noise["kinds"] == (("baseline", 0.25), ("muscle", 0.75)) and noise["snr_db"]["sd"] == 3 and noise["length_s"]["low"] == 4


def test_what_is_varied_has_an_order_of_its_own_and_comes_back_from_json(write_request):
    """The first named changes slowest, whatever the order in the file; values stay in the order of the file."""
    vary = {"snr_db": [24, 6, 0], "alpha": [1, 0.5], "hr_bpm": [75, 50]}
    path = write_request(vary=vary, noise={}, records=24, mix={"labels": {"NORM": 1}})
    request = load_request(path)
    assert request.vary.size == 12
    assert request.vary.combinations("hr_bpm") == 6 * (75.0,) + 6 * (50.0,)
    assert request.vary.combinations("snr_db") == 2 * (24.0, 24.0, 6.0, 6.0, 0.0, 0.0)
    assert request.vary.combinations("alpha") == 6 * (1.0, 0.5)
    back = request_from_resolved(json.loads(json.dumps(request.resolved())), request.bank, request.models)
    assert back.vary == request.vary and back.resolved() == request.resolved()
    assert load_request(path, ["vary.hr_bpm=[50, 75]"]).resolved() != request.resolved()
    assert "vary" not in load_request(write_request()).resolved()
    damaged = request.resolved() | {"vary": {"values": [["hr_bpn", [50.0, 60.0]]]}}
    with pytest.raises(ValueError, match="vary"):
        request_from_resolved(damaged, request.bank, request.models)


def test_mains_are_for_500_hz(write_request):
    names = dict(load_request(write_request(noise={}, fs_hz=500)).noise.kinds)
    assert names["mains"] > 0


def test_paths_are_relative_to_the_request(write_request, tmp_path):
    request = load_request(write_request(mix=None, records=None, table="cohort.csv"))
    assert request.table == str(tmp_path / "cohort.csv")
    assert request.records is None
