"""Single flipped bits in files, and whether readers notice. ECG_BATCH_FLIPS says how many there are in each file."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecg_batch.errors import UserError

FLIPS = int(os.environ.get("ECG_BATCH_FLIPS", "60"))  # in each file; with a thousand, tests/reading/test_flips.py takes minutes
CLOCK = count(1_600_000_000)


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """The file with one bit changed, in the manner of a disk that decays: another content is all that differs but the time, by
    which a process knows that it has not read it yet.
    """
    whole = path.read_bytes()
    data = bytearray(whole)
    data[bit // 8] ^= 1 << bit % 8
    for content in (bytes(data), whole):
        path.write_bytes(content)
        os.utime(path, (stamp := next(CLOCK), stamp))
        if content is not whole:
            yield


def survey(path: Path, read: Callable[[], object], flips: int = FLIPS, remedy: str = "ecg-batch verify") -> tuple[int, int]:
    """(flips that were errors in words, flips that changed nothing that is read). Anything else fails."""
    right, bits, refused = read(), random.Random(path.name), 0
    for _ in range(flips):
        bit = bits.randrange(8 * path.stat().st_size)
        with flipped(path, bit):
            try:
                got = read()
            except UserError as error:
                assert path.name in str(error) and remedy in str(error), (bit, str(error))
                refused += 1
            else:
                assert same(got, right), f"bit {bit} of {path.name}: another value"
    return refused, flips - refused


def same(one, two) -> bool:
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, pa.Table):
        return one.equals(two)
    if isinstance(one, bytes):
        return one == two
    return np.array_equal(np.asarray(one), np.asarray(two))
