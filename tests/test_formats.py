"""The dataset in the tools that people already use: xarray, tensorstore, h5py, h5dump, mlcroissant. HDF5 has Zarr's guarantees."""

import json
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from fakes import fake
from test_verify import flip_bit

import ecg_batch
from ecg_batch.chunks import zarr_chunks
from ecg_batch.errors import UserError
from ecg_batch.execute import run_missing, synthesize
from ecg_batch.leads import LEADS
from ecg_batch.plan import find_run
from ecg_batch.repair import repair
from ecg_batch.request_file import load_request
from ecg_batch.status import read_manifest
from ecg_batch.verify import verify


def files_of(folder, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


@pytest.fixture
def zarr_and_hdf5(make_dataset):
    return make_dataset("zarr"), make_dataset("hdf5", format="hdf5")


# Zarr in other tools --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_xarray_shows_dimensions_coordinates_and_millivolts(make_dataset):
    xarray = pytest.importorskip("xarray")
    folder = make_dataset()
    stored = xarray.open_zarr(folder / "ecg.zarr", consolidated=False)
    ecg = stored["ecg"]
    assert ecg.dims == ("record", "lead", "time") and ecg.attrs["units"] == "mV"
    assert tuple(stored["lead"].values.tolist()) == LEADS
    np.testing.assert_allclose(stored["time"].values, np.arange(1000) / 100)
    assert stored["time"].attrs["units"] == "s"
    part = ecg.sel(lead="V2").isel(record=slice(130, 140)).sel(time=slice(2, 4))
    expected = ecg_batch.open_dataset(folder)[130:140][:, LEADS.index("V2"), 200:401]
    np.testing.assert_allclose(part.values, expected, rtol=1e-6)
    assert not np.isnan(ecg.isel(record=slice(0, 64)).values).any(), "a stored 0 is 0 mV, no missing value"


def test_tensorstore_opens_the_same_array(make_dataset):
    tensorstore = pytest.importorskip("tensorstore")
    folder = make_dataset()
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "ecg.zarr/ecg")}}
    array = tensorstore.open(spec, read=True, open=True).result()
    np.testing.assert_array_equal(array[100:300].read().result(), ecg_batch.open_dataset(folder).raw[100:300])


def test_our_chunk_reader_agrees_with_zarr(make_dataset):
    import zarr

    folder = make_dataset()
    chunks, array = zarr_chunks(folder / "ecg.zarr/ecg"), zarr.open_array(folder / "ecg.zarr/ecg", mode="r")
    for chunk in range(9):
        np.testing.assert_array_equal(chunks.read(chunk), array[64 * chunk : 64 * chunk + 64])


@pytest.mark.parametrize("position", [0.01, 0.3, 0.6, 0.97, 1.0])
def test_a_flipped_bit_is_no_wrong_sample(make_dataset, position):
    folder = make_dataset()
    whole = ecg_batch.open_dataset(folder).raw[:]
    path = folder / "ecg.zarr/ecg/c.1.0.0"
    flip_bit(path, position)
    path.rename(path.with_name("aside"))  # another path, since an index is read once
    shutil.copytree(folder, folder.with_name("moved"))
    (folder.with_name("moved") / "ecg.zarr/ecg/aside").rename(folder.with_name("moved") / "ecg.zarr/ecg/c.1.0.0")
    damaged = ecg_batch.open_dataset(folder.with_name("moved"))
    with pytest.raises(UserError, match="c.1.0.0: chunk . cannot be read.*jobs/verify.py"):
        damaged.raw[128:256]
    np.testing.assert_array_equal(damaged.raw[256:], whole[256:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_croissant_validates_and_reads_the_rows(make_dataset, format):
    mlcroissant = pytest.importorskip("mlcroissant")
    folder = make_dataset(format=format)
    described = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert not described.metadata.ctx.issues.errors, described.metadata.ctx.issues.report()
    rows = list(described.records("records"))
    assert len(rows) == 540 and rows[7]["records/record"] == 7
    names = set(ecg_batch.open_dataset(folder).records.column_names)
    assert {name.removeprefix("records/") for name in rows[0]} == names


# HDF5 -----------------------------------------------------------------------------------------------------------------


def test_both_formats_hold_the_same_records(zarr_and_hdf5):
    zarr, hdf5 = map(ecg_batch.open_dataset, zarr_and_hdf5)
    np.testing.assert_array_equal(hdf5.raw[:], zarr.raw[:])
    np.testing.assert_array_equal(hdf5.raw[[500, 3, 3, 130]], zarr.raw[[500, 3, 3, 130]])
    assert (
        hdf5.records.equals(zarr.records) and read_manifest(hdf5.path)["content_root"] == read_manifest(zarr.path)["content_root"]
    )
    assert len(list((hdf5.path / "ecg.hdf5").iterdir())) == 5 and not (hdf5.path / "ecg.zarr").exists()
    assert [list(verify(folder)) for folder in zarr_and_hdf5] == [[], []]


def test_h5py_and_h5dump_read_it(zarr_and_hdf5):
    path = zarr_and_hdf5[1] / "ecg.hdf5/1.h5"
    with h5py.File(path, "r") as file:
        ecg = file["ecg"]
        np.testing.assert_array_equal(ecg[:], ecg_batch.open_dataset(zarr_and_hdf5[0]).raw[128:256])
        np.testing.assert_array_equal(file["record"][:], np.arange(128, 256))
        assert ecg.chunks == (64, 12, 1000) and ecg.fletcher32 and ecg.dtype == "<i2"
        assert (ecg.attrs["units"], ecg.attrs["scale_factor"], tuple(ecg.attrs["leads"])) == ("mV", 0.001, LEADS)
        assert [axis.label for axis in ecg.dims] == ["record", "lead", "time"]
    if shutil.which("h5dump"):
        text = subprocess.run(["h5dump", "-p", "-H", path], capture_output=True, text=True, check=True).stdout
        assert "CHECKSUM FLETCHER32" in text and "CHUNKED ( 64, 12, 1000 )" in text


def test_hdf5_bytes_do_not_depend_on_workers(start_driver, write_request, make_dataset, tmp_path):
    one = make_dataset("one", format="hdf5")
    assert start_driver(write_request(format="hdf5"), tmp_path / "two", workers=2).wait(60) == 0
    assert files_of(tmp_path / "two", "*.h5") == files_of(one, "*.h5") and len(files_of(one, "*.h5")) == 5


def test_a_killed_hdf5_run_goes_on(make_run, write_request, make_dataset):
    plan, folder, out = make_run("killed", format="hdf5")
    run_missing(plan, folder, 1, fake(), only=frozenset({1, 3}))
    kept = files_of(folder / "receipts", "*.json")
    assert list(verify(folder)) == ["3 of 5 shards have no valid receipt: 0, 2, 4"]
    synthesize(load_request(write_request(format="hdf5")), out, 1, fake())
    assert list(verify(out)) == [] and kept.items() <= files_of(out / "receipts", "*.json").items()
    assert files_of(out, "*.h5") == files_of(make_dataset("fresh", format="hdf5"), "*.h5")


def test_every_flip_in_hdf5_is_named_and_repaired(zarr_and_hdf5, write_request):
    folder = zarr_and_hdf5[1]
    whole = files_of(folder, "*.h5")
    for position in (0.0, 0.2, 0.5, 0.8, 1.0):
        before = flip_bit(folder / "ecg.hdf5/2.h5", position)
        (problem,) = verify(folder)
        assert problem.startswith("ecg.hdf5/2.h5: damaged")
        (folder / "ecg.hdf5/2.h5").write_bytes(before)
    flip_bit(folder / "ecg.hdf5/2.h5", 0.5)
    with pytest.raises(UserError, match="2.h5: cannot be read.*jobs/verify.py"):
        ecg_batch.open_dataset(folder).raw[256:384]
    assert repair(find_run(folder))[1] == [2]
    synthesize(load_request(write_request(format="hdf5")), folder, 1, fake())
    assert list(verify(folder)) == [] and files_of(folder, "*.h5") == whole


def test_an_hdf5_dataset_trains_as_a_zarr_one(zarr_and_hdf5):
    pytest.importorskip("torch")
    zarr, hdf5 = (
        list(ecg_batch.ECGLoader(ecg_batch.ECGIterable(ecg_batch.open_dataset(folder), batch=64), 2)) for folder in zarr_and_hdf5
    )
    assert all((one["signal"] == two["signal"]).all() for one, two in zip(zarr, hdf5, strict=True))


@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_the_forecast_counts_the_files(make_dataset, write_request, tmp_path, capsys, format):
    from ecg_batch.forecast import forecast_job

    folder = make_dataset(format=format)
    assert forecast_job(write_request(format=format), [], tmp_path / "none", None, None) == 0
    assert f"files: {sum(path.is_file() for path in folder.rglob('*'))} when finished" in capsys.readouterr().out


def test_the_format_is_checked_and_zarr_keeps_its_run_id(write_request):
    with pytest.raises(UserError, match="format is 'csv'; choose one of zarr, hdf5"):
        load_request(write_request(format="csv"))
    resolved = load_request(write_request(format="zarr")).resolved()
    assert resolved == load_request(write_request()).resolved() and "format" not in json.dumps(resolved)
