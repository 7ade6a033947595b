"""Stores to read from, on this machine: an S3 server, a web server, and a proxy before either that counts, delays and fails.

    python -m benchmarks.stores web FOLDER | proxy ADDRESS LATENCY_S      in a process of its own, until it is ended
"""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE = 2**18
HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive", "proxy-connection", "server", "date")


class _Threaded(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is none of ours."""


@contextmanager
def _served(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


# A proxy --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a client asked: number counts requests from 0; those of this path from 0 in turn. encoding: what it accepts."""

    path: str
    range: str
    number: int
    turn: int
    encoding: str


@dataclass
class Proxy:
    """url: of the proxy. latency_s: before each answer. fault(request) -> None, or what happens instead of an honest answer:
    a number, the status of an answer without a body; "cut": half of the body, then the connection is closed; "silent": none at all;
    "wrong": one byte of the body is another; "whole": the whole file, whatever range was asked for; "unsized": no Content-Length.

    log: (path, range, bytes of body sent) of each request.
    """

    url: str
    latency_s: float = 0.0
    fault: Callable[[Request], object] = lambda request: None
    log: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(size for *_, size in self.log)

    def clear(self) -> None:
        self.log.clear()


@contextmanager
def proxy_to(upstream: str) -> Iterator[Proxy]:
    """A proxy before a server at http://host:port, in this process."""
    held = Proxy("")
    with _served(_Threaded(("127.0.0.1", 0), partial(_Passing, held, upstream.removeprefix("http://")))) as held.url:
        yield held


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, proxy: Proxy, upstream: str, *given):
        self._proxy, self._upstream, self._lock = proxy, upstream, threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        super().__init__(*given)

    def do_GET(self) -> None:
        path, asked = self.path.partition("?")[0], self.headers.get("Range", "")
        turn = sum(1 for other, *_ in self._proxy.log if other == path)
        request = Request(path, asked, len(self._proxy.log), turn, self.headers.get("Accept-Encoding", ""))
        self._proxy.log.append((path, asked, 0))
        fault = self._proxy.fault(request)
        time.sleep(self._proxy.latency_s)
        if fault == "silent":
            time.sleep(3)
            self.close_connection = True
            return
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._pass(request, fault)

    do_HEAD = do_POST = do_PUT = do_GET

    def _pass(self, request: Request, fault: object) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        if fault == "whole":
            del self.headers["Range"]
        answer = self._ask(body)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP and not (fault == "unsized" and name.lower() == "content-length"):
                self.send_header(name, value)
        if (fault == "unsized" or answer.getheader("Content-Length") is None) and self.command != "HEAD":
            self.close_connection = True
        self.end_headers()
        size, sent = int(answer.getheader("Content-Length") or 0), 0
        while piece := answer.read(PIECE):
            if fault == "wrong" and sent <= size // 2 < sent + len(piece):
                piece = bytearray(piece)
                piece[size // 2 - sent] ^= 1
            if fault == "cut" and sent + len(piece) > size // 2:
                self.wfile.write(piece[: max(size // 2 - sent, 0)])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                break
            self.wfile.write(piece)
            sent += len(piece)
        self._proxy.log[request.number] = (request.path, request.range, sent)
        if fault == "cut":
            self._connection.close()
            self._connection = None

    def _ask(self, body: bytes | None) -> http.client.HTTPResponse:
        for _ in range(2):  # the server may have closed a connection that was idle
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self._upstream, timeout=60)
            try:
                self._connection.request(self.command, self.path, body, dict(self.headers))
                return self._connection.getresponse()
            except (http.client.HTTPException, OSError):
                self._connection = None
        raise ConnectionError(f"{self._upstream} does not answer")

    def log_message(self, *words) -> None:
        """Quiet."""


# Servers --------------------------------------------------------------------------------------------------------------


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a moto server, a process of its own; what it holds is gone with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(2**30)}  # in memory
    words = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None:
                raise RuntimeError("moto_server ended at once")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def s3_options(address: str) -> dict:
    return {"key": "AKIAIOSFODNN7EXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "endpoint_url": address,
            "client_kwargs": {"region_name": "eu-central-1"}}  # fmt: skip


def put(folder: Path, address: str, bucket: str, key: str) -> None:
    """Copy a folder to an S3 server."""
    import fsspec

    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **s3_options(address))
    if not fs.exists(bucket):
        fs.mkdir(bucket)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        fs.put_file(str(path), f"{bucket}/{key}/{path.relative_to(folder).as_posix()}")


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """The address of aiohttp's server of files, which knows ranges, in this process."""
    from aiohttp import web

    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_static("/", folder)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(site._server.sockets[0].getsockname()[1])
        ready.set()
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield f"http://127.0.0.1:{address[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def rangeless_server(folder: Path) -> Iterator[str]:
    """The address of Python's own server of files, which knows no ranges."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words) -> None:
            """Quiet."""

    with _served(_Threaded(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))) as address:
        yield address


@contextmanager
def elsewhere(*words: object) -> Iterator[str]:
    """The address of one of these in a process of its own, which shares no core's lock with who reads."""
    command = [sys.executable, "-m", "benchmarks.stores", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)


def main(words: list[str]) -> int:
    kind, of, *latency_s = words
    with web_server(Path(of)) if kind == "web" else proxy_to(of) as served:
        if latency_s:
            served.latency_s = float(latency_s[0])
        print(served if kind == "web" else served.url, flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
