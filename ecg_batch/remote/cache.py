"""Cache: what was fetched, on a disk, under the sha256 that SHA256SUMS states for the file that it is part of, so that datasets,
jobs and URLs can share it. A whole file is held against that sha256. A part cannot be, so beside it stands a mark of the file that
the part came from: what an unfinished upload gave is not served once the right file is there. Damage is fetched again.
"""

import hashlib
import logging
import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from google_crc32c import value as crc32c

log = logging.getLogger(__name__)
CHECKSUM_BYTES = 4
_told: set[str] = set()


def is_sound(data: bytes) -> bool:
    """Whether the last bytes are the crc32c of the others, as in a chunk of Zarr and its index."""
    return crc32c(data[:-CHECKSUM_BYTES]).to_bytes(4, "little") == data[-CHECKSUM_BYTES:]


@dataclass(frozen=True)
class Cache:
    """DIR/ab/abcdef.../whole, and DIR/ab/abcdef.../MARK.17 for chunk 17 of the file with that sha256, or MARK.512-1024 for bytes of
    it, with their crc32c. MARK: of its index, or of its ETag or time. Nothing is removed but what turns out to be damaged.
    """

    folder: Path

    def file(self, sha256: str) -> memoryview | None:
        try:
            with open(self._path(sha256, "whole"), "rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        except (OSError, ValueError):  # none there, or an empty one
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def keep_file(self, sha256: str, data: memoryview) -> None:
        self._keep(self._path(sha256, "whole"), data)

    def chunk(self, sha256: str, name: str) -> bytes | None:
        """What keep_chunk was given, where it is there and sound."""
        try:
            data = self._path(sha256, name).read_bytes()
        except OSError:
            return None
        return data if is_sound(data) else None

    def keep_chunk(self, sha256: str, name: str, data: bytes) -> None:
        """Of bytes that end with their crc32c."""
        self._keep(self._path(sha256, name), data)

    def part(self, sha256: str, name: str, fetch: Callable[[], bytes]) -> bytes:
        """Bytes of a file that have no checksum of their own: from here, or fetched and kept."""
        if (kept := self.chunk(sha256, name)) is not None:
            return kept[:-CHECKSUM_BYTES]
        data = fetch()
        self.keep_chunk(sha256, name, data + crc32c(data).to_bytes(4, "little"))
        return data

    def drop(self, sha256: str) -> None:
        """Forget a file: what was kept of it may have come damaged."""
        shutil.rmtree(self._path(sha256, "whole").parent, ignore_errors=True)

    def _path(self, sha256: str, name: str) -> Path:
        return self.folder / sha256[:2] / sha256 / name

    def _keep(self, path: Path, data: bytes | memoryview) -> None:
        """Whole or not at all. A cache that cannot be written is said once, and reading goes on without."""
        aside = path.with_name(f"{path.name}.{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            os.replace(aside, path)
        except OSError as error:
            if str(self.folder) not in _told:
                _told.add(str(self.folder))
                log.warning("%s: cannot be written (%s), so what is read is fetched each time. Free space, or give another cache",
                            self.folder, error.strerror or error)  # fmt: skip
            try:
                aside.unlink(missing_ok=True)
            except OSError:
                pass
