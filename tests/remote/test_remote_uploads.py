"""While an upload goes on, rows of one dataset and samples of another lie at one URL. They are not read then, nor from a cache
later.
"""

import fsspec
import numpy as np
import pytest

import ecg_batch
from ecg_batch.dataset.run import find_folder
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError

OTHER = "has .* bytes, and by its receipt this dataset's has .*: it is of another dataset, or an upload is going on"
FILES = {"zarr": "ecg.zarr/ecg/c.{}.0.0", "hdf5": "ecg.hdf5/{:05d}.h5", "long": "ecg.zarr/ecg/c.{}.0.0"}


def put_all(folder, url: str, but: str = "nothing") -> None:
    fs = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file() and but not in str(path):
            fs.pipe_file(f"/{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def url():
    yield "uploads"
    fsspec.filesystem("memory").rm("/uploads", recursive=True)


@pytest.mark.slow
def test_a_dataset_that_is_copied_over_another_is_not_read_half_way(folders, make_dataset, url, tmp_path):
    """Tables, sums and receipts are there, and the samples are still those of before."""
    other, cache = make_dataset("other", seed=9), tmp_path / "cache"
    put_all(folders["zarr"], url)
    put_all(other, url, but="/c.")
    for given in ({}, {"cache": cache}):
        with pytest.raises(UserError, match=rf"^memory://uploads/ecg.zarr/ecg/c.0.0.0: {OTHER}"):
            ecg_batch.open_dataset(f"memory://{url}", **given).raw[3]
    put_all(other, url)
    here = ecg_batch.open_dataset(other)
    for _ in range(2):
        np.testing.assert_array_equal(ecg_batch.open_dataset(f"memory://{url}", cache=cache).raw[:], here.raw[:])
    assert not list(verify(find_folder(f"memory://{url}")))


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_a_sound_file_of_other_records_is_refused(all_kinds, url, kind, tmp_path):
    """Each chunk of it has its checksum."""
    put_all(all_kinds[kind], url)
    fs, (first, second) = fsspec.filesystem("memory"), (FILES[kind].format(number) for number in (0, 1))
    right = fs.cat_file(f"/{url}/{second}")
    fs.pipe_file(f"/{url}/{second}", fs.cat_file(f"/{url}/{first}"))
    record, here = {"long": 1}.get(kind, 200), ecg_batch.open_dataset(all_kinds[kind])
    for read in (lambda dataset: dataset.raw[record], lambda dataset: dataset.piece(record, 0, 500)):  # all of a long one, a minute
        with pytest.raises(UserError, match=rf"{second}: .*of another dataset, or an upload is going on"):
            read(ecg_batch.open_dataset(f"memory://{url}", cache=tmp_path))
    fs.pipe_file(f"/{url}/{second}", right)
    np.testing.assert_array_equal(ecg_batch.open_dataset(f"memory://{url}", cache=tmp_path).raw[record], here.raw[record])


@pytest.mark.slow
def test_a_cache_does_not_keep_what_a_file_of_the_same_size_gave(folders, url, tmp_path):
    """The two chunks of a file, the other way round: of the same bytes in all, so that nothing tells whose they are."""
    put_all(folders["zarr"], url)
    fs, name, here = fsspec.filesystem("memory"), f"/{url}/{FILES['zarr'].format(0)}", ecg_batch.open_dataset(folders["zarr"])
    right = fs.cat_file(name)
    (_, first), (_, second) = np.frombuffer(right[-36:-4], "<u8").reshape(2, 2)
    index = np.array([[0, second], [second, first]], "<u8").tobytes()
    from google_crc32c import value as crc32c

    body = right[first : first + second] + right[:first]
    fs.pipe_file(name, body + index + crc32c(index).to_bytes(4, "little"))
    np.testing.assert_array_equal(ecg_batch.open_dataset(f"memory://{url}", cache=tmp_path).raw[:64], here.raw[64:128])
    fs.pipe_file(name, right)
    np.testing.assert_array_equal(ecg_batch.open_dataset(f"memory://{url}", cache=tmp_path).raw[:128], here.raw[:128])


def test_a_receipt_of_another_dataset_is_refused(folders, url):
    put_all(folders["zarr"], url)
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"/{url}/receipts/0.json", fs.cat_file(f"/{url}/receipts/1.json"))
    with pytest.raises(UserError, match=r"receipts/0.json: its sha256 is not that in SHA256SUMS: .* an upload is going on"):
        ecg_batch.open_dataset(f"memory://{url}").raw[3]
    fs.rm_file(f"/{url}/receipts/0.json")
    with pytest.raises(UserError, match=r"receipts/0.json: absent, so the dataset is damaged"):
        ecg_batch.open_dataset(f"memory://{url}").raw[3]
