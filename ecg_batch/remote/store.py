"""Store: what lies below one URL, fetched whole or by ranges, several at once, tried again where network or server failed."""

import errno
import hashlib
import logging
import mmap
import os
import random
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.context import get_spawning_popen
from pathlib import Path

from ecg_batch.errors import UserError
from ecg_batch.remote.cache import Cache
from ecg_batch.remote.url import FTP, URL, cache_folder, checked_url, file_system, scrubbed

log = logging.getLogger(__name__)

WAITS_S = (0.1, 0.5, 2.0, 6.0)  # before each further try; 503 mostly means: more slowly
THREADS = 32  # ranges under way in a process: 32 of 0.85 MB and 20 ms are more than a core decodes
LOOK = 2  # bytes that say whether a file is there; one would end at 0, which s3rver takes for no end
RANGE_NOT_SATISFIABLE = 416  # of HTTP
PART = 2**23  # bytes of a large file that are fetched at once
LARGE, KEPT = 2**16, 3  # files from this size lie in an unnamed file on disk, and so many of over PART are kept
RETRIED_STATUS = (408, 425, 429)  # of those that say the request is at fault
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")  # of botocore
# how the file systems of fsspec name what changes with a file
STATE = ("ETag", "etag", "generation", "Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modify",
         "modificationTime", "created")  # fmt: skip
NO_ANSWER = (TypeError, ValueError, NotImplementedError, AttributeError, KeyError, ImportError)  # of a program, not of a network

CARRIED = ("sums", "receipts", "indices")  # of a Store, into other processes


class NotSound(Exception):
    """What came is whole, but not what was written."""


@dataclass
class Here:
    """What a process has of a store, and must not share with a forked one: connections, threads, and ranges under way."""

    pid: int
    fs: object
    root: str
    pool: ThreadPoolExecutor
    one_by_one: AbstractContextManager  # around each request
    begun: dict[tuple, Future] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)


class Store:
    """url: of a dataset's folder. options: storage_options of fsspec. cache: a folder for what was fetched, or None.

    sums: file -> sha256, once SHA256SUMS was read: what is fetched whole is held against it, and fetched again where it differs.
    """

    def __init__(self, url: str, options: Mapping | None = None, cache: str | Path | None = None):
        self.url, self._options, self._withheld = checked_url(url), dict(options or {}), False
        self.cache = Cache(cache_folder(cache)) if cache else None
        self.sums: dict[str, str] = {}
        self.receipts: dict[str, str] = {}  # file of samples -> its receipt, once the manifest was read
        self.indices: dict[str, object] = {}  # of shard files: where their chunks lie
        self.found: dict[tuple[str, str], object] = {}  # (file, "sha256"): what readers found of it, in this opening
        self._wholes: OrderedDict[str, memoryview] = OrderedDict()
        self._there: dict[str, bool] = {}
        # until the server shows that it does not know ranges that count from the end
        self._knows_ends = URL.match(self.url)[1].lower() != FTP
        self._here: Here | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict:
        """For another process. Options may hold credentials: they go to a child that is being started, through a pipe, and into no
        pickle that could be kept.
        """
        state = {name: getattr(self, name) for name in ("url", "cache", *CARRIED)}
        child = get_spawning_popen() is not None
        return state | {"options": self._options if child else {}, "withheld": self._withheld or bool(self._options and not child)}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["url"], state["options"])
        self.cache, self._withheld = state["cache"], state["withheld"]
        for name in CARRIED:
            setattr(self, name, state[name])

    def at(self, name: str) -> str:
        """The URL of a file."""
        return f"{self.url}/{name}" if name else self.url

    # Files ----------------------------------------------------------------------------------------------------------------

    def whole(self, name: str, keep: bool = True, sound: bool = False) -> memoryview:
        """All bytes of a file. FileNotFoundError where there is none. Where the sums name another sha256 even the second time, the
        caller finds that too, and says so; with `sound` it is NotSound. keep: for who asks again.
        """
        if (known := self._wholes.get(name)) is not None:
            return known
        stated = self.sums.get(name)
        data = self.cache.file(stated) if self.cache and stated else None
        if data is None:
            data = self._download(name)
            if stated and not (as_stated := hashlib.sha256(data).hexdigest() == stated):
                data = self._download(name)
                as_stated = hashlib.sha256(data).hexdigest() == stated
            if stated and sound and not as_stated:
                raise NotSound("its sha256 is not that in SHA256SUMS: it is damaged, of another dataset, or an upload is going on")
            if self.cache and stated and as_stated:
                self.cache.keep_file(stated, data)
        self._there[name] = True
        if keep:
            self._wholes[name] = data
            large = [other for other, held in list(self._wholes.items()) if len(held) > PART]
            for other in large[:-KEPT]:
                self.forget(other)
        return data

    def trust(self, sums: dict[str, str]) -> None:
        """From now on files are held against these; what was fetched before and differs is forgotten."""
        self.sums = sums
        for name, data in list(self._wholes.items()):
            if name in sums and hashlib.sha256(data).hexdigest() != sums[name]:
                self.forget(name)

    def forget(self, name: str) -> None:
        self._wholes.pop(name, None)

    def has(self, name: str) -> bool:
        if name not in self._there:
            try:
                self.fetch(name, 0, LOOK, may_end=True)
                self._there[name] = True
            except FileNotFoundError:
                self._there[name] = False
        return self._there[name]

    def refuse_without_ranges(self, name: str) -> None:
        """UserError where the server answers a range of two bytes with the whole file."""
        here = self.here()
        if (sent := len(self._tried(name, lambda: here.fs.cat_file(f"{here.root}/{name}", start=0, end=LOOK)))) > LOOK:
            raise self._no_ranges(name, sent, LOOK)

    def size(self, name: str) -> int:
        return self.state(name)[0]

    def state(self, name: str) -> tuple[int, str]:
        """(bytes, what tells this state of a file from others: hexadecimal digits made of its ETag or time; "" where the server
        says neither).
        """
        if name in self._wholes:
            return len(self._wholes[name]), ""
        here = self.here()

        def ask() -> dict:
            try:
                return here.fs.info(f"{here.root}/{name}")
            except FileNotFoundError:  # of http for whatever went wrong, as 503 and 403: a range tells what it was
                here.fs.cat_file(f"{here.root}/{name}", start=0, end=LOOK)
                raise OSError(errno.EIO, "its size was not told") from None

        info = self._tried(name, ask)
        if info.get("size") is None:
            raise UserError(f"{self.at(name)}: the server does not say how large it is, so it cannot be read by ranges. Take a "
                            "server that does, or copy the dataset to a disk")  # fmt: skip
        stated = [str(info[key]) for key in STATE if info.get(key)]
        return int(info["size"]), hashlib.sha256(f"{info['size']} {stated}".encode()).hexdigest()[:16] if stated else ""

    def names(self) -> list[str] | None:
        """Every file, or None where the protocol has no lists of them."""
        here = self.here()
        if self.url.lower().startswith("http"):
            return None
        found = self._tried("", lambda: here.fs.find(here.root))
        return [path[len(here.root) :].lstrip("/") for path in found]

    def _download(self, name: str) -> memoryview:
        first = self.fetch(name, 0, PART, may_end=True)
        if len(first) < LARGE:
            return memoryview(first)
        size = len(first) if len(first) < PART else self.size(name)
        starts = range(PART, size, PART)
        with tempfile.TemporaryFile(prefix="ecg-batch-") as file:
            file.write(first)
            for part in self.here().pool.map(lambda start: self.fetch(name, start, min(start + PART, size)), starts):
                file.write(part)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    # Several at once ------------------------------------------------------------------------------------------------------

    def warm(self, whole: Iterable[str] = (), there: Iterable[str] = ()) -> None:
        """Fetch these files, and ask whether those are there, at once: what follows finds them. What is absent, it meets itself."""

        def quietly(ask: Callable, name: str) -> None:
            try:
                ask(name)
            except FileNotFoundError:
                self._there[name] = False

        asked = [(self.whole, name) for name in whole] + [(self.has, name) for name in there]
        list(self.here().pool.map(lambda one: quietly(*one), asked))

    def begin(self, wanted: dict[tuple, Callable[[], bytes]]) -> None:
        """Start to fetch what is wanted, each by its key, and forget what is not wanted any more or failed. Waits for nothing."""
        here = self.here()
        for key, future in list(here.begun.items()):
            if key not in wanted or _failed(future):
                future.cancel()
                here.begun.pop(key, None)
        for key, fetch in wanted.items():
            if key not in here.begun:
                here.begun[key] = here.pool.submit(fetch)

    def begun(self, key: tuple) -> bytes | None:
        """What was begun under a key, waited for; None where nothing was. What failed is told once: who asks again, asks the
        store.
        """
        begun = self.here().begun
        future = begun.get(key)
        try:
            return future.result() if future else None
        except CancelledError:  # another thread began something else meanwhile
            return None
        except Exception:
            if begun.get(key) is future:
                begun.pop(key, None)
            raise

    def lock_of(self, name: str) -> threading.Lock:
        """For what shall be fetched once of a file, and not by each thread."""
        return self.here().locks.setdefault(name, threading.Lock())

    # One range ------------------------------------------------------------------------------------------------------------

    def fetch(self, name: str, start: int, stop: int | None = None, is_sound: Callable[[bytes], bool] | None = None,
              may_end: bool = False) -> bytes:  # fmt: skip
        """Bytes start .. stop - 1 of a file; the last -start of them where start is below 0. One request, or a few where it fails.

        is_sound: whether bytes are what was written; where even the last try brings others, NotSound. may_end: the file may end
        before stop. FileNotFoundError where there is no such file, UserError where it cannot be had.
        """
        if (whole := self._wholes.get(name)) is not None:
            return bytes(whole[start:stop])
        if start < 0 and not self._knows_ends:
            size = self.size(name)
            start, stop = max(size + start, 0), size
        here, needed = self.here(), -start if start < 0 else stop - start

        def ask() -> bytes:
            try:
                data = here.fs.cat_file(f"{here.root}/{name}", start=start, end=stop)
            except Exception as error:
                if start >= 0 or getattr(error, "status", None) != RANGE_NOT_SATISFIABLE:
                    raise
                self._knows_ends = False  # as npm's http-server
                return self.fetch(name, start, None, is_sound)
            if len(data) > needed and start < 0:  # a server that knows "the first of" and not "the last of"
                self._knows_ends = False
                return self.fetch(name, start, None, is_sound)
            if len(data) > needed:
                raise self._no_ranges(name, len(data), needed)
            if len(data) < needed and not may_end:
                raise OSError(errno.EIO, f"{len(data):,} of {needed:,} bytes came")
            if is_sound and not is_sound(data):
                raise NotSound("what came is not what was written: its checksum is another")
            return data

        return self._tried(name, ask)

    def _no_ranges(self, name: str, sent: int, asked: int) -> UserError:
        return UserError(f"{self.at(name)}: the server sends {sent:,} bytes where {asked:,} were asked for: it knows no ranges, so "
                         "each chunk would fetch a whole file. Take a server that does, or copy the dataset to a disk")  # fmt: skip

    def _tried(self, name: str, ask: Callable):
        began = time.monotonic()
        for wait_s in (*WAITS_S, None):
            try:
                with self.here().one_by_one:
                    return ask()
            except UserError:
                raise
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "no such file", self.at(name)) from None
            except Exception as error:  # each package has its own
                if wait_s is None and isinstance(error, NotSound):
                    raise
                if refused := self._refusal(name, error):
                    raise refused from None
                if wait_s is None:
                    raise UserError(f"{self.at(name)}: not read in {len(WAITS_S) + 1} tries over {time.monotonic() - began:.0f} s, "
                                    f"the last: {self._words(error)}. Look whether the store can be reached from here, and run it "
                                    "again") from None  # fmt: skip
                log.debug("%s: %s; tried again", self.at(name), self._words(error))
                time.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - so that many workers do not come back together
        raise AssertionError("the last try returns or raises")

    def _refusal(self, name: str, error: Exception) -> UserError | None:
        """What to tell at once, as another try would be answered alike."""
        status = _status(error)
        if isinstance(error, PermissionError) or status in (401, 403) or type(error).__name__ in NO_CREDENTIALS:
            return UserError(f"{self.at(name)}: access is refused ({self._words(error)}). Give credentials as fsspec takes them: "
                             "in the environment, in a profile, or as storage_options; a public S3 bucket is read with "
                             "storage_options={'anon': True}. Some stores answer so too where nothing is there")  # fmt: skip
        if isinstance(error, NO_ANSWER) or (status and 400 <= status < 500 and status not in RETRIED_STATUS) or status == 501:
            return UserError(f"{self.at(name)}: cannot be read: {self._words(error)}. Look at the URL and at the storage_options")
        return None

    def _words(self, error: Exception) -> str:
        return scrubbed(error, self._options)

    def here(self) -> Here:
        """Of this process: made anew in each, forked ones too."""
        if self._here is None or self._here.pid != os.getpid():
            if self._withheld:
                raise UserError(f"{self.url}: was opened with storage_options, and comes out of a pickle, which never holds them, "
                                "as they may be credentials. Open it again: open_dataset(URL, storage_options=...)")  # fmt: skip
            with self._lock:
                if self._here is None or self._here.pid != os.getpid():
                    fs, root = file_system(self.url, self._options)
                    pool = ThreadPoolExecutor(THREADS, "ecg-batch-fetch")
                    one_by_one = threading.RLock() if URL.match(self.url)[1].lower() == FTP else nullcontext()
                    self._here = Here(os.getpid(), fs, root, pool, one_by_one)
        return self._here


def _failed(future: Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, of aiohttp or of botocore."""
    for one in (error, getattr(error, "__cause__", None)):
        status = getattr(one, "status", None)
        if isinstance(status, int):
            return status
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None
