"""The system itself, with the bundled bank and models: what every record obeys, and that a record is a pure function."""

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from half_done import kill_half_done
from kernel_builds import needs_usual_bits
from making import PUBLISHED, assert_memory_does_not_grow, finish, make, plan_of, start, write_request
from places import ROOT
from prd import prd_pct, skeletons_uv

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.layout import STAGING, partial_of
from ecg_batch.dataset.receipts import missing
from ecg_batch.dataset.run import read_run
from ecg_batch.dataset.verify import verify
from ecg_batch.donors.bank import read_table
from ecg_batch.errors import UserError
from ecg_batch.leads import identity_residual
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.run.claim import HEARTBEAT
from ecg_batch.synthesis.batch import make_batch
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(plan_of(tmp_path_factory.mktemp("made")))


@needs_usual_bits
def test_what_is_made_is_what_this_version_makes(made):
    """A golden hash of samples and rows, so that no flag or stage changes bytes unnoticed. Where it fails and the change is
    meant: raise the version in pyproject.toml, say in CHANGELOG.md which records change, and put the new value here.
    """
    rows = json.dumps({name: made[1][name] for name in sorted(made[1])}, default=str)
    assert hashlib.sha256(made[0].tobytes() + rows.encode()).hexdigest()[:16] == "025b8a1c3007a5cd"


# What every record obeys ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lead_identities_hold_on_every_record(made):
    assert identity_residual(made[0]).max() <= 0.5


def test_the_request_is_honoured_or_the_record_is_flagged(made):
    asked, measured = np.array(made[1]["hr_bpm_requested"]), np.array(made[1]["hr_bpm_measured"], float)
    flagged = np.array([flags != "" for flags in made[1]["flags"]])
    assert (np.abs(asked - measured)[~flagged] <= 3).all()
    assert flagged.mean() < 0.02


@pytest.mark.slow
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
        donor = row_of[made[1]["donor_ecg_id"][at]]
        assert table.holds(label)[donor]
        assert made[1]["donor_patient_id"][at] == table.patient_id[donor]
        assert made[1]["donor_fold"][at] == table.fold[donor] and 1 <= table.fold[donor] <= 8
        assert json.loads(made[1]["scp_codes"][at]) == table.scp_codes(donor)
        assert made[1]["age"][at] == table.age[donor] and made[1]["sex"][at] == table.sex[donor]


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "limit"), [({}, np.inf), (PUBLISHED, 10)], ids=["default", "published"])
def test_prd_is_what_its_row_states_under_its_limit_and_not_zero(tmp_path, changes, limit):
    """By definition, against the skeleton made again."""
    plan = plan_of(tmp_path, records=192, shard=192, **changes)
    ecg, rows = make(plan)
    stated, found = np.array(rows["prd_pct"]), prd_pct(ecg, skeletons_uv(plan, rows))
    np.testing.assert_allclose(stated, found, rtol=1e-4)
    assert max(stated.max(), found.max()) <= limit
    assert np.median(found) > 1  # the texture is there


@pytest.mark.slow
@pytest.mark.parametrize("limit", [3, 6])
def test_no_record_differs_from_its_skeleton_by_more_than_was_asked(tmp_path, limit):
    """With more texture than any limit allows, so that each record is at its limit, and none above."""
    plan = plan_of(tmp_path, records=64, **{**PUBLISHED, "alpha": 2.0, "prd_limit_pct": limit})
    ecg, rows = make(plan)
    skeletons = skeletons_uv(plan, rows)
    found = prd_pct(ecg, skeletons)
    assert found.max() <= limit and np.median(found) > 0.8 * limit
    assert np.median(prd_pct(skeletons + 1.3 * (ecg - skeletons), skeletons)) > limit, "a third more texture would be noticed"
    np.testing.assert_allclose(rows["prd_pct"], found, rtol=1e-4)


def test_records_differ_also_those_of_one_donor(made):
    assert len({ecg.tobytes() for ecg in made[0]}) == len(made[0])
    assert len(set(made[1]["donor_ecg_id"])) > 100


def test_a_rate_far_from_every_donor_is_flagged(tmp_path):
    """The bank's slowest donors with a normal ECG are near 45 bpm: 24 bpm can be made, but not passed off as honest."""
    _, rows = make(plan_of(tmp_path, records=64, mix={"labels": {"NORM": 1}, "hr_bpm": 24}))
    assert all("stretch" in flags for flags in rows["flags"])


@pytest.mark.slow
def test_damaged_weights_fail_the_shard(tmp_path):
    plan = plan_of(tmp_path, records=64, **PUBLISHED)
    synthesizer = open_synthesizer(plan)
    synthesizer.models.vqvae.codebook[:] = float("nan")
    with pytest.raises(ValueError, match="weights are damaged"):
        make_batch(synthesizer, query_source(plan.request, tmp_path)(0, 64))


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="no GPU"):
        open_synthesizer(plan_of(tmp_path, texture="decoded", device="cuda"))


# A record is a pure function ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_record_does_not_depend_on_its_shard(made, tmp_path):
    ecg, rows = make(plan_of(tmp_path, shard=448 // 7 * 7))
    np.testing.assert_array_equal(ecg, made[0])
    assert {**rows, "shard": None} == {**made[1], "shard": None}


@pytest.mark.slow
def test_a_record_does_not_depend_on_what_was_made_before(made, tmp_path):
    plan = plan_of(tmp_path)
    ecg, rows = make(plan, [plan.shards[3], plan.shards[1]])
    np.testing.assert_array_equal(ecg, np.concatenate([made[0][384:448], made[0][128:256]]))


@pytest.mark.slow
def test_the_last_short_batch_is_as_in_a_longer_run(made, tmp_path):
    ecg, _ = make(plan_of(tmp_path, records=150))
    np.testing.assert_array_equal(ecg, made[0][:150])


def test_another_seed_makes_other_records(made, tmp_path):
    ecg, _ = make(plan_of(tmp_path, records=64, seed=12))
    assert not (ecg == made[0][:64]).all(axis=(1, 2)).any()


@pytest.mark.slow
def test_alpha_changes_the_texture_alone(made, tmp_path):
    """Same donors, same beats; and at alpha 0 the PRD is only rounding."""
    ecg, rows = make(plan_of(tmp_path, records=64, alpha=0.0))
    same = np.array(rows["donor_ecg_id"]) == np.array(made[1]["donor_ecg_id"][:64])
    assert same.mean() > 0.8  # a donor changes only where texture decided whether the gate was passed
    assert max(rows["prd_pct"]) < 0.5
    difference = (made[0][:64] - ecg)[same].astype(float)
    assert 0 < np.sqrt(np.mean(difference**2)) < 150  # microvolts; real texture has 60 to 120 by lead


# The job --------------------------------------------------------------------------------------------------------------


def zarr_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "ecg.zarr" / "ecg").iterdir()}


@pytest.mark.slow
def test_one_worker_three_workers_and_ten_kills_make_the_same_dataset(tmp_path):
    """Each kill comes with some shards finished and another begun: half its records made, or all of them, not yet committed."""
    request = write_request(tmp_path, records=896, batch=32, shard=64)  # 14 shards of two batches
    finish(start(request, tmp_path / "one", 1))
    finish(start(request, tmp_path / "three", 3))
    folder = partial_of(tmp_path / "killed")
    for kill in range(10):
        more = kill % 2 == 0  # every other life gets a shard further
        before = len(list((folder / "receipts").glob("*.json"))) if kill else 0
        process = start(request, tmp_path / "killed", 1)
        found = kill_half_done(process, folder, share=(0.5, 1.0)[kill % 4 // 2], finished=before + more)
        assert process.returncode == -signal.SIGKILL
        assert found.planned == 14 and before + more <= found.finished < 14
        (begun,) = found.begun
        assert begun.done_records in (32, 64) and (folder / STAGING / f"{begun.shard}.{begun.attempt}" / HEARTBEAT).exists()
        assert len(missing(read_run(folder))) == 14 - found.finished
    finish(start(request, tmp_path / "killed", 1))
    for other in ("three", "killed"):
        assert zarr_bytes(tmp_path / other) == zarr_bytes(tmp_path / "one")
        for table in ("records.parquet", "beats.parquet"):
            assert (tmp_path / other / table).read_bytes() == (tmp_path / "one" / table).read_bytes()
        roots = {json.loads((tmp_path / name / "dataset.json").read_text())["content_root"] for name in ("one", other)}
        assert len(roots) == 1
        assert list(verify(tmp_path / other)) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_records(tmp_path):
    """Over 2 and over 12 shards. (122,880 records: see the README.)"""
    small, large = (write_request(tmp_path, records=count, batch=128, shard=256) for count in (512, 3072))
    assert_memory_does_not_grow(small, large)


@pytest.mark.slow
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


def few_records(release: Path, folder: Path, count: int) -> None:
    """A PTB-XL folder with the first records of another, at 500 Hz. One of fold 9 is among them."""
    folder.mkdir()
    (folder / "records500").symlink_to(release / "records500")
    (folder / "scp_statements.csv").write_bytes((release / "scp_statements.csv").read_bytes())
    lines = (release / "ptbxl_database.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "ptbxl_database.csv").write_text("".join(lines[: count + 1]), encoding="utf-8")


@pytest.mark.slow
def test_500_hz_is_the_same_code_with_another_bank_and_other_weights(real_ptbxl, tmp_path):
    few_records(real_ptbxl, tmp_path / "ptbxl", 40)
    mix = {"labels": {"NORM": 1}, "hr_bpm": {"uniform": [60, 80]}}
    jobs = [
        ["prepare.py", "--ptbxl", "ptbxl", "--out", "bank", "--fs", "500", "--donors", "20"],
        ["train.py", "vqvae", "--bank", "bank", "--out", "models", "--set", "epochs=1"],
        ["train.py", "mamba", "--bank", "bank", "--out", "models", "--set", "epochs=1", "n_layer=1", "d_model=32"],
    ]
    for job, *arguments in jobs:
        done = subprocess.run([sys.executable, ROOT / "jobs" / job, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    inputs = {"bank": str(tmp_path / "bank"), "models": str(tmp_path / "models"), "texture": "decoded"}
    request = write_request(tmp_path, records=32, batch=32, shard=64, fs_hz=500, mix=mix, **inputs)
    finish(start(request, tmp_path / "run", 1))
    dataset = open_dataset(tmp_path / "run")
    assert dataset.raw[:].shape == (32, 12, 5000) and dataset.fs_hz == 500
    assert identity_residual(dataset.raw[:]).max() <= 0.5
    measured = dataset.records["hr_bpm_measured"].to_numpy()
    asked = dataset.records["hr_bpm_requested"].to_numpy()
    assert np.mean(np.abs(measured - asked) <= 3) > 0.9
    long = {"duration_s": 70, "rhythm": {"order": "rules"}}
    request = write_request(tmp_path, records=2, batch=2, shard=2, fs_hz=500, mix=mix, **long, **inputs)
    finish(start(request, tmp_path / "long", 1))
    dataset = open_dataset(tmp_path / "long")
    assert dataset.window(1, 50, 70).shape == (12, 10_000) and identity_residual(dataset.raw[:]).max() <= 0.5
    assert list(verify(tmp_path / "long")) == []
