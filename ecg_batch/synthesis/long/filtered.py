"""Two signals of a long record through one low-pass. Apart from texture_stream.py, which needs torch."""

from collections.abc import Callable

import numpy as np

from ecg_batch.request.model import Request
from ecg_batch.signal.filters import low_pass, low_pass_of, reach


def filtered_with(texture: np.ndarray, signal: Callable[[int, int], np.ndarray], start: int, stop: int, request: Request):
    """(filtered signal, low-passed inner part of a TextureStream's window), (lead, time) each.

    Together where they are equally long, that is but at the ends of the record: sixteen rows fill the filter's vectors, eight half.
    """
    edge_hz, fs_hz = request.lowpass_hz, request.fs_hz
    margin = reach(edge_hz, fs_hz)
    inner = slice(margin, margin + stop - start)
    if start < margin or stop + margin > request.samples:
        return low_pass_of(signal, start, stop, request.samples, edge_hz, fs_hz), low_pass(texture, edge_hz, fs_hz)[:, inner]
    both = low_pass(np.stack([signal(start - margin, stop + margin), texture]), edge_hz, fs_hz)
    return both[0, :, inner], both[1, :, inner]
