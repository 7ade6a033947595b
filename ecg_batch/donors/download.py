"""Fetch PTB-XL from PhysioNet: what its list of sums names, whole or not at all, again and again until it is there.

One connection, kept open: a file of a record has 24 kB at 100 Hz, and PhysioNet asks for few connections.
"""

import http.client
import logging
import os
import re
import time
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit
from uuid import uuid4

from ecg_batch.donors.ptbxl import PLAIN_PATH, STATEMENTS, TABLE
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.progress import progress

SERVER = "https://physionet.org"
DATABASE = "ptb-xl"  # its name on PhysioNet; ptbxl is the name of the table
VERSION = "1.0.3"
SUMS, LICENSE = "SHA256SUMS.txt", "LICENSE.txt"
SUM_LINE = re.compile(r"([0-9a-f]{64})\s+[*]?(.+)")
TIMEOUT_S = 60.0
PAUSES_S = (1.0, 4.0, 15.0, 60.0)  # before another try, when the network or the server fails
MOST_BYTES = 100_000_000  # of one file: the table has 10 MB
MOST_LEAPS = 5  # redirections of one file
BLOCK = 1 << 16

log = logging.getLogger(__name__)


class Again(Exception):
    """A fault that may be gone at the next try; its text says what it was."""


def download(folder: Path, fs_hz: int) -> None:
    """Fetches PTB-XL at one rate into `folder`. Call it again after a break: whole files are kept, others fetched anew.

    Every file is held against the release's SHA256SUMS.txt. Only names of the release's layout are written, below `folder`.
    Raises UserError when one does not arrive whole, or the server cannot be reached.
    """
    source = Source()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sums = _sums(source.fetch(SUMS), fs_hz)
        with progress(len(sums), "download", "files") as shown:
            for name, sum_ in sums.items():
                if not _is_whole(folder / name, sum_):
                    _fetch_whole(source, folder / name, name, sum_)
                shown.update()
        _put(folder / SUMS, b"".join(f"{sum_}  {name}\n".encode() for name, sum_ in sums.items()))
    except OSError as error:
        raise UserError(f"{folder}: PTB-XL cannot be written there: {error.strerror or error}. Make room, or name another --ptbxl; "
                        "whole files are kept") from error  # fmt: skip
    finally:
        source.close()


def _sums(text: bytes, fs_hz: int) -> dict[str, str]:
    """Name -> sha256 of what is wanted. Names that are none of the release's, as ../x, are not looked at any further."""
    prefix = {100: "records100/", 500: "records500/"}[fs_hz]
    lines = [SUM_LINE.fullmatch(line.strip()) for line in text.decode("utf-8", errors="replace").splitlines() if line.strip()]
    found = {line[2]: line[1] for line in lines if line}
    wanted = {name: sum_ for name, sum_ in found.items() if name in (TABLE, STATEMENTS, LICENSE) or name.startswith(prefix)}
    if absent := [name for name in (TABLE, STATEMENTS) if name not in wanted]:
        raise UserError(f"{url_of(SUMS)}: does not name {absent[0]}, so this is not PTB-XL's list of files: {text[:90]!r}. Is "
                        "there a page to log in between? Try again later, or fetch PTB-XL by hand")  # fmt: skip
    if odd := [name for name in wanted if not PLAIN_PATH.fullmatch(name)]:
        raise UserError(f"{url_of(SUMS)}: names {odd[0]!r:.200}, which is no file of a release; nothing was fetched")
    return wanted


def url_of(name: str) -> str:
    return f"{SERVER}/files/{DATABASE}/{VERSION}/{quote(name)}"


def _is_whole(path: Path, sum_: str) -> bool:
    return path.is_file() and sha256_file(path) == sum_


def _fetch_whole(source: "Source", path: Path, name: str, sum_: str) -> None:
    for _ in range(2):  # a proxy may have kept a broken one
        _put(path, source.fetch(name))
        if _is_whole(path, sum_):
            return
        path.unlink()
    raise UserError(
        f"{path}: did not arrive whole; its sha256 is not the one in {SUMS}. Run the same command again; whole files are kept"
    )


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid4().hex}.download")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


class Source:
    """A connection to the server, opened anew where it broke."""

    def __init__(self):
        self._connection: http.client.HTTPConnection | None = None
        self._server = ""

    def fetch(self, name: str) -> bytes:
        """A file of the release. UserError, in words, where it cannot be had after all tries."""
        for pause_s in (*PAUSES_S, None):
            try:
                return self._get(url_of(name))
            except (Again, OSError, http.client.HTTPException) as error:
                self.close()
                said = str(error) if isinstance(error, Again) else f"{type(error).__name__}: {error}"
                said = " ".join("".join(letter if letter.isprintable() else " " for letter in said[:300]).split())
                if pause_s is None:
                    raise UserError(f"{url_of(name)}: cannot be fetched after {len(PAUSES_S) + 1} tries: {said}. Is there a "
                                    "network here? Run the same command again; whole files are kept") from error  # fmt: skip
                log.info("%s: %s; another try in %g s", url_of(name), said, pause_s)
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _get(self, url: str) -> bytes:
        for _ in range(MOST_LEAPS + 1):
            response = self._ask(url)
            if response.status not in (301, 302, 303, 307, 308):
                return _body(response, url)
            response.read(BLOCK)
            self.close()
            leads_to = urljoin(url, response.headers.get("Location", ""))
            if url.startswith("https:") and not leads_to.startswith("https:"):
                raise UserError(f"{url}: leads to {leads_to!r:.200}, which anyone on the way could change; fetch PTB-XL by hand")
            url = leads_to
        raise UserError(f"{url}: leads to other addresses again and again; fetch PTB-XL by hand")

    def _ask(self, url: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!s:.200}: leads to no address of the web; fetch PTB-XL by hand")
        server = f"{parts.scheme}://{parts.netloc}"
        if self._connection is None or server != self._server:
            self.close()
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            self._connection, self._server = _through_proxy(kind, parts), server
        path = parts.path or "/"
        self._connection.request("GET", path + (f"?{parts.query}" if parts.query else ""), headers={"User-Agent": "ecg-batch"})
        return self._connection.getresponse()

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _through_proxy(kind: type, parts) -> http.client.HTTPConnection:
    """A connection, by the proxy that the environment names for this server where it does: http_proxy, https_proxy, no_proxy."""
    from urllib.request import getproxies, proxy_bypass

    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    if not proxy:
        return kind(parts.netloc, timeout=TIMEOUT_S)
    proxy = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = kind(proxy.hostname, proxy.port or 8080, timeout=TIMEOUT_S)
    connection.set_tunnel(parts.hostname, parts.port)
    return connection


def _body(response: http.client.HTTPResponse, url: str) -> bytes:
    if response.status in (404, 403, 401, 410):
        raise UserError(f"{url}: the server says {response.status} {response.reason:.60}; this release may have moved. "
                        "Fetch PTB-XL by hand from https://physionet.org/content/ptb-xl/")  # fmt: skip
    if response.status != 200:
        raise Again(f"the server says {response.status} {response.reason:.60}")
    data = response.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise UserError(f"{url}: sends more than {MOST_BYTES // 1_000_000} MB, which no file of PTB-XL has; nothing was kept")
    if response.length:
        raise Again(f"{response.length} bytes did not come")
    return data
