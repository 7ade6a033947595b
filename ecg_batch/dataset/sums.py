"""Sums: SHA256SUMS read, and files held against it. Nothing that it names is read but regular files in the dataset's folder."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ecg_batch.dataset.layout import SUMS
from ecg_batch.errors import UserError
from ecg_batch.files import link_or_odd, read_regular, sha256_file
from ecg_batch.progress import track
from ecg_batch.remote.path import RemotePath

SUMS_OF_SUMS = "# sha256 of the lines above: "
SUMS_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def read_sums(folder: Path) -> dict[str, str] | None:
    """File -> sha256 as SHA256SUMS states it, or None where a line is malformed or it does not agree with its own last one."""
    sums, problems = parse_sums(read_regular(folder / SUMS))
    return None if problems else sums


def trust_sums(path: RemotePath) -> None:
    """Whatever is fetched from now on is held against SHA256SUMS. It may be absent, as in an export, but then nothing is cached:
    what is kept is named by its sum.
    """
    for _ in range(2):
        try:
            sums = read_sums(path)
        except FileNotFoundError:
            if path.store.cache:
                raise UserError(f"{path / SUMS}: absent, and a cache needs it. Copy it there, or leave cache out") from None
            return
        if sums is not None:
            return path.store.trust(sums)
        path.store.forget(SUMS)
    raise UserError(f"{path / SUMS}: damaged: a line is malformed, or the last one is not the sha256 of the others. Copy it "
                    "there again")  # fmt: skip


def parse_sums(text: bytes) -> tuple[dict[str, str], list[str]]:
    """(file -> sha256, what is wrong with the text itself). Lines that can be read count even where others cannot."""
    body, mark, last = text.rpartition(SUMS_OF_SUMS.encode())
    sums, problems = {}, []
    if not mark or last != f"{hashlib.sha256(body).hexdigest()}\n".encode():
        problems.append("damaged: its last line is not the sha256 of the others. Compare with a copy, or make the run anew")
        return {}, problems
    for number, line in enumerate(body.decode(errors="backslashreplace").splitlines(), 1):
        found = SUMS_LINE.fullmatch(line)
        if not found or found[2] in sums:
            said = "names a file twice" if found else "is not 'sha256  file'"
            problems.append(f"line {number} {said}: {line[:100]!r}")
        else:
            sums[found[2]] = found[1]
    return sums, problems


def damaged_files(folder: Path, sums: dict[str, str], quiet: bool = False) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) for every file that is not what SHA256SUMS says. Nothing but a regular file in the folder is read."""
    for name, stated in sums.items() if quiet else track(sums.items(), "check", "files"):
        if odd := link_or_odd(folder, name):
            yield name, f"not checked: {odd}"
            continue
        try:
            if sha256_file(folder / name) != stated:
                yield name, "damaged: its sha256 is not that in SHA256SUMS"
        except OSError as error:
            yield name, f"cannot be read: {error.strerror}"
