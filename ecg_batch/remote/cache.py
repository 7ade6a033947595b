"""Cache: what was fetched, on a disk, under the sha256 of the file that it is part of. So it can be shared by datasets, jobs and
URLs, and none is served bytes of another; and as each chunk has its crc32c and each file its sha256, damage is fetched again.
"""

import hashlib
import logging
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

log = logging.getLogger(__name__)
_told: set[str] = set()


@dataclass(frozen=True)
class Cache:
    """DIR/ab/abcdef.../whole, and DIR/ab/abcdef.../17 for chunk 17 of the file with that sha256. Nothing is ever removed."""

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

    def chunk(self, sha256: str, at: int, is_sound: Callable[[bytes], bool]) -> bytes | None:
        try:
            data = self._path(sha256, str(at)).read_bytes()
        except OSError:
            return None
        return data if is_sound(data) else None

    def keep_chunk(self, sha256: str, at: int, data: bytes) -> None:
        self._keep(self._path(sha256, str(at)), data)

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
