"""What goes wrong between here and a store is tried again, or said in a sentence with the URL; it is never a wrong sample."""

import shutil
import time

import aiohttp
import numpy as np
import pytest

import ecg_batch
from benchmarks.stores import proxy_to, put, rangeless_server, s3_options, s3_server
from ecg_batch import ECGIterable, ECGLoader
from ecg_batch.errors import UserError
from ecg_batch.remote import store as store_module


def with_short_waits(place) -> dict:
    """storage_options that do not wait for a silent server."""
    if place.protocol == "s3":
        return {**place.options, "config_kwargs": {"read_timeout": 0.3}}
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_read=0.3)}}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "wrong", "silent"])
@pytest.mark.parametrize("stored", ["web", "s3"], indirect=True)
def test_what_fails_once_is_tried_again(stored, folders, hurried, fault):
    """Each file fails the first time, and each chunk."""
    seen = set()

    def once(request):
        first = (request.path, request.range) not in seen
        seen.add((request.path, request.range))
        is_look = request.range == "bytes=0-1"  # nothing holds these bytes against a sum
        return fault if first and not (fault == "wrong" and is_look) else None

    stored.proxy.fault = once
    there = ecg_batch.open_dataset(stored.url(), storage_options=with_short_waits(stored))
    here = ecg_batch.open_dataset(folders["zarr"])
    assert there.records.equals(here.records)
    np.testing.assert_array_equal(there.raw[[3, 200, 539]], here.raw[[3, 200, 539]])
    assert len(stored.proxy.log) > len(seen)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("hdf5", "ecg.hdf5/00001.h5"), ("long", "ecg.zarr/ecg/c.1.0.0")])
def test_wrong_bytes_of_hdf5_and_of_long_records_are_fetched_again_too(all_kinds, web, tmp_path, kind, name):
    """Of a chunk once, and once the second time; then always, which is said."""
    here, record = ecg_batch.open_dataset(all_kinds[kind]), {"hdf5": 200, "long": 1}[kind]
    for at in (0, 1, 2, 3):
        web.proxy.clear()
        web.proxy.fault = lambda request, at=at: "wrong" if name in request.path and request.turn == at and request.range else None
        np.testing.assert_array_equal(web.open(kind).raw[record], here.raw[record])
        web.proxy.clear()  # so that it fails again; what came wrong is not kept
        np.testing.assert_array_equal(web.open(kind, cache=tmp_path / str(at)).raw[record], here.raw[record])
        np.testing.assert_array_equal(web.open(kind, cache=tmp_path / str(at)).raw[record], here.raw[record])
    web.proxy.clear()
    web.proxy.fault = lambda request: "wrong" if name in request.path and request.range not in ("", "bytes=0-1") else None
    with pytest.raises(UserError, match=f"{kind}.* cannot be read.*ecg-batch verify"):
        web.open(kind).raw[record]


SAID = {
    500: "not read in 5 tries over .*Look whether the store can be reached from here",
    503: "not read in 5 tries",
    "cut": "not read in 5 tries",
    "silent": "not read in 5 tries",
    "wrong": "chunk 1 cannot be read: what came is not what was written: its checksum is another.*copy it there again",
    404: "absent, so the dataset is damaged. ecg-batch verify .* names what else is; copy it there again",
    403: "access is refused",
    400: "cannot be read.*Look at the URL and at the storage_options",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", SAID)
@pytest.mark.parametrize("stored", ["web", "s3"], indirect=True)
def test_what_always_fails_is_said_in_a_sentence(stored, hurried, fault):
    dataset = ecg_batch.open_dataset(stored.url(), storage_options=with_short_waits(stored))
    stored.proxy.clear()
    stored.proxy.fault = lambda request: fault if request.path.endswith("c.1.0.0") and request.range != "bytes=-36" else None
    began = time.monotonic()
    with pytest.raises(UserError, match=f"^{stored.url()}/ecg.zarr/ecg/c.1.0.0: {SAID[fault]}") as caught:
        dataset.raw[200]
    assert len(str(caught.value)) < 700 and time.monotonic() - began < 20
    tries = sum(asked != "bytes=-36" and "receipts" not in path for path, asked, _ in stored.proxy.log)
    assert tries == (1 if fault in (400, 403, 404) else 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["00001.h5", "records.parquet"])
def test_a_size_that_is_not_told_at_once_is_asked_for_again(all_kinds, web, hurried, monkeypatch, name):
    """fsspec tells any failure of HEAD and GET as a file that is not there."""
    monkeypatch.setattr(store_module, "PART", 2000)  # so that the table is a large one
    monkeypatch.setattr(store_module, "LARGE", 1000)
    read = {"00001.h5": lambda: web.open("hdf5").raw[200], "records.parquet": lambda: web.open("hdf5").records}[name]
    expected = read()

    def failing(times: int, fault):
        turns = iter(range(times))
        web.proxy.clear()
        web.proxy.fault = lambda request: (
            fault if request.path.endswith(name) and not request.range and next(turns, -1) >= 0 else None
        )

    failing(4, 503)
    found = read()
    assert found.equals(expected) if name == "records.parquet" else (found == expected).all()
    assert len([path for path, asked, _ in web.proxy.log if path.endswith(name) and not asked]) == 5
    failing(1000, 503)
    with pytest.raises(UserError, match=f"{name}: not read in 5 tries .*its size was not told.*run it again"):
        read()
    failing(1000, "unsized")
    with pytest.raises(UserError, match=f"{name}: the server does not say how large it is"):
        read()


@pytest.mark.slow
def test_a_damaged_index_of_a_long_record_is_said(all_kinds, web, hurried):
    dataset = web.open("long")
    web.proxy.fault = lambda request: "wrong" if "c.1.0.0" in request.path and request.range.startswith("bytes=-") else None
    with pytest.raises(UserError, match="long/ecg.zarr/ecg/c.1.0.0: its index cannot be read: what came .*copy it there again"):
        dataset.window(1, 0, 10)
    web.proxy.fault = lambda request: None
    assert dataset.window(1, 0, 10).shape == (12, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("zarr", "c.1.0.0"), ("hdf5", "00001.h5")])
def test_who_reads_again_after_an_outage_asks_again(all_kinds, web, hurried, kind, name):
    """A record, where another thing fails the second time, and a loader."""
    here, there = ecg_batch.open_dataset(all_kinds[kind]), web.open(kind)
    there.raw[130]  # from now on it is known where the chunks of this file lie
    for fault, said in ((503, "not read in 5 tries"), (403, "access is refused")):
        web.proxy.fault = lambda request, fault=fault: fault if name in request.path else None
        with pytest.raises(UserError, match=said):
            there.raw[200]
        assert not there.path.store.here().begun
    loader = ECGLoader(ECGIterable(there, batch=540, shuffle=False))
    with pytest.raises(UserError, match="access is refused"):
        next(iter(loader))
    web.proxy.fault = lambda request: None
    assert len(next(iter(loader))["signal"]) == 540
    np.testing.assert_array_equal(there.raw[200], here.raw[200])


@pytest.mark.parametrize("name", ["dataset.json", "SHA256SUMS", "ecg.zarr/ecg/zarr.json"])
def test_a_file_that_is_always_wrong_is_damaged(web, name):
    web.proxy.fault = lambda request: "wrong" if request.path.endswith(name) and request.range != "bytes=0-1" else None
    with pytest.raises(UserError, match=rf"/zarr/{name}: (damaged|cannot be read).*"):
        web.open().raw[3]


def test_an_absent_table_is_said(web):
    web.proxy.fault = lambda request: 404 if request.path.endswith("records.parquet") else None
    with pytest.raises(UserError, match="/zarr/records.parquet: absent, so the dataset is damaged"):
        web.open()


def test_a_server_without_ranges_is_refused_before_anything_large_is_fetched(folders):
    with rangeless_server(folders["zarr"].parent) as address, proxy_to(address) as proxy:
        with pytest.raises(UserError, match="dataset.json: the server sends .* bytes where 2 were asked for: it knows no ranges"):
            ecg_batch.open_dataset(f"{proxy.url}/zarr")
        assert len(proxy.log) == 1


@pytest.mark.parametrize("answer", ["whole", 416])  # npm's http-server says 416
def test_a_server_that_knows_no_ranges_from_the_end_is_asked_otherwise(web, folders, answer):
    web.proxy.fault = lambda request: answer if request.range.startswith("bytes=-") else None
    wanted = [3, 70, 300, 539]
    np.testing.assert_array_equal(web.open().raw[wanted], ecg_batch.open_dataset(folders["zarr"]).raw[wanted])
    assert sum(asked.startswith("bytes=-") for _, asked, _ in web.proxy.log) <= 3  # those that were under way at once


def test_a_server_that_compresses_on_the_way_is_asked_not_to(web):
    """It would give no ranges of what it compresses."""
    web.proxy.fault = lambda request: "whole" if request.encoding != "identity" else None
    assert web.open().raw[3].shape == (12, 1000)
    with pytest.raises(UserError, match="knows no ranges"):
        ecg_batch.open_dataset(web.url(), storage_options={"headers": {"Accept-Encoding": "gzip"}})


def test_a_server_that_forgets_ranges_later_is_refused(web):
    dataset = web.open()
    web.proxy.fault = lambda request: "whole" if "c.1.0.0" in request.path else None
    with pytest.raises(UserError, match="c.1.0.0: the server sends .* bytes where .* were asked for: it knows no ranges"):
        dataset.raw[200]


def test_a_server_that_is_not_there_is_said(hurried):
    with pytest.raises(UserError, match="^http://127.0.0.1:9/runs/dataset.json: not read in 5 tries over .*Look whether the store"):
        ecg_batch.open_dataset("http://127.0.0.1:9/runs")


@pytest.mark.slow
def test_a_dataset_that_is_replaced_while_it_is_read_is_never_mixed(make_dataset, folders):
    """Indices of before and samples of after: what is read is one dataset's or an error."""
    url = folders["zarr"].parent / "mixed"
    shutil.copytree(folders["zarr"], url)
    other = make_dataset("other", seed=9)
    with s3_server() as address, proxy_to(address) as proxy:
        put(url, address, "bucket", "mixed")
        dataset = ecg_batch.open_dataset("s3://bucket/mixed", storage_options=s3_options(proxy.url))
        first = dataset.raw[:]
        put(other, address, "bucket", "mixed")
        with pytest.raises(UserError, match=r"c\.\d\.0\.0: chunk . cannot be read: what came is not what was written"):
            dataset.raw[:]
        with pytest.raises(UserError, match="records.parquet: damaged: its sha256 is not that in SHA256SUMS"):
            dataset.columns(["label"])
        again = ecg_batch.open_dataset("s3://bucket/mixed", storage_options=s3_options(proxy.url)).raw[:]
    shutil.rmtree(url)
    np.testing.assert_array_equal(first, ecg_batch.open_dataset(folders["zarr"]).raw[:])
    np.testing.assert_array_equal(again, ecg_batch.open_dataset(other).raw[:])
