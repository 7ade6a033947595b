"""A dataset below a URL is read as it is in its folder, with few requests and no byte more than its chunks."""

import gc
import json
import shutil
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from places import ROOT

import ecg_batch
from ecg_batch import ECGIterable, ECGLoader
from ecg_batch.errors import UserError
from ecg_batch.remote.store import Store
from ecg_batch.remote.url import cache_folder

PLACES = ["memory", "web", "s3"]


def chunk_bytes(folder, records: np.ndarray) -> int:
    """What the chunks of these records take, by the indices of their files."""
    chunks, total = np.unique(records // 64), 0
    for chunk in chunks:
        shard, at = divmod(int(chunk), 2)
        data = (folder / f"ecg.zarr/ecg/c.{shard}.0.0").read_bytes()
        total += int(np.frombuffer(data[-36:-4], "<u8").reshape(2, 2)[at, 1])
    return total


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
@pytest.mark.parametrize("stored", PLACES, indirect=True)
def test_it_is_read_as_in_its_folder(all_kinds, stored, folders, kind):
    there, here = stored.open(kind), ecg_batch.open_dataset(folders[kind])
    wanted = np.random.default_rng(0).permutation(540)[:50]
    np.testing.assert_array_equal(there.raw[wanted], here.raw[wanted])
    np.testing.assert_array_equal(there[-1], here[-1])
    assert there.records.equals(here.records) and there.content() == here.content()
    chosen = there.where(label="AFIB", flags="")
    np.testing.assert_array_equal(chosen.indices, here.where(label="AFIB", flags="").indices)
    assert there.beats(7).equals(here.beats(7)) and repr(there).startswith(f"OpenDataset('{stored.url(kind)}', 540 records")
    batches = [[batch for batch in ECGIterable(one, batch=64, targets=("waves", "beats"))] for one in (there, here)]
    for one, other in zip(*batches, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("signal", "labels", "record_id", "waves", "beats"))


@pytest.mark.slow
@pytest.mark.parametrize("stored", PLACES, indirect=True)
def test_long_records_are_read_by_the_minute(all_kinds, stored, folders):
    there, here = stored.open("long"), ecg_batch.open_dataset(folders["long"])
    stored.proxy.clear()
    np.testing.assert_array_equal(there.window(1, 61.5, 119.0), here.window(1, 61.5, 119.0))
    minute = stored.proxy.bytes
    np.testing.assert_array_equal(there.raw[[1, 0]], here.raw[[1, 0]])
    assert there.beats(1).equals(here.beats(1))
    if stored.protocol != "memory":
        assert 0 < minute < (folders["long"] / "ecg.zarr/ecg/c.1.0.0").stat().st_size / 2


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["web", "s3"], indirect=True)
def test_no_byte_more_than_chunks_is_fetched(stored, folders):
    dataset = stored.open()
    assert len(stored.proxy.log) == 6 and stored.proxy.bytes < 20_000, "opening"
    stored.proxy.clear()
    wanted = np.array([3, 70, 7, 300, 539])
    dataset.raw[wanted]
    receipts = sum((folders["zarr"] / f"receipts/{shard}.json").stat().st_size for shard in (0, 2, 4))
    assert stored.proxy.bytes == chunk_bytes(folders["zarr"], wanted) + 3 * 36 + receipts  # of three files the index
    assert len(stored.proxy.log) == len(np.unique(wanted // 64)) + 6
    dataset.raw[[130]]
    assert len(stored.proxy.log) == len(np.unique(wanted // 64)) + 9
    dataset.raw[[200]]
    assert len(stored.proxy.log) == len(np.unique(wanted // 64)) + 10, "an index was fetched twice"
    stored.proxy.clear()
    dataset.where(label="AFIB"), dataset.where(sex=1), dataset.records
    assert [path.rpartition("/")[2] for path, *_ in stored.proxy.log] == ["records.parquet"]


@pytest.mark.slow
def test_an_epoch_fetches_each_chunk_once(web):
    dataset = web.open()
    loader = ECGLoader(ECGIterable(dataset, batch=50, window=128, shuffle=False))  # windows of 100 records cut chunks of 64
    web.proxy.clear()
    assert [i for batch in loader for i in batch["record_id"].tolist()] == list(range(540))
    ranges = [(path, asked) for path, asked, _ in web.proxy.log]
    assert len(ranges) == len(set(ranges)) == 9 + 5 + 5  # chunks, and of each file the index and the receipt


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_two_selections_of_one_dataset_are_fetched_ahead_together(all_kinds, web, monkeypatch, kind):
    dataset, under_way, begin = web.open(kind), [], Store.begin

    def watched(store, wanted):
        begin(store, wanted)
        under_way.append(len(store.here().begun))

    monkeypatch.setattr(Store, "begin", watched)
    both = ECGIterable(dataset.select(slice(0, 256)), dataset.select(slice(200, 540)), batch=50, window=1200, shuffle=False)
    web.proxy.clear()
    assert len([i for batch in ECGLoader(both) for i in batch["record_id"].tolist()]) == 256 + 340
    assert max(under_way) == 9  # all chunks of both
    ranges = [(path, asked) for path, asked, size in web.proxy.log if size > 2**17]
    assert len(ranges) == len(set(ranges)) == 9


def test_what_an_opening_held_ends_with_it(web):
    before, stores = set(threading.enumerate()), []
    for _ in range(3):
        dataset = web.open()
        assert len(dataset.where(label="AFIB")) and dataset.raw[3].shape == (12, 1000) and len(dataset.beats(3))
        stores.append(weakref.ref(dataset.path.store))
    begun = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("ecg-batch-fetch")]
    assert len(begun) >= 3
    del dataset
    gc.collect()
    assert [store() for store in stores] == [None] * 3
    for thread in begun:
        thread.join(10)
        assert not thread.is_alive()


def test_many_chunks_come_in_the_time_of_one(web):
    dataset = web.open()
    web.proxy.latency_s, began = 0.25, time.monotonic()
    dataset.raw[::60]
    assert time.monotonic() - began < 6 * 0.25, "nine chunks of five files, one after another"


@pytest.mark.slow
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1), ("forkserver", 1)])
def test_worker_processes_read_as_one_does(s3, folders, context, workers):
    dataset = s3.open()
    dataset[0]  # the parent has connections and threads, which a forked child must not use
    here = ECGLoader(ECGIterable(ecg_batch.open_dataset(folders["zarr"]), batch=50), workers, multiprocessing_context="fork")
    there = ECGLoader(ECGIterable(dataset, batch=50), workers, multiprocessing_context=context)
    for one, other in zip(there, here, strict=True):
        assert torch.equal(one["record_id"], other["record_id"]) and torch.equal(one["signal"], other["signal"])


def test_a_loader_goes_on_from_another_place(web, folders):
    here, there = (ECGLoader(ECGIterable(one, batch=50)) for one in (ecg_batch.open_dataset(folders["zarr"]), web.open()))
    batches = iter(here)
    next(batches), next(batches)
    there.load_state_dict(here.state_dict())
    assert torch.equal(next(iter(there))["signal"], next(batches)["signal"])


RANK = """
import json, sys, torch
import ecg_batch
rank, url, options, store = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
dataset = ecg_batch.open_dataset(url, storage_options=options)
loader = ecg_batch.ECGLoader(ecg_batch.ECGIterable(dataset, batch=32), 1)
seen = [batch["record_id"].tolist() for batch in loader]
torch.distributed.destroy_process_group()
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_two_ranks_read_every_record_once(s3, tmp_path):
    words = [s3.url(), json.dumps(s3.options), str(tmp_path / "store")]
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)
             for rank in range(2)]  # fmt: skip
    try:
        seen = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert len(seen[0]) == len(seen[1]) and sorted(i for part in seen for batch in part for i in batch) == list(range(540))


# A cache --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["web", "s3"], indirect=True)
def test_what_is_cached_is_not_fetched_again(stored, folders, tmp_path):
    first = [batch["signal"] for batch in ECGLoader(ECGIterable(stored.open(cache=tmp_path / "cache"), batch=90))]
    stored.proxy.clear()
    dataset = stored.open(cache=tmp_path / "cache")  # another job
    opened = len(stored.proxy.log)
    again = [batch["signal"] for batch in ECGLoader(ECGIterable(dataset, batch=90), 1)]
    assert opened == 5  # dataset.json twice, the sums, and whether two files are there
    assert {asked for _, asked, _ in stored.proxy.log[opened:]} == {"bytes=-36"} and len(stored.proxy.log) == 5 + 5  # of each file
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.slow
def test_a_cache_never_serves_another_dataset(web, make_dataset, folders, tmp_path):
    """Of the same shape, at the same URL, in the same names."""
    url = folders["zarr"].parent / "replaced"
    for seed in (1, 2, 1):
        shutil.rmtree(url, ignore_errors=True)
        made = tmp_path / f"seed-{seed}" if (tmp_path / f"seed-{seed}").exists() else make_dataset(f"seed-{seed}", seed=seed)
        shutil.copytree(made, url)
        there, here = web.open("replaced", cache=tmp_path / "cache"), ecg_batch.open_dataset(made)
        np.testing.assert_array_equal(there.raw[:], here.raw[:])
        assert there.records.equals(here.records)
    shutil.rmtree(url)


def test_a_damaged_cache_is_fetched_again_and_mended(web, folders, tmp_path):
    dataset = web.open(cache=tmp_path / "cache")
    whole, rows = dataset.raw[:], dataset.records
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    for path in kept:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    for _ in range(2):
        web.proxy.clear()
        again = web.open(cache=tmp_path / "cache")
        assert again.records.equals(rows)
        np.testing.assert_array_equal(again.raw[:], whole)
    assert len(web.proxy.log) == 5 + 5, "the second time all is in the cache but the index of each file"
    np.testing.assert_array_equal(whole, ecg_batch.open_dataset(folders["zarr"]).raw[:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hdf5", "long"])
def test_hdf5_and_long_records_are_cached_too(all_kinds, web, tmp_path, kind):
    here = ecg_batch.open_dataset(all_kinds[kind])

    def read() -> int:
        """How many ranges of samples were fetched."""
        web.proxy.clear()
        there = web.open(kind, cache=tmp_path / "cache")
        opened = len(web.proxy.log)
        np.testing.assert_array_equal(there.raw[[0, 1]], here.raw[[0, 1]])
        np.testing.assert_array_equal(there.piece(1, 7, 900), here.piece(1, 7, 900))
        return len([asked for _, asked, _ in web.proxy.log[opened:] if asked not in ("", "bytes=0-1")])

    assert read() >= 2 and read() <= {"hdf5": 0, "long": 2}[kind]  # of long records the index of each file
    for path in [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[:-9] + b"damage at"[:9])
    assert read() >= 2 and read() <= 2


def test_reading_goes_on_where_the_cache_cannot_be_written(web, tmp_path, caplog):
    (tmp_path / "cache").write_text("no folder")
    dataset = web.open(cache=tmp_path / "cache")
    assert dataset.raw[:].shape == (540, 12, 1000)
    assert [record.getMessage().count("cannot be written") for record in caplog.records].count(1) == 1


def test_a_cache_needs_sums(memory, tmp_path):
    import fsspec

    fsspec.filesystem("memory").rm("/runs/zarr/SHA256SUMS")
    assert memory.open().raw[3].shape == (12, 1000)
    with pytest.raises(UserError, match="memory://runs/zarr/SHA256SUMS: absent, and a cache needs it"):
        memory.open(cache=tmp_path)


# Names that are none --------------------------------------------------------------------------------------------------

REFUSED = {
    "s3://key:hunter22@bucket/runs": "a password in a URL gets into logs",
    "https://me:hunter22@host/runs": "a password in a URL",
    "https://hunter22@host/runs": "a password in a URL",
    "https://host/runs?X-Amz-Signature=hunter22": "a query or fragment",
    "simplecache::s3://bucket/runs": "a chained URL is not read.*cache='DIR'",
    "zip://a::s3://bucket/hunter22.zip": "a chained URL",
    "nosuch://bucket/runs": "fsspec knows no nosuch://",
    "s3://": "names no dataset",
    "memory://nothing/here": r"no dataset \(no dataset.json below it\)",
    "memory://runs/zarr.partial": "not finished yet",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_no_url_of_a_dataset_is_refused_in_words(url, memory):
    with pytest.raises(UserError, match=REFUSED[url]) as caught:
        ecg_batch.open_dataset(url)
    assert "hunter22" not in str(caught.value).replace("hunter22.zip", "")


class Hosted(MemoryFileSystem):
    """Folders in memory, of hosts that stand in URLs, as those of ftp, sftp and webhdfs do."""

    protocol = "hosted"

    def __init__(self, host: str, **options):
        super().__init__(**options)
        self.host = host

    @staticmethod
    def _get_kwargs_from_urls(url: str) -> dict:
        return {"host": url.split("/")[2]}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("hosted://some.host", ""))


def test_a_host_in_a_url_reaches_its_file_system(memory, folders):
    import fsspec

    fsspec.register_implementation("hosted", Hosted, clobber=True)
    dataset = ecg_batch.open_dataset("hosted://some.host/runs/zarr")
    assert dataset.path.store.here().fs.host == "some.host"
    np.testing.assert_array_equal(dataset.raw[3], ecg_batch.open_dataset(folders["zarr"]).raw[3])
    with pytest.raises(UserError, match="^ftp://127.0.0.1:9/runs: cannot be opened .*: ConnectionRefusedError"):
        ecg_batch.open_dataset("ftp://127.0.0.1:9/runs")
    dataset = ecg_batch.open_dataset("hosted://some.host/runs/zarr", storage_options={"host": "other"})
    assert dataset.path.store.here().fs.host == "other"


def test_a_path_is_no_url_and_a_folder_has_no_options(folders, tmp_path):
    from pathlib import Path

    with pytest.raises(UserError, match="a URL is given as text"):
        ecg_batch.open_dataset(Path("s3://bucket/runs"))
    with pytest.raises(UserError, match="storage_options and cache are for URLs"):
        ecg_batch.open_dataset(folders["zarr"], cache=tmp_path)
    np.testing.assert_array_equal(ecg_batch.open_dataset(f"file://{folders['zarr']}").raw[3],
                                  ecg_batch.open_dataset(folders["zarr"]).raw[3])  # fmt: skip


def test_colons_in_a_folder_are_no_chain(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders["zarr"], tmp_path / "runs::1")
    assert len(ecg_batch.open_dataset("runs::1")) == 540


def test_an_absent_package_is_named_with_its_extra():
    code = "import sys; sys.modules['s3fs'] = None\nimport ecg_batch\necg_batch.open_dataset('s3://bucket/runs')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "s3:// needs the extra 'remote': pip install 'ecg-batch[remote]'" in done.stderr.splitlines()[-1]


def test_a_local_dataset_needs_no_fsspec(folders):
    code = f"""
import sys
import ecg_batch
dataset = ecg_batch.open_dataset({str(folders["zarr"])!r})
dataset[3], dataset.records
print([name for name in ("fsspec", "s3fs", "aiohttp", "ecg_batch.remote.store") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("cache", ["s3://bucket/cache", True, 7])
def test_a_cache_that_is_no_folder_of_this_machine_is_refused(cache):
    with pytest.raises(UserError, match="cache is .*; needed a folder of this machine"):
        ecg_batch.open_dataset("https://127.0.0.1:9/demo", cache=cache)


def test_a_cache_in_ones_home_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("~/cache") == tmp_path / "cache"
