"""Damaged datasets through opening, plot and export: a sentence that names the file, and never a traceback."""

import json
import shutil
from pathlib import Path

import pytest

import ecg_batch
from ecg_batch.errors import UserError
from ecg_batch.export.formats import export
from ecg_batch.plot.records import plot_dataset

MANIFESTS = {
    "not JSON": "{",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "empty": "",
    "not UTF-8": b"\xff\xfe{}",
    "nested": "[" * 100_000,
    "no request": {"request": None},
    "request a text": {"request": "x"},
    "request empty": {"request": {}},
    "records a text": {"records": "540"},
    "records negative": {"records": -1},
    "records zero": {"records": 0},
    "records true": {"records": True},
    "records huge": {"records": 10**30},
    "shards a list": {"shards": [1]},
    "shards zero": {"shards": 0},
    "format a text": {"format": "1"},
    "format null": {"format": None},
    "root a number": {"content_root": 7},
    "rate a text": {"request": {"fs_hz": "100", "duration_s": 10, "shard": 128}},
    "rate zero": {"request": {"fs_hz": 0, "duration_s": 10, "shard": 128}},
    "no duration": {"request": {"fs_hz": 100, "shard": 128}},
    "no shard": {"request": {"fs_hz": 100, "duration_s": 10}},
    "another format": {"request": {"fs_hz": 100, "duration_s": 10, "shard": 128, "format": "../x"}},
    "no run id": {"run_id": 7},
}


def acts(folder: Path, tmp_path: Path):
    yield lambda: ecg_batch.open_dataset(folder).records
    yield lambda: ecg_batch.open_dataset(folder).raw[100:140]
    yield lambda: ecg_batch.ECGIterable(ecg_batch.open_dataset(folder), targets=["waves"])
    yield lambda: plot_dataset(folder, tmp_path / "plot.png", [130])
    for format in ("npy", "hdf5", "ptbxl"):
        yield lambda format=format: export(ecg_batch.open_dataset(folder), tmp_path / f"out-{format}", format, 1)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("damage", MANIFESTS)
def test_a_manifest_that_is_none_is_told_in_words(small_dataset, tmp_path, damage, signed):
    path, change = small_dataset / "dataset.json", MANIFESTS[damage]
    changed = json.dumps({**json.loads(path.read_text()), **change}) if isinstance(change, dict) else change
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    if not signed:
        (small_dataset / "SHA256SUMS").unlink()
    for act in acts(small_dataset, tmp_path):
        with pytest.raises(UserError, match=r"dataset.json") as caught:
            act()
        assert len(str(caught.value)) < 700


@pytest.mark.slow
def test_what_a_worker_of_a_loader_cannot_read_is_one_sentence(small_dataset):
    loader = ecg_batch.ECGLoader(ecg_batch.ECGIterable(ecg_batch.open_dataset(small_dataset), batch=8), num_workers=1)
    for path in (small_dataset / "ecg.zarr" / "ecg").glob("c.*"):
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"c\.\d.*") as caught:
        list(loader)
    assert "Traceback" not in str(caught.value) and "\\n" not in str(caught.value) and len(str(caught.value)) < 700


FILES = ["records.parquet", "beats.parquet", "ecg.zarr/ecg/c.1.0.0", "ecg.zarr/ecg/zarr.json", "plan.json"]
DAMAGE = {"absent": None, "empty": b"", "text": b"hello", "zeros": bytes(5000), "JSON": b"{}", "a list": b"[]", "folder": "folder"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_told_in_words_or_not_needed(small_dataset, tmp_path, name, damage, signed):
    path, content = small_dataset / name, DAMAGE[damage]
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    if not signed:
        (small_dataset / "SHA256SUMS").unlink()
    told = 0
    for act in acts(small_dataset, tmp_path):
        try:
            act()
        except UserError as error:
            assert Path(name).name in str(error) and len(str(error)) < 700, str(error)
            told += 1
        except (IndexError, ValueError) as error:
            assert name in ("plan.json", "beats.parquet"), error  # the fakes' donors cannot be drawn; see test_flips
    assert told >= 1, "nobody noticed"
    shutil.rmtree(small_dataset)
