"""The dataset in the tools that people already use: xarray, tensorstore, h5py, h5dump, mlcroissant. HDF5 has Zarr's guarantees."""

import json
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from comparing import flip_bit
from fakes import fake

import ecg_batch
from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.plan import read_plan
from ecg_batch.dataset.run import find_folder
from ecg_batch.dataset.verify import verify
from ecg_batch.dataset.zarr_chunks import zarr_chunks
from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import run_missing, synthesize
from ecg_batch.run.repair import repair


def files_of(folder, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


@pytest.fixture
def zarr_and_hdf5(make_dataset):
    return make_dataset("zarr"), make_dataset("hdf5", format="hdf5")


# Zarr in other tools --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_xarray_shows_dimensions_coordinates_and_millivolts(make_dataset):
    xarray = pytest.importorskip("xarray")
    folder = make_dataset()
    stored = xarray.open_zarr(folder / "ecg.zarr", consolidated=False)
    ecg = stored["ecg"]
    assert ecg.dims == ("record", "lead", "time") and ecg.attrs["units"] == "mV"
    assert tuple(ecg.attrs["leads"]) == tuple(stored["lead"].attrs["flag_meanings"].split()) == LEADS
    assert stored["lead"].values.tolist() == list(range(12)) and stored["lead"].dtype == np.int8
    np.testing.assert_array_equal(stored["time"].values, np.arange(1000) / 100)
    assert stored["time"].attrs["units"] == "s" and stored["time"].dtype == np.float64
    whole = ecg_batch.open_dataset(folder)
    for sample in range(1000):  # each by the number that a user would write
        assert stored["time"].sel(time=float(f"{sample // 100}.{sample % 100:02d}")).item() == sample / 100
    np.testing.assert_allclose(ecg.isel(record=3).sel(time=2.03).values, whole[3][:, 203], rtol=1e-6)
    part = ecg.assign_coords(lead=ecg.attrs["leads"]).sel(lead="V2").isel(record=slice(130, 140)).sel(time=slice(2, 4))
    np.testing.assert_allclose(part.values, whole[130:140][:, LEADS.index("V2"), 200:401], rtol=1e-6)
    assert not np.isnan(ecg.isel(record=slice(0, 64)).values).any(), "a stored 0 is 0 mV, no missing value"


@pytest.mark.slow
def test_tensorstore_opens_the_same_array(make_dataset):
    tensorstore = pytest.importorskip("tensorstore")
    folder = make_dataset()
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / "ecg.zarr/ecg")}}
    array = tensorstore.open(spec, read=True, open=True).result()
    np.testing.assert_array_equal(array[100:300].read().result(), ecg_batch.open_dataset(folder).raw[100:300])


@pytest.mark.slow
def test_every_array_is_of_the_core_of_zarr_and_opens_elsewhere(make_dataset):
    """Older zarr, zarrita, tensorstore and Zarr.jl know no other types, and cannot open a group that holds one."""
    tensorstore = pytest.importorskip("tensorstore")
    folder = make_dataset()
    core = {"bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64"}
    for path in (folder / "ecg.zarr").glob("*/zarr.json"):
        assert json.loads(path.read_text())["data_type"] in core
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path.parent)}}
        assert tensorstore.open(spec, read=True, open=True).result().read().result().size


@pytest.mark.slow
def test_our_chunk_reader_agrees_with_zarr(make_dataset):
    import zarr

    folder = make_dataset()
    chunks, array = zarr_chunks(folder / "ecg.zarr/ecg"), zarr.open_array(folder / "ecg.zarr/ecg", mode="r")
    for chunk in range(9):
        np.testing.assert_array_equal(chunks.read(chunk), array[64 * chunk : 64 * chunk + 64])


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "shard"), [(0, 128), (64, 0), (-64, 128), (None, 128), (64, None), (10**20, 10**20), (64, 100),
                                              (64, 32), (True, 128), (64.0, 128)])  # fmt: skip
def test_chunks_that_hold_no_whole_records_are_refused(small_dataset, chunk, shard):
    """Of an array that someone wrote anew, with sums to fit."""
    path = small_dataset / "ecg.zarr/ecg/zarr.json"
    stated = json.loads(path.read_text())
    stated["codecs"][0]["configuration"]["chunk_shape"][0] = chunk
    stated["chunk_grid"]["configuration"]["chunk_shape"][0] = shard
    path.write_text(json.dumps(stated))
    assert zarr_chunks(path.parent) is None


@pytest.mark.slow
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
    with pytest.raises(UserError, match="c.1.0.0: chunk . cannot be read.*ecg-batch verify"):
        damaged.raw[128:256]
    np.testing.assert_array_equal(damaged.raw[256:], whole[256:])


@pytest.mark.slow
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


@pytest.mark.slow
def test_both_formats_hold_the_same_records(zarr_and_hdf5):
    zarr, hdf5 = map(ecg_batch.open_dataset, zarr_and_hdf5)
    np.testing.assert_array_equal(hdf5.raw[:], zarr.raw[:])
    np.testing.assert_array_equal(hdf5.raw[[500, 3, 3, 130]], zarr.raw[[500, 3, 3, 130]])
    assert (
        hdf5.records.equals(zarr.records) and read_manifest(hdf5.path)["content_root"] == read_manifest(zarr.path)["content_root"]
    )
    assert len(list((hdf5.path / "ecg.hdf5").iterdir())) == 5 and not (hdf5.path / "ecg.zarr").exists()
    assert [list(verify(folder)) for folder in zarr_and_hdf5] == [[], []]


@pytest.mark.slow
def test_h5py_and_h5dump_read_it(zarr_and_hdf5):
    path = zarr_and_hdf5[1] / "ecg.hdf5/00001.h5"
    with h5py.File(path, "r") as file:
        ecg = file["ecg"]
        np.testing.assert_array_equal(ecg[:], ecg_batch.open_dataset(zarr_and_hdf5[0]).raw[128:256])
        np.testing.assert_array_equal(file["record"][:], np.arange(128, 256))
        assert ecg.chunks == (64, 12, 1000) and ecg.fletcher32 and ecg.dtype == "<i2"
        assert (ecg.attrs["units"], ecg.attrs["scale_factor"], tuple(ecg.attrs["leads"])) == ("mV", 0.001, LEADS)
        assert [axis.label for axis in ecg.dims] == ["record", "lead", "time"]
        assert [list(axis.keys()) for axis in ecg.dims] == [["record"], ["lead"], ["time"]]
        np.testing.assert_array_equal(ecg.dims[2]["time"][:], np.arange(1000) / 100)
        assert ecg.dims[1]["lead"].attrs["flag_meanings"].split() == list(LEADS)
        assert file.id.get_create_plist().get_version()[0] == 2, "HDF5 1.8 reads superblock 2 at most"
    if shutil.which("h5dump"):
        text = subprocess.run(["h5dump", "-p", "-H", path], capture_output=True, text=True, check=True).stdout
        assert "CHECKSUM FLETCHER32" in text and "CHUNKED ( 64, 12, 1000 )" in text


@pytest.mark.slow
def test_hdf5_names_sort_as_the_records_do_and_names_of_before_are_read(make_dataset):
    folder = make_dataset(format="hdf5", records=11 * 64, shard=64, batch=64)
    names = sorted(path.name for path in (folder / "ecg.hdf5").iterdir())
    assert names == [f"{shard:05d}.h5" for shard in range(11)]
    whole = ecg_batch.open_dataset(folder).raw[:]
    for name in names:
        (folder / "ecg.hdf5" / name).rename(folder / "ecg.hdf5" / f"{int(name[:5])}.h5")
    np.testing.assert_array_equal(ecg_batch.open_dataset(folder).raw[:], whole)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan.pop("digits") == 5
    (folder / "plan.json").write_text(json.dumps(plan))
    assert read_plan(folder).ecg_files(read_plan(folder).shards[10]) == ["ecg.hdf5/10.h5"]


def test_a_users_own_handle_and_ours_stand_side_by_side(make_dataset):
    folder = make_dataset(format="hdf5")
    path = folder / "ecg.hdf5/00001.h5"
    with h5py.File(path, "r") as file:
        ours = ecg_batch.open_dataset(folder)
        np.testing.assert_array_equal(ours.raw[128:256], file["ecg"][:])
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(ours.raw[130:140], file["ecg"][2:12])


@pytest.mark.slow
def test_hdf5_bytes_do_not_depend_on_workers(start_driver, write_request, make_dataset, tmp_path):
    one = make_dataset("one", format="hdf5")
    assert start_driver(write_request(format="hdf5"), tmp_path / "two", workers=2).wait(60) == 0
    assert files_of(tmp_path / "two", "*.h5") == files_of(one, "*.h5") and len(files_of(one, "*.h5")) == 5


@pytest.mark.slow
def test_a_killed_hdf5_run_goes_on(make_run, write_request, make_dataset):
    run = make_run("killed", format="hdf5")
    run_missing(run, 1, fake(), only=frozenset({1, 3}))
    kept = files_of(run.folder / "receipts", "*.json")
    assert list(verify(run.folder)) == ["not finished: 3 of 5 shards have no valid receipt: 0, 2, 4"]
    synthesize(load_request(write_request(format="hdf5")), run.out, 1, fake())
    assert list(verify(run.out)) == [] and kept.items() <= files_of(run.out / "receipts", "*.json").items()
    assert files_of(run.out, "*.h5") == files_of(make_dataset("fresh", format="hdf5"), "*.h5")


@pytest.mark.slow
def test_every_flip_in_hdf5_is_named_and_repaired(zarr_and_hdf5, write_request):
    folder = zarr_and_hdf5[1]
    whole = files_of(folder, "*.h5")
    for position in (0.0, 0.2, 0.5, 0.8, 1.0):
        before = flip_bit(folder / "ecg.hdf5/00002.h5", position)
        (problem,) = verify(folder)
        assert problem.startswith("ecg.hdf5/00002.h5: damaged")
        (folder / "ecg.hdf5/00002.h5").write_bytes(before)
    flip_bit(folder / "ecg.hdf5/00002.h5", 0.5)
    with pytest.raises(UserError, match="00002.h5: cannot be read.*ecg-batch verify"):
        ecg_batch.open_dataset(folder).raw[256:384]
    assert repair(find_folder(folder))[1] == [2]
    synthesize(load_request(write_request(format="hdf5")), folder, 1, fake())
    assert list(verify(folder)) == [] and files_of(folder, "*.h5") == whole


@pytest.mark.slow
def test_an_hdf5_dataset_trains_as_a_zarr_one(zarr_and_hdf5):
    pytest.importorskip("torch")
    zarr, hdf5 = (
        list(ecg_batch.ECGLoader(ecg_batch.ECGIterable(ecg_batch.open_dataset(folder), batch=64), 2)) for folder in zarr_and_hdf5
    )
    assert all((one["signal"] == two["signal"]).all() for one, two in zip(zarr, hdf5, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_the_forecast_counts_the_files(make_dataset, write_request, tmp_path, capsys, format):
    from ecg_batch.cli.synthesize import forecast_job

    folder = make_dataset(format=format)
    assert forecast_job(write_request(format=format), [], tmp_path / "none", None, None) == 0
    assert f"files: {sum(path.is_file() for path in folder.rglob('*'))} when finished" in capsys.readouterr().out


def test_the_format_is_checked_and_zarr_keeps_its_run_id(write_request):
    with pytest.raises(UserError, match="format is 'csv'; needed zarr or hdf5"):
        load_request(write_request(format="csv"))
    resolved = load_request(write_request(format="zarr")).resolved()
    assert resolved == load_request(write_request()).resolved() and "format" not in json.dumps(resolved)
