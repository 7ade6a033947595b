"""A request that is written back as a file asks for the same: its run id is the same."""

from dataclasses import replace

import pytest
from places import ROOT

from ecg_batch.request.parse import load_request
from ecg_batch.request.places import read_places
from ecg_batch.request.query_table import NAME, read_query_table, write_copy
from ecg_batch.request.write import PLACES, as_file, as_text, number, spread

EXAMPLES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "slurm")
CHANGED = {
    "cohort": ("demo", ["mix=null", "cohort={}"]),
    "cohort of some": ("demo", ["mix=null", "cohort={labels: {NORM: 0.3, MI: 0.7}, hr_spread: 0.2}"]),
    "thirds": ("demo", ["mix.labels={NORM: 0.333, MI: 0.333, CD: 0.333}", "mix.sex=female", "mix.age=40"]),
    "limits": ("published", ["batch_on_oom=halve", "min_likelihood=50", "donor_folds=[9]", "judge={steps: 3, below: 0.25}"]),
    "variation": ("demo", ["variation={rr_cv: 0.05, blend: 0.4}", "alpha=0.5", "format=hdf5"]),
    "faults alone": ("demo", ["noise={kinds: {lead_off: 1, swapped: 3}}"]),
    "judge by its zeros": ("published", ["judge={steps: 5, below: 0}"]),
    "judge without steps": ("published", ["judge={steps: 0}"]),
    "sizes of short records in half a minute": ("holter", ["duration_s=30", "batch=256", "shard=4096"]),
    "a batch of short records in hours": ("holter", ["batch=256", "shard=256"]),
    "shares that miss one": ("demo", ["mix.labels={NORM: 0.1, MI: 0.2, CD: 0.15, STTC: 0.05, HYP: 0.1, AFIB: 0.1, LVH: 0.2, "
                                      "IMI: 0.0994, ASMI: 0.001}"]),
    "weights of noise": ("demo", ["noise={kinds: {muscle: 0.3, electrode: 1.75, baseline: 1.25, lead_off: 0.35, clipped: 0.5}}"]),
    "one event": ("holter_events", ["events={v_beat: 60, sv_run: {per_hour: 2, length: {uniform: [3, 20]}, share: 0.1}}"]),
    "long records without a low-pass": ("holter", ["lowpass_hz=none"]),
    "long records with another": ("holter", ["lowpass_hz=30"]),
    "half a minute": ("holter", ["duration_s=30", "rhythm={order: rules, lf_hz: 0.09, start_hour: 3.5}"]),
    "varied axis": ("demo", ["records=2000", "shard=512", "vary={axis_deg: [-10, 0, 10, 20], alpha: [1, 0.5]}"]),
}


def again(request, folder):
    """The request that a file asks for which says what the first one asks."""
    (folder / "again.yaml").write_text(as_text(as_file(request)), "utf-8")
    return load_request(folder / "again.yaml")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_come_back(name, tmp_path):
    request = load_request(ROOT / f"configs/{name}.yaml")
    if request.places_table:
        (tmp_path / PLACES).write_bytes((ROOT / "configs/holter_places.csv").read_bytes())
        request = replace(request, places=read_places(request))
        found = again(request, tmp_path)
        found = replace(found, places=read_places(found))
    else:
        found = again(request, tmp_path)
    assert found.resolved() == request.resolved()


@pytest.mark.parametrize("case", CHANGED)
def test_other_keys_come_back(case, tmp_path):
    name, changes = CHANGED[case]
    request = load_request(ROOT / f"configs/{name}.yaml", changes)
    assert again(request, tmp_path).resolved() == request.resolved()


def test_a_table_comes_back_from_the_copy_that_a_run_keeps(tmp_path):
    (tmp_path / "t.csv").write_text("label,hr_bpm,sex\nNORM,70,\nMI,,female\nNORM,65.5,male\n")
    table = read_query_table(str(tmp_path / "t.csv"), "my.yaml")
    write_copy(table, tmp_path / NAME, 2)
    assert read_query_table(str(tmp_path / NAME), "again.yaml").sha256() == table.sha256()


def test_what_has_its_default_is_left_out_and_numbers_are_short():
    asked = as_file(load_request(ROOT / "configs/demo.yaml"))
    assert list(asked) == ["records", "duration_s", "fs_hz", "seed", "texture", "shard", "mix"]
    assert asked["mix"]["hr_bpm"] == {"normal": [75, 15], "within": [50, 120]} and asked["mix"]["labels"]["MI"] == 0.2
    assert as_file(load_request(ROOT / "configs/holter_events.yaml"))["events"] == {}
    assert (number(2.0), number(0.5), number("x"), spread(3.0)) == (2, 0.5, "x", 3)
