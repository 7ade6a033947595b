"""Lists of files with their sha256, beside what they list: NAME.sha256 for a folder NAME.EXT or NAME, FILE.sha256 for a file.

They are read by `sha256sum -c` too. A list finds damage and holes; it is no signature, as whoever changes a file can change it.
"""

import os
import re
from itertools import product
from pathlib import Path

from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file

LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
SHOWN = 5  # names in a message
_found_whole: set[tuple] = set()  # what this process has checked: name, size, time and inode of every file
_known: dict[tuple, str] = {}  # sha256 of what this process has read, by the same of one file


def list_of(target: Path) -> Path:
    """Where the list of a folder or file lies: donors.zarr -> donors.sha256, mamba.safetensors -> mamba.safetensors.sha256."""
    return target.with_suffix(".sha256") if target.suffix == ".zarr" else target.with_name(f"{target.name}.sha256")


def sums_of(target: Path, named: str | None = None) -> bytes:
    """The list of a file, or of all files below a folder. named: what the target will be called, where it has another name now."""
    named = named or target.name
    lines = (f"{sha256_file(path)}  {named}{path.as_posix()[len(target.as_posix()) :]}\n" for path in _files(target))
    return "".join(lines).encode()


def is_whole(target: Path, remedy: str) -> bool:
    """True where the target is as its list says, False where it has no list. UserError where anything is missing, extra or changed.

    remedy: what to do, for the message. A process reads each target once as long as no file of it changes: 250 MB took 0.4 s.
    """
    listing = list_of(target)
    if not listing.is_file():
        return False
    state = _state([listing, *_files(target)])
    if state not in _found_whole:
        listed = _read(listing, remedy)
        found = {f"{target.name}{path.as_posix()[len(target.as_posix()) :]}": path for path in _files(target)}
        _refuse("is missing", listing, listed.keys() - found.keys(), remedy)
        _refuse("is not listed", listing, found.keys() - listed.keys(), remedy)
        changed = {name for name, path in found.items() if not path.is_file() or sha256_once(path) != listed[name]}
        _refuse("has changed", listing, changed, remedy)
        _found_whole.add(state)
    return True


def sha256_once(path: Path) -> str:
    """sha256_file of a file that this process may have read before, and that has not changed since."""
    if (state := _state([path])) not in _known:
        _known[state] = sha256_file(path)
    return _known[state]


def open_whole(path: Path, needed: tuple[str, ...], remedy: str):
    """A Zarr group to read that has every file. UserError where one is missing or changed, or it lacks an array of those needed.

    To Zarr a file that is not there is zeros. So each array must have all the chunk files of its shape, as a list knows only those
    that were there when it was made. An array of zeros alone has none where Zarr wrote it, and there it takes a list to say so.
    """
    import zarr

    listed = is_whole(path, remedy)
    try:
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        arrays = {name: group.get(name) for name in needed}
        absent = [name for name, array in arrays.items() if not isinstance(array, zarr.Array)]
        found = [] if absent else [_held(path, array) for _, array in group.arrays()]
        strays = [file for there, needed in found for file in there - needed]
        holes = [file for there, needed in found if there or not listed for file in sorted(needed - there)]
    except Exception as error:  # Zarr raises what it likes of a damaged folder; the user needs one advice
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error!s:.200}). {remedy}") from error
    if absent:
        raise UserError(f"{path}: has no {', '.join(absent)}; this program needs it. {remedy}")
    if strays:
        raise UserError(f"{strays[0]}: is no part of its array, as its zarr.json states it ({len(strays)} such). {remedy}")
    if holes:
        raise UserError(f"{holes[0]}: is missing ({len(holes)} such); it would be read as zeros. {remedy}")
    return group


def _held(path: Path, array) -> tuple[set[Path], set[Path]]:
    """(the chunk files that an array has, those that its shape needs where no part of it is left out)."""
    size, folder = array.shards or array.chunks, path / array.basename
    grid = product(*(range(-(-length // part)) for length, part in zip(array.shape, size, strict=True)))
    needed = {folder / array.metadata.encode_chunk_key(at) for at in grid}
    return {file for file in folder.rglob("*") if file.is_file() and file.relative_to(folder).parts[0].startswith("c")}, needed


def _files(target: Path) -> list[Path]:
    """Whatever is no folder, so that a link to nowhere or a pipe is found too. None where the target is not there."""
    if not target.is_dir():
        return [target] if target.exists() else []
    return sorted(path for path in target.rglob("*") if path.is_symlink() or not path.is_dir())


def _state(paths: list[Path]) -> tuple:
    stats = [(path, os.lstat(path), path.stat() if path.exists() else None) for path in paths]
    return tuple((str(path), *((s.st_size, s.st_mtime_ns, s.st_ino) for s in pair if s)) for path, *pair in stats)


def _read(listing: Path, remedy: str) -> dict[str, str]:
    """Name -> sha256. Names are compared with those found and never opened, so none leads elsewhere."""
    try:
        lines = listing.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines knows other ends
        rows = [LINE.fullmatch(line) for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{listing}: cannot be read ({error}). {remedy}") from None
    if None in rows:
        at = rows.index(None) + 1
        raise UserError(f"{listing}: line {at} is no 'sha256  name', so the list is damaged. {remedy}")
    return {row[2]: row[1] for row in rows}


def _refuse(fault: str, listing: Path, names: set[str], remedy: str) -> None:
    if names:
        first, more = sorted(names)[:SHOWN], len(names) - SHOWN
        shown = ", ".join(name[:200] for name in first) + (f" and {more} more" if more > 0 else "")
        raise UserError(f"{listing.parent}/{first[0][:200]}: {fault}, says {listing.name} ({len(names)} such: {shown}). {remedy}")
