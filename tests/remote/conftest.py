"""Stores that hold finished datasets: an S3 server and a web server, both real, each behind a proxy that can fail."""

import shutil
import subprocess
import sys
from dataclasses import dataclass

import fsspec
import pytest
from fakes import fake, small_request
from places import ROOT

import ecg_batch
from benchmarks.stores import Proxy, proxy_to, put, s3_options, s3_server, web_server
from ecg_batch.remote import store as store_module
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize

LONG = "{records: 2, batch: 2, duration_s: 130, seed: 1, mix: {labels: {NORM: 1.0}, hr_bpm: 72}}"


@dataclass
class Place:
    """Where three datasets lie. url(kind); options: storage_options; proxy: between, to count and to fail."""

    protocol: str
    options: dict
    proxy: Proxy

    def url(self, kind: str = "zarr") -> str:
        return {"http": f"{self.proxy.url}/{kind}", "s3": f"s3://bucket/runs/{kind}", "memory": f"memory://runs/{kind}"}[self.protocol]

    def open(self, kind: str = "zarr", **given):
        return ecg_batch.open_dataset(self.url(kind), storage_options=self.options, **given)


@pytest.fixture(scope="session")
def folders(made_once, tmp_path_factory):
    """kind -> folder of a finished dataset: zarr, and with all_kinds also hdf5 and long."""
    folder = tmp_path_factory.mktemp("stored")
    shutil.copytree(made_once, folder / "zarr")
    return {"zarr": folder / "zarr"}


@pytest.fixture(scope="session")
def all_kinds(inputs, folders):
    folder = folders["zarr"].parent
    synthesize(load_request(small_request(inputs, folder / "hdf5.yaml", format="hdf5")), folder / "hdf5", 1, fake())
    (folder / "long.yaml").write_text(LONG)
    job = [sys.executable, str(ROOT / "jobs/synthesize.py"), str(folder / "long.yaml"), "--out", str(folder / "long")]
    subprocess.run(job, check=True, capture_output=True)
    folders |= {kind: folder / kind for kind in ("hdf5", "long")}
    return folders


@pytest.fixture(scope="session")
def s3_behind(all_kinds):
    with s3_server() as address, proxy_to(address) as proxy:
        for kind, folder in all_kinds.items():
            put(folder, address, "bucket", f"runs/{kind}")
        yield Place("s3", s3_options(proxy.url), proxy)


@pytest.fixture(scope="session")
def web_behind(folders):
    with web_server(folders["zarr"].parent) as address, proxy_to(address) as proxy:
        yield Place("http", {}, proxy)


@pytest.fixture
def s3(s3_behind):
    yield honest(s3_behind)
    honest(s3_behind)


@pytest.fixture
def web(web_behind):
    yield honest(web_behind)
    honest(web_behind)


@pytest.fixture
def memory(folders):
    fs = fsspec.filesystem("memory")
    fs.put(f"{folders['zarr'].parent}/", "memory://runs/", recursive=True)
    yield Place("memory", {}, Proxy(""))
    fs.rm("/runs", recursive=True)


def honest(place: Place) -> Place:
    place.proxy.fault, place.proxy.latency_s = (lambda request: None), 0.0
    place.proxy.clear()
    return place


@pytest.fixture
def stored(request):
    """The place that a test's parameter names."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def hurried(monkeypatch):
    """Tries follow each other at once."""
    monkeypatch.setattr(store_module, "WAITS_S", (0.01, 0.01, 0.01, 0.01))
