"""Fetching PTB-XL: from the one true path, through faults of the network, and never outside the folder."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from ptbxl_layout import write_layout

from ecg_batch.donors import download as downloading
from ecg_batch.donors import ptbxl
from ecg_batch.donors.download import SUMS, download
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file


class PhysioNet(BaseHTTPRequestHandler):
    """Knows /files/ptb-xl/1.0.3/ and nothing else. server.faults: path -> a list of what to do instead, one after another."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.removeprefix("/files/ptb-xl/1.0.3/")
        self.server.asked.append(name)
        fault = self.server.faults.get(name, [None])
        act = fault.pop(0) if len(fault) > 1 else fault[0]
        if act:
            return act(self, name)
        self.answer(name)

    def answer(self, name: str, cut: int | None = None):
        body = self.server.files.get(name)
        if body is None or self.path == name:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name -> content of a small release, with its list of sums and of other things that are in it."""
    folder = tmp_path_factory.mktemp("release") / "ptbxl"
    write_layout(folder, list(range(0, 60, 12)))
    (folder / "LICENSE.txt").write_text("CC BY 4.0\n")
    (folder / "records500").mkdir()
    (folder / "records500" / "00001_hr.dat").write_bytes(b"another rate")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    sums = "".join(f"{sha256_file(path)} {name}\n" for path, name in zip(paths, names, strict=True))
    return {**{name: path.read_bytes() for name, path in zip(names, paths, strict=True)}, SUMS: sums.encode()}


@pytest.fixture
def physionet(files, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), PhysioNet)
    server.files, server.faults, server.asked = dict(files), {}, []
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(downloading, "SERVER", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(downloading, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(downloading, "TIMEOUT_S", 2.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.shutdown()
    server.server_close()


def held(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wanted(files) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith("records500") and name != SUMS}


def whole(folder, files) -> bool:
    found = held(folder)
    return found.pop(SUMS, b"") != b"" and found == wanted(files)


def test_the_database_is_asked_for_by_the_name_that_physionet_gives_it():
    assert downloading.url_of(SUMS) == "https://physionet.org/files/ptb-xl/1.0.3/SHA256SUMS.txt"


@pytest.mark.slow
def test_the_layout_is_fetched_and_a_broken_one_mended(files, physionet, tmp_path):
    download(tmp_path, 100)
    assert whole(tmp_path, files) and len(ptbxl.read_release(tmp_path, 100).entries) == 5
    record = sorted(name for name in files if name.endswith("_lr.dat"))[2]
    (tmp_path / record).write_bytes(files[record][:1000])  # as a killed download leaves it
    (tmp_path / record).with_suffix(".hea").unlink()
    physionet.asked.clear()
    download(tmp_path, 100)
    assert whole(tmp_path, files)
    assert physionet.asked == [SUMS, record, record.replace(".dat", ".hea")]  # whole files are not asked for again


def cut(handler, name):
    handler.answer(name, cut=10)


def hang_up(handler, name):
    handler.close_connection = True


def status(code):
    return lambda handler, name: handler.send_error(code)


def nonsense(handler, name):
    handler.wfile.write(b"\0\1\2 no HTTP\r\n\r\n")
    handler.close_connection = True


def broken_chunks(handler, name):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"5\r\nab")
    handler.close_connection = True


def leads_to(address):
    def act(handler, name):
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


@pytest.mark.slow
@pytest.mark.parametrize("fault", [cut, hang_up, status(503), status(429), status(500), nonsense, broken_chunks])
@pytest.mark.parametrize("what", [SUMS, ptbxl.TABLE, "a record"])
def test_a_fault_that_passes_is_tried_through_and_one_that_stays_is_told_in_words(files, physionet, tmp_path, fault, what):
    name = sorted(wanted(files))[4] if what == "a record" else what
    physionet.faults[name] = [fault, fault, None]
    download(tmp_path / "a", 100)
    assert whole(tmp_path / "a", files)
    physionet.faults[name] = [fault]
    with pytest.raises(UserError, match=r"cannot be fetched after 3 tries: .*Run the same command again") as error:
        download(tmp_path / "b", 100)
    assert name in str(error.value) and len(str(error.value)) < 700
    physionet.faults.clear()
    download(tmp_path / "b", 100)
    assert whole(tmp_path / "b", files)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "says"), [(404, "404"), (403, "403"), (410, "410")])
def test_what_is_not_there_is_said_at_once(physionet, tmp_path, code, says):
    physionet.faults[ptbxl.STATEMENTS] = [status(code)]
    with pytest.raises(UserError, match=f"{ptbxl.STATEMENTS}: the server says {says}.*by hand"):
        download(tmp_path, 100)
    assert physionet.asked.count(ptbxl.STATEMENTS) == 1


@pytest.mark.parametrize(("address", "says"), [
    ("file:///etc/passwd", "no address of the web"), ("/files/ptb-xl/1.0.3/SHA256SUMS.txt", "again and again"),
    ("gopher://x", "no address"),
])  # fmt: skip
def test_leads_to_elsewhere_are_not_followed(physionet, tmp_path, address, says):
    physionet.faults[SUMS] = [leads_to(address)]
    with pytest.raises(UserError, match=says):
        download(tmp_path, 100)


def test_a_lead_to_another_address_of_the_web_is_followed(files, physionet, tmp_path):
    physionet.files["elsewhere"] = files[ptbxl.TABLE]
    physionet.faults[ptbxl.TABLE] = [leads_to("/files/ptb-xl/1.0.3/elsewhere")]
    download(tmp_path, 100)
    assert whole(tmp_path, files)


@pytest.mark.parametrize(
    "name", ["records100/../../outside", "records100//x", "records100/a b", "records100/./x", "records100/", "records100/\x07"]
)
def test_a_list_that_leads_outside_the_folder_is_refused_before_anything_is_written(files, physionet, tmp_path, name):
    physionet.files[SUMS] = files[SUMS] + f"{'0' * 64} {name}\n".encode()
    physionet.files[name] = b"planted"
    with pytest.raises(UserError, match="which is no file of a release"):
        download(tmp_path / "ptbxl", 100)
    assert held(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "records1000/x", "setup.py", "ptbxl_database.csv/../../x", "~/.ssh/x"]
)
def test_names_that_are_none_of_the_release_are_not_even_asked_for(files, physionet, tmp_path, name):
    physionet.files[SUMS] = files[SUMS] + f"{'0' * 64} {name}\n".encode()
    download(tmp_path / "ptbxl", 100)
    assert whole(tmp_path / "ptbxl", files) and [path.name for path in tmp_path.iterdir()] == ["ptbxl"]
    assert not any("outside" in asked or name == asked for asked in physionet.asked)


@pytest.mark.parametrize("sums", [b"", b"<html>Please log in</html>", b"\xff\xfe\0\0", b"0" * 10_000])
def test_a_page_in_place_of_the_list_is_refused(physionet, tmp_path, sums):
    physionet.files[SUMS] = sums
    with pytest.raises(UserError, match="not PTB-XL's list of files"):
        download(tmp_path, 100)


def test_a_file_that_never_arrives_whole_is_named_and_not_kept(files, physionet, tmp_path):
    record = sorted(name for name in files if name.endswith("_lr.dat"))[1]
    physionet.files[record] = b"other" + files[record][5:]
    with pytest.raises(UserError, match=f"{record}: did not arrive whole"):
        download(tmp_path, 100)
    assert not (tmp_path / record).exists() and not list(tmp_path.rglob("*.download"))


def test_a_server_that_is_not_there_is_said_in_words(physionet, monkeypatch, tmp_path):
    for address in ("http://127.0.0.1:1", "http://no-such-host.invalid"):
        monkeypatch.setattr(downloading, "SERVER", address)
        with pytest.raises(UserError, match="cannot be fetched after 3 tries.*Is there a network"):
            download(tmp_path, 100)


def test_a_folder_that_cannot_be_written_is_said_in_words(physionet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written there"):
        download(tmp_path / "file", 100)
