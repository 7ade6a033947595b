"""Spool: where the waveforms of a bank wait on disk until its donors are chosen."""

import errno
import os
from collections.abc import Sequence

import numpy as np

from ecg_batch.donors.recording import RECORD_S
from ecg_batch.donors.split import Split
from ecg_batch.leads import MODELLED

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Spool:
    """Waveforms that wait on disk, int16 (record, [skeleton, texture], lead, time): 500 Hz would not fit in memory, and 100 Hz
    takes 630 MB, which would count as the process's own if the file were mapped.
    """

    def __init__(self, file, fs_hz: int) -> None:
        self._number, self.shape = file.fileno(), (len(MODELLED), RECORD_S * fs_hz)
        self.bytes = 2 * int(np.prod(self.shape))  # of one part

    def write(self, row: int, parts: Split) -> None:
        both = np.stack([parts.skeleton, parts.texture]).astype(np.int16, copy=False).tobytes()
        if os.pwrite(self._number, both, 2 * row * self.bytes) < len(both):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, rows: Sequence[int], part: int) -> np.ndarray:
        """(record, lead, time) of these rows: part 0 skeletons, 1 textures."""
        out = np.empty((len(rows), *self.shape), np.int16)
        for waveform, row in zip(out, rows, strict=True):
            read = os.pread(self._number, self.bytes, (2 * row + part) * self.bytes)
            waveform[:] = np.frombuffer(read, np.int16).reshape(self.shape)
        return out


class Textures:
    """The first textures of a spool as an array that is read slice by slice: (record, lead, time)."""

    dtype = np.dtype(np.int16)

    def __init__(self, spool: Spool, records: int) -> None:
        self._spool, self.shape = spool, (records, *spool.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._spool.read(range(*rows.indices(len(self))), 1)


def reserve(file, size: int) -> None:
    """Room on the disk for all of a file, or OSError: better now than after all was measured."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # no such call here, or on this file system
        if getattr(error, "errno", None) in DISK_FULL:
            raise
        zeros = bytes(1 << 20)
        for start in range(0, size, len(zeros)):
            file.write(zeros[: size - start])
        file.flush()
