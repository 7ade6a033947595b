"""docs/tools.md runs as it stands: the text of each piece is executed, and what it found is held against the dataset."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas
import pytest
from places import ROOT

import ecg_batch
from ecg_batch.cli.main import main
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.statements import SUPERCLASSES
from ecg_batch.synthesis.generate import open_generator

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs/tools.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PYTHON, COMMAND = r"```python\n(.*?)```", r"```\n(.*?)```"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with runs/demo, of the demo's request but with 512 records."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "runs").mkdir()
    synthesize(load_request(ROOT / "configs/demo.yaml", ["records=512", "shard=256"]), folder / "runs/demo", 1, open_generator)
    return folder


@pytest.fixture
def dataset(folder):
    return ecg_batch.open_dataset(folder / "runs/demo")


@pytest.fixture
def run(folder, monkeypatch):
    """run(section) -> what its Python leaves behind, executed in this process after the commands above it."""

    def run(section: str) -> dict:
        monkeypatch.chdir(folder)
        for command in re.findall(COMMAND, SECTIONS[section], re.DOTALL):
            for line in command.strip().splitlines():
                assert main([*line.split()[1:], "--workers", "1"]) == 0
        (text,) = re.findall(PYTHON, SECTIONS[section], re.DOTALL)
        page = ModuleType("on_the_page")
        monkeypatch.setitem(sys.modules, page.__name__, page)  # where those look who send functions to other processes
        exec(compile(text, f"docs/tools.md, {section}", "exec"), vars(page))
        return vars(page)

    return run


def test_xarray(run, dataset):
    left, label = run("xarray"), dataset.records["label"].to_numpy()
    expected = np.abs(dataset[np.flatnonzero(label == "MI")][:, 7, 200:401]).max(axis=1)
    np.testing.assert_allclose(left["loudest"], expected, atol=1e-6)
    assert left["ecg"].attrs["units"] == "mV" and left["ecg"].dims == ("record", "lead", "time")


def test_tensorstore(run, dataset):
    np.testing.assert_allclose(np.concatenate(run("tensorstore")["ecg_mv"]), dataset[:256], atol=1e-6)


def test_zarr(run, dataset):
    means = np.array(run("zarr")["means"])
    assert means.shape == (8, 12)
    np.testing.assert_allclose(means.mean(axis=0), dataset[:].mean(axis=(0, 2)), atol=1e-5)


def test_pandas(run, dataset):
    left = run("pandas")
    assert np.nanmedian(np.abs(60 / left["rows"]["rr_s"] - left["rows"]["hr_bpm_measured"])) < 2
    rows = dataset.where(label="MI", flags="").records.to_pandas()
    assert left["by_label"].loc["MI", "hr_bpm_measured"] == pytest.approx(rows["hr_bpm_measured"].median())


def test_polars(run, dataset):
    for row in run("polars")["reuse"].iter_rows(named=True):
        rows = dataset.where(label=row["label"], flags="").records.to_pandas()
        assert (row["records"], row["patients"]) == (len(rows), rows["donor_patient_id"].nunique())


def test_duckdb(run, dataset):
    found = run("duckdb")["qrs"]
    assert [label for label, _, _ in found] == ["CD", "HYP", "MI", "NORM", "STTC"]
    beats = pandas.read_parquet(dataset.path / "beats.parquet").query("symbol == 'N'")
    beats = beats.join(dataset.records.to_pandas()["label"], "record")
    of_norm = beats[beats["label"] == "NORM"]
    width = (of_norm["qrs_end_ms"] - of_norm["qrs_on_ms"]).median()
    assert dict((label, (count, ms)) for label, count, ms in found)["NORM"] == (len(of_norm), pytest.approx(width))


def test_wfdb(run, dataset):
    left = run("wfdb")
    np.testing.assert_allclose(left["record"].p_signal.T, dataset[7], atol=1e-6)
    rows = dataset.beats(7).to_pandas()
    inside = rows[rows["symbol"].isin(["+", "N", "V", "A", "/", "Q"])]
    assert left["beats"].sample.tolist() == inside["sample"].tolist() and left["beats"].symbol == inside["symbol"].tolist()
    onsets = np.rint(rows["sample"] + rows["qrs_on_ms"] / 10).dropna()
    assert len(left["onsets_of_qrs"]) >= 6 and set(left["onsets_of_qrs"]) <= set(onsets.astype(int))


def test_mne(run, dataset):
    raw = (left := run("MNE"))["raw"]
    np.testing.assert_allclose(raw.get_data() * 1000, dataset[7], atol=1e-6)
    beats = [(at, symbol) for at, symbol in zip(*(dataset.beats(7)[name].to_pylist() for name in ("sample", "symbol")), strict=True)
             if symbol not in ("+", "t", "p")]  # fmt: skip
    assert list(zip(np.rint(raw.annotations.onset * 100).astype(int), raw.annotations.description, strict=True)) == beats
    assert set(raw.get_channel_types()) == {"ecg"}
    assert np.abs(left["filtered"].get_data().mean(axis=1)).max() < 0.1 * np.abs(raw.get_data().mean(axis=1)).max()


def test_lightning(folder):
    """As people run it: a script, which starts its second rank itself."""
    (text,) = re.findall(PYTHON, SECTIONS["Lightning"], re.DOTALL)
    (folder / "train_ddp.py").write_text(text, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    for name in [name for name in environment if name.startswith(("SLURM_", "PMI_"))]:
        del environment[name]
    command = [sys.executable, "train_ddp.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    (said,) = re.findall(r"`(records by rank: .*?)`", SECTIONS["Lightning"])
    assert done.returncode == 0 and done.stdout.splitlines().count(said) == 1, done.stdout + done.stderr[-3000:]


def test_hugging_face_datasets(run, dataset, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    left = run("Hugging Face datasets")
    assert left["rows"].num_rows == 512 and left["rows"]["label"][:] == dataset.records["label"].to_pylist()
    first = left["first"]
    np.testing.assert_allclose(first["ecg_mv"].numpy(), dataset[int(first["record"])], atol=1e-6)
    assert first["label"] == dataset.records["label"][int(first["record"])].as_py() and next(iter(left["beats"]))["aux"] == "(N"
    assert sorted(int(item["record"]) for item in left["stream"]) == dataset.where(flags="").indices.tolist()


def test_webdataset(run, dataset):
    left = run("WebDataset")
    np.testing.assert_allclose(left["ecg_mv"], dataset[left["row"]["record"]], atol=1e-6)
    assert left["beats"] == dataset.beats(left["row"]["record"]).to_pydict() and left["row"]["label"] in SUPERCLASSES


def test_code_for_ptbxl(run, dataset):
    left = run("Code for PTB-XL")
    np.testing.assert_allclose(left["signals"].transpose(0, 2, 1), dataset[:], atol=1e-6)
    rows = dataset.records.to_pylist()
    assert left["superclasses"].tolist() == [sorted(name for name in SUPERCLASSES if row[name]) for row in rows]
    assert left["table"]["scp_codes"].tolist() == [json.loads(row["scp_codes"]) for row in rows] and len(left["training"]) == 512


def test_every_tool_on_the_page_has_its_test():
    ours = ast.parse(Path(__file__).read_text("utf-8"))
    tested = {node.name.removeprefix("test_") for node in ours.body if isinstance(node, ast.FunctionDef)}
    assert len(SECTIONS) == 12
    assert {name.lower().replace(" ", "_").replace("-", "") for name in SECTIONS} <= tested
