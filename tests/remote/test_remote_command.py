"""ecg-batch status, verify and export take the URL of a finished dataset; what makes or mends one takes folders only."""

import hashlib
import json

import fsspec
import pytest

from ecg_batch.cli.main import main
from ecg_batch.dataset.run import find_folder
from ecg_batch.dataset.verify import verify
from ecg_batch.export.formats import export


def said(words: list, capsys) -> tuple[int, str]:
    """(exit status, what was printed)."""
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


@pytest.fixture
def in_environment(s3, monkeypatch):
    """The S3 server's address and credentials where AWS' own tools look for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.options["secret"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.options["endpoint_url"])
    return s3


def test_status_of_a_url(web, folders, capsys):
    there, here = said(["status", web.url()], capsys), said(["status", folders["zarr"]], capsys)
    assert there[0] == 0 and there[1] == here[1].replace(str(folders["zarr"]), web.url())
    status, printed = said(["status", f"{web.url()}-nothing"], capsys)
    assert status == 2 and printed.startswith(f"error: {web.url()}-nothing: no dataset (no dataset.json below it). Give the URL")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zarr", "hdf5", "long"])
def test_verify_fetches_each_byte_once(in_environment, folders, capsys, kind):
    status, printed = said(["verify", in_environment.url(kind)], capsys)
    assert status == 0 and printed.splitlines()[-1] == f"{in_environment.url(kind)}: all is well", printed
    size = sum(path.stat().st_size for path in folders[kind].rglob("*") if path.is_file())
    assert size <= in_environment.proxy.bytes < 1.02 * size + 20_000  # and lists, and two bytes to begin with


DAMAGES = {
    "a bit of a shard": "ecg.zarr/ecg/c.1.0.0: damaged: its sha256 is not that in SHA256SUMS",
    "a bit of the rows": "records.parquet: damaged: its sha256 is not that in SHA256SUMS",
    "a shard that is not there": "ecg.zarr/ecg/c.1.0.0: cannot be read: no such file",
    "a receipt that is not there": "receipts/1.json: cannot be read: no such file",
    "a stray": "notes.txt: stray: no part of the dataset. Remove it",
    "two shards exchanged": "ecg.zarr/ecg/c.1.0.0: damaged: its sha256 is not that in SHA256SUMS",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_the_damage(memory, damage):
    fs, root = fsspec.filesystem("memory"), "/runs/zarr"
    name = {"a bit of the rows": "records.parquet"}.get(damage, "ecg.zarr/ecg/c.1.0.0")
    data = bytearray(fs.cat_file(f"{root}/{name}"))
    if damage.startswith("a bit"):
        data[len(data) // 2] ^= 1
        fs.pipe_file(f"{root}/{name}", bytes(data))
    elif damage == "a stray":
        fs.pipe_file(f"{root}/notes.txt", b"?")
    elif damage == "two shards exchanged":
        fs.pipe_file(f"{root}/{name}", fs.cat_file(f"{root}/ecg.zarr/ecg/c.2.0.0"))
    else:
        fs.rm_file(f"{root}/{'receipts/1.json' if 'receipt' in damage else name}")
    problems = list(verify(find_folder(memory.url())))
    assert problems[0] == DAMAGES[damage] and len(problems) <= 2, problems


@pytest.mark.slow
@pytest.mark.parametrize("format", ["ptbxl", "npy", "hdf5", "webdataset"])
def test_an_export_is_that_of_the_folder(web, folders, tmp_path, format):
    import ecg_batch

    made = {}
    for name, dataset in (("there", web.open()), ("here", ecg_batch.open_dataset(folders["zarr"]))):
        export(dataset.where(label="AFIB"), tmp_path / name, format, 1)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        made[name] = {str(path.relative_to(tmp_path / name)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert made["there"] == made["here"] and len(made["here"]) > 2


@pytest.mark.slow
def test_an_export_by_worker_processes_from_s3(in_environment, folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert said(["export", in_environment.url(), "--format", "npy", "--workers", "2"], capsys)[0] == 0
    assert said(["export", folders["zarr"], "--format", "npy", "--out", "here", "--workers", "1"], capsys)[0] == 0
    assert (tmp_path / "zarr-npy/ecg.npy").read_bytes() == (tmp_path / "here/ecg.npy").read_bytes()
    assert (tmp_path / "zarr-npy/beats.parquet").read_bytes() == (folders["zarr"] / "beats.parquet").read_bytes()


@pytest.mark.parametrize("words", [
    ["verify", "s3://bucket/runs", "--repair"], ["synthesize", "x.yaml", "--out", "s3://bucket/runs"],
    ["export", "runs/rare", "--format", "npy", "--out", "https://host/runs"], ["plot", "s3://bucket/runs"], ["report", "s3://bucket/runs"],
    ["evaluate", "s3://bucket/runs", "--out", "report"],
])  # fmt: skip
def test_what_works_in_folders_only_says_so(words, capsys):
    try:
        status, printed = said(words, capsys)
    except SystemExit as ended:
        status, printed = ended.code, capsys.readouterr().err
    assert status == 2 and "works in a folder" in printed and "Traceback" not in printed


def test_verify_follows_no_name_out_of_the_dataset(memory):
    """SHA256SUMS is the store's, and may name anything."""
    fs = fsspec.filesystem("memory")
    body = fs.cat_file("/runs/zarr/SHA256SUMS").rpartition(b"# sha256")[0] + b"%064d  ../../secret\n" % 0
    fs.pipe_file("/runs/zarr/SHA256SUMS", body + f"# sha256 of the lines above: {hashlib.sha256(body).hexdigest()}\n".encode())
    fs.pipe_file("/secret", b"?")
    folder, asked = find_folder(memory.url()), []
    fetch = folder.store.fetch
    folder.store.fetch = lambda name, *given, **named: asked.append(name) or fetch(name, *given, **named)
    assert list(verify(folder)) == ["../../secret: named in SHA256SUMS, and no part of the dataset"]
    assert "records.parquet" in asked and not [name for name in asked if "secret" in name]


def test_what_is_no_manifest_is_told_in_words(memory):
    """What lies at a URL may be anything."""
    fs = fsspec.filesystem("memory")
    for text in ("{", "[]", json.dumps({"format": 10**9})):
        fs.pipe_file("/runs/zarr/dataset.json", text.encode())
        with pytest.raises(Exception, match="memory://runs/zarr/dataset.json: (damaged|format)"):
            memory.open()
