"""A dataset reads as arrays in mV or steps, by slice, index and label, here and in other processes."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from places import TESTS

import ecg_batch
from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS
from ecg_batch.run.status import describe


@pytest.fixture
def dataset(small_dataset):
    return ecg_batch.open_dataset(small_dataset)


def test_slices_indices_and_masks_agree(dataset):
    whole = dataset.raw[:]
    assert whole.shape == (540, 12, 1000) and whole.dtype == np.int16 and len(dataset) == 540
    np.testing.assert_array_equal(dataset.raw[100:140], whole[100:140])
    np.testing.assert_array_equal(dataset.raw[-1], whole[-1])
    np.testing.assert_array_equal(dataset.raw[10:500:70], whole[10:500:70])
    np.testing.assert_array_equal(dataset.raw[[500, 3, 3, 130]], whole[[500, 3, 3, 130]])
    np.testing.assert_array_equal(dataset.raw[np.arange(540) % 100 == 7], whole[7::100])
    assert dataset.raw[[]].shape == (0, 12, 1000)
    with pytest.raises(IndexError):
        dataset[540]


def test_millivolts(dataset):
    assert dataset[3].dtype == np.float32
    np.testing.assert_allclose(dataset[3:5], dataset.raw[3:5] / 1000, rtol=1e-6)
    assert dataset.fs_hz == 100 and dataset.leads == LEADS


def test_where_chooses_records_by_columns(dataset):
    afib = dataset.where(label="AFIB")
    assert abs(len(afib) - 0.3 * 540) < 2 and set(afib.records["label"].to_pylist()) == {"AFIB"}
    records = afib.records["record"].to_numpy()
    np.testing.assert_array_equal(afib.raw[5:8], dataset.raw[records[5:8]])
    assert len(afib.where(label="NORM")) == 0
    assert len(dataset.where(label="NORM", NORM=True)) == len(dataset.where(label="NORM"))
    with pytest.raises(UserError, match="no column 'rate'.*columns: record, shard, label"):
        dataset.where(rate=3)


NO_KEYS = ("a", 1.5, [0.5], None, {"a": 1}, [[0, 1], [2]], ["x", "y"], np.zeros((2, 2), int), slice("a", "b"), object())


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_chooses_no_records_is_refused_in_words(small_dataset, key):
    dataset = ecg_batch.open_dataset(small_dataset)
    for ask in (dataset.__getitem__, dataset.raw.__getitem__, dataset.select):
        with pytest.raises(UserError, match="no records are chosen by .*needed a number, a slice"):
            ask(key)
    assert len(dataset.select([])) == 0 and dataset[np.int64(3)].shape == dataset[3].shape == (12, 1000)


def test_a_pickled_dataset_reads_the_same(dataset):
    dataset[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset.where(label="NORM")))[7], dataset.where(label="NORM")[7])


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_torch_loaders_read_in_other_processes(dataset, context):
    torch = pytest.importorskip("torch")
    from ecg_batch.reading.loader import ECGDataset

    dataset[0]  # the parent has the array open already, which a forked child must not share
    chosen = ECGDataset(dataset.where(label="NORM"))
    loader = torch.utils.data.DataLoader(chosen, batch_size=100, num_workers=1, multiprocessing_context=context)
    batches = list(loader)
    assert [len(batch["signal"]) for batch in batches] == [100, 100, len(chosen) - 200]
    record = int(batches[2]["record_id"][5])
    np.testing.assert_array_equal(batches[2]["signal"][5].numpy(), dataset[record])
    assert batches[0]["labels"].dtype == torch.float32 and batches[0]["labels"][0].tolist() == [1, 0, 0, 0, 0]
    assert chosen[0]["signal"].shape == (12, 1000)


@pytest.mark.slow
def test_what_cannot_be_read_says_why(make_dataset, make_run, tmp_path):
    def refusal(path) -> str:
        with pytest.raises(UserError) as caught:
            ecg_batch.open_dataset(path)
        return str(caught.value)

    run = make_run()
    assert "not finished yet" in refusal(run.out) and "not finished yet" in refusal(run.folder)
    assert "no dataset (no dataset.json in it)" in refusal(tmp_path)
    dataset = make_dataset()
    whole = (dataset / "dataset.json").read_text()
    (dataset / "dataset.json").write_text(json.dumps({**json.loads(whole), "format": 2, "records": None}))
    assert "format 2; this ecg-batch reads up to 1" in refusal(dataset)
    with pytest.raises(UserError, match="format 2; this ecg-batch reads up to 1"):
        describe(dataset)
    (dataset / "dataset.json").write_text("{")
    assert "damaged" in refusal(dataset) and "ecg-batch verify" in refusal(dataset)
    (dataset / "dataset.json").write_text(whole.replace('"fs_hz": 100', '"fs_hz": 500'))
    assert "dataset.json: damaged: its sha256 is not that in SHA256SUMS" in refusal(dataset)
    (dataset / "dataset.json").write_text(whole)
    (dataset / "ecg.zarr/ecg/c.4.0.0").unlink()
    assert "c.4.0.0: absent" in refusal(dataset)


@pytest.mark.slow
def test_a_dataset_of_a_newer_format_or_without_an_array_is_refused_when_opened_or_read(make_dataset):
    dataset = make_dataset()
    opened = ecg_batch.open_dataset(dataset)
    (dataset / "ecg.zarr/ecg/zarr.json").unlink()
    with pytest.raises(UserError, match="zarr.json: cannot be read.*ecg-batch verify"):
        opened.raw[0]
    (dataset / "ecg.zarr/ecg/c.1.0.0").unlink()
    with pytest.raises(UserError, match="zarr.json"):
        ecg_batch.open_dataset(dataset).raw[128]


def test_an_absent_file_is_no_zeros(make_dataset):
    dataset = make_dataset()
    (dataset / "ecg.zarr/ecg/c.1.0.0").unlink()
    opened = ecg_batch.open_dataset(dataset)
    assert opened.raw[0:128].any()
    with pytest.raises(UserError, match="c.1.0.0: chunk 0 cannot be read: .*No such file"):
        opened.raw[100:130]


AS_ANOTHER = """
import sys
sys.path.insert(0, sys.argv[1])
import ecg_batch
from ecg_batch.errors import UserError
try:
    dataset = ecg_batch.open_dataset(sys.argv[2])
    batches = list(ecg_batch.ECGLoader(ecg_batch.ECGIterable(dataset), num_workers=1))
    print("read", sum(len(batch["signal"]) for batch in batches))
    from pathlib import Path
    from ecg_batch.export.formats import export
    export(dataset, Path(sys.argv[2] + "/out"), "npy", 1)
except UserError as error:
    print("error:", error)
"""


WITHOUT_RIGHTS = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


@pytest.mark.slow
@pytest.mark.skipif(bool(WITHOUT_RIGHTS) and not shutil.which("setpriv"), reason="root, and no setpriv to give up its rights")
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_a_user_who_may_only_read_reads(make_dataset, format):
    """As on a read-only disk: nothing is written beside a dataset, no lock taken. What may not even be read says so."""
    dataset = make_dataset(format=format)
    for path in [dataset, *dataset.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [*WITHOUT_RIGHTS, sys.executable, "-c", AS_ANOTHER, str(TESTS.parent), str(dataset)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.stdout.startswith("read 540\nerror: ") and "out.partial: cannot be written: Permission denied" in said.stdout, said
    dataset.chmod(0o000)
    said = subprocess.run(command, capture_output=True, text=True)
    jobs = [TESTS.parent / "jobs" / f"{name}.py" for name in ("status", "verify")]
    looks = [subprocess.run([*WITHOUT_RIGHTS, sys.executable, job, dataset], capture_output=True, text=True) for job in jobs]
    dataset.chmod(0o755)
    assert "this user may not read it" in said.stdout, said
    for look in looks:
        assert look.returncode == 2 and "this user may not read it" in look.stderr and look.stderr.count("\n") == 1, look
