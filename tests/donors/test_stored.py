"""A bank read without zarr: what is read is what zarr reads, and what is laid out otherwise is left to zarr."""

import json
import shutil

import numpy as np
import pytest
import zarr

from ecg_batch import sums
from ecg_batch.bundled import BUNDLED
from ecg_batch.donors import bank
from ecg_batch.donors.stored import stored_group


def assert_as_zarr_reads_it(path):
    ours, theirs = stored_group(path), zarr.open_group(path, mode="r")
    assert ours.attrs == dict(theirs.attrs) and set(ours.arrays) == set(theirs.array_keys())
    for name, array in theirs.arrays():
        assert ours[name].dtype == array.dtype and ours[name].shape == array.shape and ours[name].chunks == array.chunks
        np.testing.assert_array_equal(ours[name][...], array[...])
        for row in (0, array.shape[0] // 2, array.shape[0] - 1):
            np.testing.assert_array_equal(ours[name][row], array[row])


def test_the_bundled_bank():
    assert_as_zarr_reads_it(BUNDLED / "donors.zarr")


@pytest.mark.parametrize("donors", [1, 63, 64, 65, 1024, 1089])
def test_a_bank_of_any_size(donors, tmp_path):
    rng = np.random.default_rng(donors)
    arrays = {name: rng.integers(-900, 900, (donors, 8, 20), np.int16) for name in bank.SIGNALS}
    arrays |= {"age": rng.random(donors, np.float32), "likelihood": np.zeros((donors, 3), np.int8), "ecg_id": np.arange(donors)}
    bank.write_group(tmp_path / "donors.zarr", arrays, {"format": 2})
    assert_as_zarr_reads_it(tmp_path / "donors.zarr")


@pytest.fixture
def a_bank(tmp_path):
    shutil.copytree(BUNDLED / "donors.zarr", tmp_path / "donors.zarr")
    return tmp_path / "donors.zarr"


def changed(path, **values):
    stated = json.loads(path.read_bytes())
    path.write_text(json.dumps(stated | values))


@pytest.mark.parametrize("change", [
    lambda path: changed(path / "age/zarr.json", fill_value=1.0),
    lambda path: changed(path / "age/zarr.json", shape=[3336.0]),
    lambda path: changed(path / "age/zarr.json", shape=[True]),
    lambda path: changed(path / "age/zarr.json", data_type="float16"),
    lambda path: changed(path / "age/zarr.json", dimension_names=["donor"]),
    lambda path: changed(path / "skeleton/zarr.json", codecs=[]),
    lambda path: changed(path / "zarr.json", attributes=[]),
    lambda path: changed(path / "zarr.json", consolidated_metadata=None),
    lambda path: (path / "age/c.1").write_bytes(b""),
    lambda path: (path / "skeleton/c.1.0.0").unlink(),
    lambda path: (path / "age/zarr.json").write_text("[" * 100_000),
    lambda path: zarr.open_group(path, mode="r+").create_array("more", data=np.zeros(3)),
])  # fmt: skip
def test_another_layout_is_left_to_zarr(a_bank, change):
    change(a_bank)
    assert stored_group(a_bank) is None


@pytest.mark.parametrize("name", ["age/c.0", "skeleton/c.1.0.0"])
@pytest.mark.parametrize("at", [0, 5, 40, -300, -1])
def test_a_changed_byte_is_never_read_as_a_number(a_bank, name, at):
    data = bytearray((a_bank / name).read_bytes())
    data[at] ^= 4
    (a_bank / name).write_bytes(data)
    with pytest.raises((ValueError, RuntimeError)):
        stored_group(a_bank)[name.split("/")[0]][...]


def test_a_file_that_changes_is_summed_again(tmp_path):
    (path := tmp_path / "file").write_bytes(b"one")
    first = sums.sha256_once(path)
    path.write_bytes(b"other")
    assert sums.sha256_once(path) != first


def test_one_ecg_is_that_of_the_whole_bank():
    whole = bank.read_bank(BUNDLED)
    for row in (0, 64, 3335):
        np.testing.assert_array_equal(bank.read_ecg(BUNDLED, row), whole.skeleton[row].astype(np.int32) + whole.texture[row])
