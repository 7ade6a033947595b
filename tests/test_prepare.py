"""From PTB-XL's layout to a bank: exact splits, counted reasons, training folds only, downloads that resume."""

import csv
import json
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import wfdb
from ptbxl_layout import SAMPLE, write_layout, write_record

from ecg_batch import bank, ptbxl
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.leads import MODELLED_INDEX
from ecg_batch.prepare import _fill, longest_run, prepare

ROOT = Path(__file__).parents[1]
DONORS = list(range(0, 480, 12))


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """40 real records in PTB-XL's layout, five of them spoilt, each in its own way."""
    folder = tmp_path_factory.mktemp("ptbxl")
    written = write_layout(folder, DONORS)
    ids = list(written)
    records = folder / "records100" / "00000"
    flat, huge, swapped = (written[ids[at]].copy() for at in (10, 11, 12))
    flat[7, 300:450] = flat[7, 300]
    huge[8] *= 20
    swapped[[0, 1]] = swapped[[1, 0]]
    for at, ecg in ((10, flat), (11, huge), (12, swapped)):
        write_record(records, f"{ids[at]:05d}_lr", ecg)
    (records / f"{ids[13]:05d}_lr.dat").write_bytes(b"short")
    rows = list(csv.DictReader(open(folder / ptbxl.TABLE, encoding="utf-8")))
    rows[14]["age"], rows[15]["age"] = "", "300"
    with open(folder / ptbxl.TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder, written, ids


@pytest.fixture(scope="module")
def prepared(release, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "bank"
    report = prepare(ptbxl.read_release(release[0], 100), out, donors=20, workers=2)
    return out, report


def test_skeleton_and_texture_add_up_to_the_donor(release, prepared):
    made = bank.read_bank(prepared[0])
    for donor, ecg_id in enumerate(made.table.ecg_id):
        np.testing.assert_array_equal(made.skeleton[donor] + made.texture[donor], release[1][int(ecg_id)][list(MODELLED_INDEX)])


def test_each_spoilt_record_is_rejected_for_its_own_reason(prepared):
    rejected = prepared[1]["rejected"]
    reasons = ("a lead is flat for a second or more", "amplitude over 8 mV", "limb leads contradict each other",
               "age or sex unknown", "unreadable (ValueError)")  # fmt: skip
    assert {reason: rejected.get(reason) for reason in reasons} == dict.fromkeys(reasons, 1)
    assert prepared[1]["usable"] + sum(rejected.values()) == len(DONORS) - 1  # fold 10 is not even read


def test_donors_are_of_training_folds_and_fold_10_is_nowhere(release, prepared):
    made = bank.read_table(prepared[0])
    assert set(made.fold) <= set(range(1, 9))
    import zarr

    textures = zarr.open_group(prepared[0] / "textures.zarr", mode="r")
    assert release[2][1] not in textures["ecg_id"][...]  # the record of fold 10
    assert release[2][0] in textures["ecg_id"][...]  # the one of fold 9, to validate on
    assert release[2][0] not in made.ecg_id


def test_ages_over_89_are_90(release, prepared):
    import zarr

    textures = zarr.open_group(prepared[0] / "textures.zarr", mode="r")
    assert textures["age"][...][textures["ecg_id"][...] == release[2][15]] == 90


def test_one_worker_and_three_make_the_same_bank(release, prepared, tmp_path):
    prepare(ptbxl.read_release(release[0], 100), tmp_path / "bank", donors=20, workers=3)
    assert bank.bank_digest(tmp_path / "bank") == bank.bank_digest(prepared[0])


def test_a_bank_is_never_overwritten(release, prepared):
    before = bank.bank_digest(prepared[0])
    with pytest.raises(UserError, match="Choose another --out"):
        prepare(ptbxl.read_release(release[0], 100), prepared[0], donors=20)
    assert bank.bank_digest(prepared[0]) == before


def test_shares_fill_like_water():
    assert _fill({"a": 2, "b": 9, "c": 9}, 12) == {"a": 2, "b": 5, "c": 5}
    assert sum(_fill({"a": 100, "b": 100, "c": 100}, 100).values()) == 100


def test_longest_run_counts_samples():
    ecg = np.array([[0, 1, 2, 3, 4, 5], [0, 7, 7, 7, 1, 2]])
    assert longest_run(ecg) == 3


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda folder: (folder / ptbxl.TABLE).unlink(), "no ptbxl_database.csv"),
    (lambda folder: (folder / ptbxl.TABLE).write_text("ecg_id,age\n1,50\n"), "no column patient_id"),
])  # fmt: skip
def test_a_folder_that_is_no_ptbxl_is_refused(tmp_path, spoil, says):
    write_layout(tmp_path / "release", [0, 1, 2])
    spoil(tmp_path / "release")
    with pytest.raises(UserError, match=says):
        ptbxl.read_release(tmp_path / "release", 100)
    with pytest.raises(UserError, match=f"no {ptbxl.TABLE}|--fs|no column"):
        ptbxl.read_release(tmp_path / "release", 500)


def test_a_file_that_arrives_broken_is_named(release, physionet, tmp_path):
    sums = release[0] / ptbxl.SUMS
    lines = sums.read_text().splitlines()
    sums.write_text("\n".join(["0" * 64 + line[64:] if "00061_lr.dat" in line else line for line in lines]) + "\n")
    with pytest.raises(UserError, match=r"00061_lr.dat.*did not arrive whole \(1 such"):
        ptbxl.download(tmp_path, 100)


class _Server(SimpleHTTPRequestHandler):
    """Serves a PTB-XL folder as PhysioNet does: files/ptbxl/VERSION/, and a page that names the version."""

    def do_GET(self):
        if self.path.rstrip("/").endswith("content/ptbxl"):
            body = b"<p>Version: 1.0.1</p>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        super().do_GET()

    def translate_path(self, path):
        return super().translate_path(path.replace("/files/ptbxl/1.0.1", "").replace("/content/ptbxl/1.0.1", ""))

    def log_message(self, *_):
        pass


@pytest.fixture
def physionet(release, monkeypatch):
    """A local HTTP server with PTB-XL's layout in the place of physionet.org."""
    (release[0] / "LICENSE.txt").write_text("CC BY 4.0\n")
    files = [path for path in sorted(release[0].rglob("*")) if path.is_file() and path.name != ptbxl.SUMS]
    lines = [f"{sha256_file(path)} {path.relative_to(release[0]).as_posix()}\n" for path in files]
    (release[0] / ptbxl.SUMS).write_text("".join(lines))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(release[0])))
    Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(wfdb.io.download, "PN_CONTENT_URL", f"{root}/content/")
    former = wfdb.io.download.config.db_index_url
    wfdb.set_db_index_url(f"{root}/files/")
    yield root
    wfdb.set_db_index_url(former)
    server.shutdown()


def test_download_fetches_the_layout_and_mends_a_broken_one(release, physionet, tmp_path):
    ptbxl.download(tmp_path, 100)
    entries = ptbxl.read_release(tmp_path, 100).entries
    assert len(entries) == len(DONORS)
    whole = tmp_path / f"{entries[3].path}.dat"
    content = whole.read_bytes()
    whole.write_bytes(content[:1000])  # as a killed download leaves it
    (tmp_path / f"{entries[4].path}.hea").unlink()
    ptbxl.download(tmp_path, 100)
    assert whole.read_bytes() == content
    for entry in entries:
        for suffix in (".hea", ".dat"):
            assert (tmp_path / f"{entry.path}{suffix}").read_bytes() == (release[0] / f"{entry.path}{suffix}").read_bytes()


def test_the_job_writes_bank_report_and_figure(release, tmp_path):
    command = [sys.executable, "jobs/prepare.py", "--ptbxl", release[0], "--out", tmp_path / "bank", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bank" / "report.json").read_text())
    assert report["donors"] > 0 and report["rejected"]
    assert (tmp_path / "bank" / "bank.png").stat().st_size > 10_000
    missing = subprocess.run([*command[:3], tmp_path / "nothing", *command[4:]], cwd=ROOT, capture_output=True, text=True)
    assert missing.returncode == 2 and "Traceback" not in missing.stderr


@pytest.mark.skipif(not SAMPLE.exists(), reason="the larger PTB-XL sample (../shared/ptbxl-sample) is not here")
def test_500_hz_records_of_the_sample_make_a_bank(tmp_path):
    release = ptbxl.read_release(SAMPLE, 500)
    few = ptbxl.Release(release.folder, 500, release.entries[:40], release.codes, release.superclass_of)
    prepare(few, tmp_path / "bank", donors=20, workers=2)
    made = bank.read_bank(tmp_path / "bank")
    assert made.table.fs_hz == 500 and made.skeleton.shape[1:] == (8, 5000)
    ecg = ptbxl.read_record(few, next(entry for entry in few.entries if entry.ecg_id == made.table.ecg_id[0]))
    np.testing.assert_array_equal(made.skeleton[0] + made.texture[0], ecg[list(MODELLED_INDEX)])
