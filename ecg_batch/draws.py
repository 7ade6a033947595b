"""Randomness by record: the same numbers for (seed, record, stream), whoever asks and in whatever order.

Philox4x64 is a counter-based generator (Salmon et al. 2011, doi:10.1145/2063384.2063405): its key is (seed, record) and the
top word of its counter is the stream, so no two records and no two uses of a record ever share a number.
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from ecg_batch.kernels import draws as draws_kernel


class Stream(IntEnum):
    """What a number is used for. The values are part of the format: changing one changes every dataset."""

    QUERY = 0
    DONOR = 1
    RHYTHM = 2
    TOKENS = 3
    TEXTURE_NOISE = 4
    VARIATION = 5
    RR_VARIATION = 6
    BLEND = 7
    LONG_RHYTHM = 8
    LONG_BEATS = 9
    UNITS = 10
    DRIFT = 11
    NOISE = 12
    EVENTS = 13
    LENT_BEATS = 14
    PLACES = 15
    ACTIVITY = 16
    BEAT_ORDER = 17


def generator(seed: int, record: int, stream: Stream, part: int = 0) -> np.random.Generator:
    """The generator of one use of one record, or of one part of it. seed and record are 0 .. 2**64 - 1, part 0 .. 2**32 - 1."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, record], np.uint64), counter=[0, 0, part, stream]))


def uniforms(seed: int, records: np.ndarray, stream: Stream, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 (record, count): row i depends on records[i] alone."""
    if draws_kernel.library():
        return draws_kernel.uniforms(seed, records, stream, count)
    out = np.empty((len(records), count))
    for row, drawn in zip(out, each_generator(seed, records, stream), strict=True):
        drawn.random(out=row)
    return out


def each_generator(seed: int, records: np.ndarray, stream: Stream) -> Iterator[np.random.Generator]:
    """generator() of each record, to be used before the next is asked for: it is one, put to the beginning of each record's
    numbers, which takes a sixth of the time of making one.
    """
    drawn = generator(seed, 0, stream)
    beginning = drawn.bit_generator.state
    for record in records:
        beginning["state"]["key"] = np.array([seed, record], np.uint64)
        drawn.bit_generator.state = beginning
        yield drawn
