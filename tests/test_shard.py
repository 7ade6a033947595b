"""The system itself, with the bundled bank and models: what every record obeys, and that a record is a pure function."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from ptbxl_layout import SAMPLE

from ecg_batch.bank import BUNDLED, read_table
from ecg_batch.errors import UserError
from ecg_batch.leads import identity_residual
from ecg_batch.plan import make_plan
from ecg_batch.query import query_source
from ecg_batch.read import open_dataset
from ecg_batch.request_file import load_request
from ecg_batch.shard import open_assets, synthesize_shard
from ecg_batch.verify import verify

ROOT = Path(__file__).parents[1]
MIX = {
    "labels": {"NORM": 0.25, "MI": 0.25, "STTC": 0.15, "CD": 0.15, "HYP": 0.1, "AFIB": 0.1},
    "hr_bpm": {"uniform": [50, 110]},
    "age": {"uniform": [25, 85]},
    "sex": {"female": 0.5, "male": 0.5},
}
REQUEST = {"records": 448, "seed": 11, "batch": 64, "shard": 128, "mix": MIX}


def write_request(folder: Path, **changes) -> Path:
    path = folder / f"request-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump({**REQUEST, **changes}))
    return path


def plan_of(folder: Path, **changes):
    return make_plan(load_request(write_request(folder, **changes)))[0]


def make(plan, shards=None):
    """(ecg, rows as columns) of some shards of a plan, in this process."""
    assets, queries_of = open_assets(plan), query_source(plan.request, Path("unused"))
    made = [synthesize_shard(plan, assets, shard, queries_of, lambda done: None) for shard in shards or plan.shards]
    columns = {name: sum((rows[name].to_pylist() for _, rows in made), []) for name in made[0][1].column_names}
    return np.concatenate([ecg for ecg, _ in made]), columns


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(plan_of(tmp_path_factory.mktemp("made")))


# What every record obeys ----------------------------------------------------------------------------------------------


def test_lead_identities_hold_on_every_record(made):
    assert identity_residual(made[0]).max() <= 0.5


def test_the_request_is_honoured_or_the_record_is_flagged(made):
    asked, measured = np.array(made[1]["hr_bpm_requested"]), np.array(made[1]["hr_bpm_measured"], float)
    flagged = np.array([flags != "" for flags in made[1]["flags"]])
    assert (np.abs(asked - measured)[~flagged] <= 3).all()
    assert flagged.mean() < 0.02


def test_another_detector_finds_the_asked_rate(made):
    """wfdb's XQRS, resampled to the 250 Hz it wants; inside, sleepecg measures."""
    from scipy.signal import resample_poly
    from wfdb.processing import xqrs_detect

    right = []
    for ecg, asked in zip(made[0], made[1]["hr_bpm_requested"], strict=True):
        beats = xqrs_detect(resample_poly(ecg[1] / 1000, 5, 2), 250, verbose=False)
        right.append(len(beats) > 2 and abs(60 * 250 * (len(beats) - 1) / (beats[-1] - beats[0]) - asked) <= 3)
    assert np.mean(right) >= 0.95


def test_donors_are_named_hold_the_label_and_come_from_allowed_folds(made):
    table = read_table(BUNDLED)
    row_of = {int(ecg_id): row for row, ecg_id in enumerate(table.ecg_id)}
    for at, label in enumerate(made[1]["label"]):
        donor = row_of[made[1]["donor_ecg_id"][at][0]]
        assert table.holds(label)[donor]
        assert made[1]["donor_patient_id"][at] == [table.patient_id[donor]]
        assert made[1]["donor_fold"][at] == [table.fold[donor]] and 1 <= table.fold[donor] <= 8
        assert json.loads(made[1]["scp_codes"][at]) == table.scp_codes(donor)
        assert made[1]["age"][at] == table.age[donor] and made[1]["sex"][at] == table.sex[donor]


def test_prd_stays_under_its_limit_and_is_not_zero(made):
    prd = np.array(made[1]["prd_pct"])
    assert prd.max() <= 10
    assert np.median(prd) > 1  # the texture is there


def test_records_differ_also_those_of_one_donor(made):
    assert len({ecg.tobytes() for ecg in made[0]}) == len(made[0])
    assert len({ids[0] for ids in made[1]["donor_ecg_id"]}) > 100


def test_a_rate_far_from_every_donor_is_flagged(tmp_path):
    """The bank's slowest donors with a normal ECG are near 45 bpm: 24 bpm can be made, but not passed off as honest."""
    _, rows = make(plan_of(tmp_path, records=64, mix={"labels": {"NORM": 1}, "hr_bpm": 24}))
    assert all("stretch" in flags for flags in rows["flags"])


def test_damaged_weights_fail_the_shard(tmp_path):
    plan = plan_of(tmp_path, records=64)
    assets = open_assets(plan)
    assets.models.vqvae.codebook[:] = float("nan")
    with pytest.raises(ValueError, match="weights are damaged"):
        synthesize_shard(plan, assets, plan.shards[0], query_source(plan.request, tmp_path), lambda done: None)


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="no GPU"):
        open_assets(plan_of(tmp_path, device="cuda"))


# A record is a pure function ------------------------------------------------------------------------------------------


def test_a_record_does_not_depend_on_its_shard(made, tmp_path):
    ecg, rows = make(plan_of(tmp_path, shard=448 // 7 * 7))
    np.testing.assert_array_equal(ecg, made[0])
    assert {**rows, "shard": None} == {**made[1], "shard": None}


def test_a_record_does_not_depend_on_what_was_made_before(made, tmp_path):
    plan = plan_of(tmp_path)
    ecg, rows = make(plan, [plan.shards[3], plan.shards[1]])
    np.testing.assert_array_equal(ecg, np.concatenate([made[0][384:448], made[0][128:256]]))


def test_the_last_short_batch_is_as_in_a_longer_run(made, tmp_path):
    ecg, _ = make(plan_of(tmp_path, records=150))
    np.testing.assert_array_equal(ecg, made[0][:150])


def test_another_seed_makes_other_records(made, tmp_path):
    ecg, _ = make(plan_of(tmp_path, records=64, seed=12))
    assert not (ecg == made[0][:64]).all(axis=(1, 2)).any()


def test_alpha_changes_the_texture_alone(made, tmp_path):
    """Same donors, same beats; and at alpha 0 the PRD is only rounding."""
    ecg, rows = make(plan_of(tmp_path, records=64, alpha=0.0))
    same = np.array(rows["donor_ecg_id"]) == np.array(made[1]["donor_ecg_id"][:64])
    assert same.mean() > 0.9  # a donor changes only where texture decided whether the gate was passed
    assert max(rows["prd_pct"]) < 0.5
    difference = (made[0][:64] - ecg)[same[:, 0]].astype(float)
    assert 0 < np.sqrt(np.mean(difference**2)) < 60  # microvolts


# The job --------------------------------------------------------------------------------------------------------------


def start(request: Path, out: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, "jobs/synthesize.py", request, "--out", out, "--workers", str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def zarr_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "ecg.zarr" / "ecg").iterdir()}


def test_one_worker_three_workers_and_ten_kills_make_the_same_dataset(tmp_path):
    request = write_request(tmp_path, records=640, shard=64)
    finish(start(request, tmp_path / "one", 1))
    finish(start(request, tmp_path / "three", 3))
    chance = random.Random(1)
    for _ in range(10):
        process = start(request, tmp_path / "killed", 1)
        time.sleep(chance.uniform(1.5, 5.0))  # 3 s of imports, half a second a shard
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(request, tmp_path / "killed", 1))
    for other in ("three", "killed"):
        assert zarr_bytes(tmp_path / other) == zarr_bytes(tmp_path / "one")
        assert (tmp_path / other / "records.parquet").read_bytes() == (tmp_path / "one" / "records.parquet").read_bytes()
        roots = {json.loads((tmp_path / name / "dataset.json").read_text())["content_root"] for name in ("one", other)}
        assert len(roots) == 1
        assert list(verify(tmp_path / other)) == []


PEAK_OF = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_records(tmp_path):
    """Over 2 and over 12 shards. (122,880 records: see the README.)"""
    small, large = (write_request(tmp_path, records=count, batch=128, shard=256) for count in (512, 3072))
    assert_memory_does_not_grow(small, large)


def assert_memory_does_not_grow(small: Path, large: Path) -> None:
    """The peak of one worker on each request: within 10 %, and under 2 GiB."""
    peaks_mib = []
    for request in (small, large):
        command = [sys.executable, "-c", PEAK_OF, "jobs/synthesize.py", request, "--out", request.with_suffix(".run")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks_mib.append(int(done.stdout.split()[-1]))
    assert peaks_mib[1] < 1.1 * peaks_mib[0] and max(peaks_mib) < 2048, peaks_mib


def test_a_dataset_reads_back_what_was_made_and_draws_on_ecg_paper(made, tmp_path):
    request = write_request(tmp_path, records=128)
    finish(start(request, tmp_path / "run", 1))
    dataset = open_dataset(tmp_path / "run")
    np.testing.assert_array_equal(dataset.raw[:], made[0][:128])
    np.testing.assert_allclose(dataset[5], made[0][5] / 1000, atol=1e-6)
    plot = [sys.executable, "jobs/plot.py", tmp_path / "run", "--records", "3,4", "--out", tmp_path / "paper.png"]
    assert subprocess.run(plot, cwd=ROOT).returncode == 0
    import matplotlib.image

    height, width, _ = matplotlib.image.imread(tmp_path / "paper.png").shape
    assert width > 2 * 250 * 100 / 25.4 and height > 2 * 100 * 100 / 25.4  # two sheets of 250 mm, two rows, 100 dpi
    beyond = subprocess.run([*plot[:-3], "999", *plot[-2:]], cwd=ROOT, capture_output=True, text=True)
    assert beyond.returncode == 2 and "records 0 to 127" in beyond.stderr


def few_records(folder: Path, count: int) -> None:
    """A PTB-XL folder with the first records of the sample, at 500 Hz. One of fold 9 is among them."""
    folder.mkdir()
    (folder / "records500").symlink_to(SAMPLE / "records500")
    (folder / "scp_statements.csv").write_bytes((SAMPLE / "scp_statements.csv").read_bytes())
    lines = (SAMPLE / "ptbxl_database.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "ptbxl_database.csv").write_text("".join(lines[: count + 1]), encoding="utf-8")


@pytest.mark.skipif(not SAMPLE.exists(), reason="the larger PTB-XL sample (../shared/ptbxl-sample) is not here")
def test_500_hz_is_the_same_code_with_another_bank_and_other_weights(tmp_path):
    few_records(tmp_path / "ptbxl", 40)
    mix = {"labels": {"NORM": 1}, "hr_bpm": {"uniform": [60, 80]}}
    jobs = [
        ["prepare.py", "--ptbxl", "ptbxl", "--out", "bank", "--fs", "500", "--donors", "20"],
        ["train.py", "vqvae", "--bank", "bank", "--out", "models", "--set", "epochs=1"],
        ["train.py", "mamba", "--bank", "bank", "--out", "models", "--set", "epochs=1", "n_layer=1", "d_model=32"],
    ]
    for job, *arguments in jobs:
        done = subprocess.run([sys.executable, ROOT / "jobs" / job, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    inputs = {"bank": str(tmp_path / "bank"), "models": str(tmp_path / "models")}
    request = write_request(tmp_path, records=32, batch=32, shard=64, fs_hz=500, mix=mix, **inputs)
    finish(start(request, tmp_path / "run", 1))
    dataset = open_dataset(tmp_path / "run")
    assert dataset.raw[:].shape == (32, 12, 5000) and dataset.fs_hz == 500
    assert identity_residual(dataset.raw[:]).max() <= 0.5
    measured = dataset.records["hr_bpm_measured"].to_numpy()
    asked = dataset.records["hr_bpm_requested"].to_numpy()
    assert np.mean(np.abs(measured - asked) <= 3) > 0.9
    request = write_request(tmp_path, records=2, batch=2, shard=2, duration_s=70, fs_hz=500, mix=mix, **inputs)
    finish(start(request, tmp_path / "long", 1))
    dataset = open_dataset(tmp_path / "long")
    assert dataset.window(1, 50, 70).shape == (12, 10_000) and identity_residual(dataset.raw[:]).max() <= 0.5
    assert list(verify(tmp_path / "long")) == []
