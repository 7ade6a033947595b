"""Export to WebDataset: ecg-000000000.tar and so on, of each record KEY.npy, KEY.json and, where beats are known, KEY.beats.json.

A tar is named by how many of the exported records come before it, a KEY by the number of its record. KEY.npy is int16 (lead, time),
KEY.json the row of records.parquet, KEY.beats.json a list for each column of the rows of beats.parquet. Equal datasets give equal
bytes: members have no time and no owner. Records over a minute are stored by time (numpy's Fortran order), to be written in pieces.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ecg_batch.dataset.layout import BEATS
from ecg_batch.dataset.tables import is_there, read_beats
from ecg_batch.export.pieces import pieces, write_rows
from ecg_batch.files import to_json
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.reading.synthetic import OpenDataset
from ecg_batch.request.model import MINUTE_S

TAR_SAMPLES = 2048 * 1000  # about so many samples a lead in a tar: 2,048 records of 10 s at 100 Hz, 50 MB
COPIED_BYTES = 2**21  # at a time, of a long record: more than a piece of it
STATED = "ecg.json"


def units(dataset: OpenDataset) -> list[tuple[int, int]]:
    """A tar each."""
    each = max(1, TAR_SAMPLES // (dataset.duration_s * dataset.fs_hz))
    return [(first, min(first + each, len(dataset))) for first in range(0, len(dataset), each)]


def names(dataset: OpenDataset, first: int, stop: int) -> tuple[set[str], set[str]]:
    return {_tar(first)}, set()


def _tar(first: int) -> str:
    return f"ecg-{first:09d}.tar"


def begin(dataset: OpenDataset, folder: Path) -> None:
    """Nothing needs to be there."""


def unit(dataset: OpenDataset, folder: Path, first: int, stop: int) -> list[str]:
    name, records = _tar(first), dataset.indices[first:stop]
    rows = {row["record"]: row for row in dataset.select(slice(first, stop)).records.to_pylist()}
    long, beats = dataset.duration_s > MINUTE_S, _beats(dataset, records)
    whole = None if long else dataset.raw[first:stop]
    with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT, copybufsize=COPIED_BYTES) as tar:
        for at, record in enumerate(records.tolist()):
            key = f"{record:09d}"
            if long:
                samples = dataset.duration_s * dataset.fs_hz
                head = _head(samples)
                _add(tar, f"{key}.npy", len(head) + 2 * len(LEADS) * samples, _Joined(_by_time(head, pieces(dataset, record))))
            else:
                _add_bytes(tar, f"{key}.npy", _npy(whole[at]))
            _add_bytes(tar, f"{key}.json", _json(rows[record]))
            if beats is not None:
                _add_bytes(tar, f"{key}.beats.json", _json(beats.get(record, {})))
    return [name]


def end(dataset: OpenDataset, folder: Path) -> None:
    write_rows(dataset, folder)
    stated = {"leads": LEADS, "units": "mV", "scale_factor": MV_PER_UV, "fs_hz": dataset.fs_hz, "records": len(dataset),
              "tars": len(units(dataset)), "run_id": dataset.manifest["run_id"]}  # fmt: skip
    (folder / STATED).write_bytes(to_json(stated))


def _beats(dataset: OpenDataset, records: np.ndarray) -> dict[int, dict[str, list]] | None:
    """Record -> column -> values; None where there are none."""
    if not is_there(dataset.path, BEATS):
        return None
    table = read_beats(dataset.path, np.unique(records).tolist())
    of = table["record"].to_numpy()
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    each = zip(starts.tolist(), np.append(starts[1:], len(of)).tolist(), strict=True)
    table = table.drop_columns("record")
    return {int(of[start]): table.slice(start, stop - start).to_pydict() for start, stop in each}


def _json(value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array, "<i2"), (1, 0))
    return file.getvalue()


def _head(samples: int) -> bytes:
    """Of an array (lead, time) that is stored by time."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": True, "shape": (len(LEADS), samples)})
    return file.getvalue()


def _by_time(head: bytes, parts: Iterable[np.ndarray]) -> Iterator[bytes]:
    yield head
    for part in parts:
        yield np.ascontiguousarray(part.T, "<i2").tobytes()


class _Joined:
    """Bytes that come in parts, for a reader that asks for so many at a time."""

    def __init__(self, parts: Iterator[bytes]):
        self._parts, self._held = parts, b""

    def read(self, size: int) -> bytes:
        while len(self._held) < size and (part := next(self._parts, None)) is not None:
            self._held += part
        found, self._held = self._held[:size], self._held[size:]
        return found


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    _add(tar, name, len(data), io.BytesIO(data))


def _add(tar: tarfile.TarFile, name: str, size: int, file) -> None:
    """A member without time and owner: TarInfo's own defaults are 0 and nobody."""
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, file)
