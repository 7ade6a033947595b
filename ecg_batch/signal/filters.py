"""The filters of this system: zero-phase Butterworth, so no peak moves. One low-pass, whatever computes it."""

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np

from ecg_batch.kernels import finish as finish_kernel

ORDER = 2  # of one pass; there and back it is 4


def low_pass(x: np.ndarray, edge_hz: float | None, fs_hz: float) -> np.ndarray:
    """Zero-phase low-pass along time: float64 (..., time). Without an edge, as it is."""
    if edge_hz is None:
        return np.asarray(x, np.float64)
    if finish_kernel.library():
        return finish_kernel.filtfilt(x, finish_kernel.sections(ORDER, edge_hz, "lowpass", fs_hz))
    return band(x, (None, edge_hz), fs_hz)


def band(x: np.ndarray, edges_hz: tuple[float | None, float], fs_hz: float) -> np.ndarray:
    """What lies between the edges, in scipy; None as lower edge: the reference of low_pass, and what runs where no kernel does."""
    from scipy.signal import sosfilt, sosfiltfilt  # takes 0.4 s: not before there is something to filter

    sos, start, edge = _sections(edges_hz, fs_hz)
    x = np.asarray(x)
    if not x.size or x.shape[-1] <= edge:
        return sosfiltfilt(sos, x, axis=-1)  # it has the words for it
    # sosfiltfilt step by step, which works out the state to begin with anew at each call: a third of its time on 10 s
    head = 2 * x[..., :1] - x[..., edge:0:-1]
    tail = 2 * x[..., -1:] - x[..., -2 : -2 - edge : -1]
    y = np.concatenate([head, x, tail], axis=-1)
    start = start.reshape(len(sos), *[1] * (x.ndim - 1), 2)
    for _ in range(2):
        y = sosfilt(sos, y, axis=-1, zi=start * y[..., :1])[0][..., ::-1]
    return y[..., edge:-edge]


@cache
def _sections(edges_hz: tuple[float | None, float], fs_hz: float) -> tuple[np.ndarray, np.ndarray, int]:
    """(sections, their state after a long 1, samples by which each end is extended) as sosfiltfilt takes them."""
    from scipy.signal import butter, sosfilt_zi

    low, high = edges_hz
    kind = {"Wn": high} if low is None else {"Wn": edges_hz, "btype": "bandpass"}
    sos = butter(ORDER, fs=fs_hz, output="sos", **kind)
    taps = 2 * len(sos) + 1 - min((sos[:, 2] == 0).sum(), (sos[:, 5] == 0).sum())
    return sos, sosfilt_zi(sos), 3 * int(taps)


@lru_cache(maxsize=2)
def low_pass_matrix(samples: int, edge_hz: float | None, fs_hz: float, device: "torch.device"):  # noqa: F821
    """low_pass as a matrix: x @ matrix, a float64 tensor (time, time). It is linear, ends included, and a GPU multiplies faster
    than it recurs. (On a CPU the filter is 10 times as fast: docs/evidence/performance.md.)
    """
    import torch

    return torch.from_numpy(low_pass(np.eye(samples), edge_hz, fs_hz)).to(device)


@cache
def reach(edge_hz: float | None, fs_hz: float) -> int:
    """Samples to either side of a stretch beyond which low_pass sees nothing: its slowest pole falls to 1e-13."""
    if edge_hz is None:
        return 0
    from scipy.signal import butter

    poles = butter(ORDER, edge_hz, fs=fs_hz, output="zpk")[1]
    return int(np.ceil(np.log(1e-13) / np.log(np.abs(poles).max())))


def low_pass_of(signal: Callable[[int, int], np.ndarray], start: int, stop: int, samples: int, edge_hz: float | None, fs_hz: float):
    """Samples start .. stop - 1 of a low-passed signal(start, stop) of so many samples, as if all of it were filtered at once."""
    beside = reach(edge_hz, fs_hz)
    first, last = max(start - beside, 0), min(stop + beside, samples)
    return low_pass(signal(first, last), edge_hz, fs_hz)[..., start - first : stop - first]
