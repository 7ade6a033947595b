"""Butterworth filters as second-order sections, designed here as scipy.signal designs them, to the bit: importing that takes 0.5 s,
half of what a worker may take until its first record.

Low-pass and band-pass of an even order only: all poles come in pairs. A test holds both to scipy's butter and sosfilt_zi.
"""

import numpy as np

FS = 2.0  # of the bilinear transform, after edges are given as shares of half the sampling rate


def sections(order: int, edge_hz: float | tuple[float, float], kind: str, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """(sections (section, 6), their state after a long 1 (section, 2)). kind: 'lowpass' with one edge, 'bandpass' with two.

    ValueError where an edge is not between 0 and half the sampling rate.
    """
    share = np.asarray(edge_hz, np.float64) / (fs_hz / 2)
    if order % 2 or not ((0 < share) & (share < 1)).all() or (np.diff(share.ravel()) <= 0).any():
        raise ValueError(f"{kind} of order {order} at {edge_hz} Hz; needed an even order, and edges between 0 and {fs_hz / 2:g} Hz")
    warped = 2 * FS * np.tan(np.pi * share / FS)
    poles = -np.exp(1j * np.pi * np.arange(-order + 1, order, 2, dtype=np.float64) / (2 * order))
    if kind == "lowpass":
        poles, zeros, gain = float(warped) * poles, np.empty(0), float(warped) ** order
    else:
        width, middle = float(warped[1] - warped[0]), float(np.sqrt(warped[0] * warped[1]))
        poles = poles * width / 2
        root = np.sqrt(poles**2 - middle**2)
        poles, zeros, gain = np.concatenate([poles + root, poles - root]), np.zeros(order), width**order
    rest = -np.ones(len(poles) - len(zeros))  # zeros at infinity come to lie at half the sampling rate
    gain = gain * np.real(np.prod(2 * FS - zeros) / np.prod(2 * FS - poles))
    zeros, poles = np.concatenate([(2 * FS + zeros) / (2 * FS - zeros), rest]), (2 * FS + poles) / (2 * FS - poles)
    sos = _paired(zeros, poles)
    sos[0, :3] *= gain
    return sos, _start(sos)


def _paired(zeros: np.ndarray, poles: np.ndarray) -> np.ndarray:
    """A section for each pair of poles, the nearest to the unit circle last, with the two zeros that are nearest to it."""
    poles = poles[np.lexsort((abs(poles.imag), poles.real))]
    upper, lower = poles[poles.imag > 0], poles[poles.imag < 0]
    poles, zeros = (upper + lower.conj()) / 2, np.sort(zeros)
    sos = np.zeros((len(poles), 6))
    for at in reversed(range(len(sos))):
        worst = np.argmin(np.abs(1 - np.abs(poles)))
        pole, poles = poles[worst], np.delete(poles, worst)
        pair = []
        for _ in range(2):
            nearest = np.argsort(np.abs(zeros - pole))[0]
            pair.append(zeros[nearest])
            zeros = np.delete(zeros, nearest)
        sos[at] = *np.poly(pair), *np.poly([pole, pole.conj()])
    return sos


def _start(sos: np.ndarray) -> np.ndarray:
    """The state of each section after a long 1, behind those before it: (section, 2)."""
    start, scale = np.empty((len(sos), 2)), 1.0
    for at, (b, a) in enumerate(zip(sos[:, :3], sos[:, 3:], strict=True)):
        start[at] = scale * np.linalg.solve(np.array([[1 + a[1], -1.0], [a[2], 1.0]]), b[1:] - a[1:] * b[0])
        scale *= np.sum(b) / np.sum(a)
    return start
