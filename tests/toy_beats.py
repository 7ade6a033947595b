"""Recordings whose beats are obviously different, in MIT-BIH's layout: N with P, S early, V early, wide and the other way round."""

from pathlib import Path

import numpy as np
import wfdb

from ecg_batch.evaluation.beats.recordings import Recording

HZ = 360


def toy(seed: int, seconds: int = 120, share: float = 0.12, symbols: str = "NVA", hz: int = HZ):
    """(lead (time,) mV, r in samples, symbols) of one patient."""
    rng = np.random.default_rng(seed)
    usual, height = rng.uniform(0.7, 1.0), rng.uniform(0.6, 1.5)
    at, r_s, names, early = 0.6, [], [], False
    while at < seconds - 0.6:
        name = "N" if early or rng.random() > 2 * share else symbols[1 + rng.integers(len(symbols) - 1)]
        early = name != "N"
        r_s.append(at)
        names.append(name)
        rr = usual * rng.normal(1, 0.02)
        if early:  # it came early, and a pause follows
            r_s[-1] = at = at - 0.35 * usual
            rr *= 1.35
        at += rr
    time = np.arange(seconds * hz) / hz
    x = 0.01 * rng.standard_normal(len(time))
    for at, name in zip(r_s, names, strict=True):
        bell = lambda mean, sd, at=at: np.exp(-np.square((time - at - mean) / sd) / 2)  # noqa: E731
        x += height * (-1.3 * bell(0, 0.05) if name == "V" else bell(0, 0.012) + 0.2 * bell(0.25, 0.04))
        x += height * (0.15 * bell(-0.16, 0.02) if name == "N" else 0)
    return x, np.rint(np.array(r_s) * hz).astype(int), np.array(names)


def recording(seed: int, **given) -> Recording:
    """The same as the networks see it."""
    x, r, symbols = toy(seed, hz=100, **given)
    return Recording(str(seed), "MLII", x, r, symbols, ((0, "(N"),))


def write(folder: Path, name: str, seed: int, leads=("MLII", "V5"), rhythms=((0, "(N"),), **given) -> Path:
    """NAME.hea, NAME.dat and NAME.atr."""
    x, r, symbols = toy(seed, **given)
    signals = np.stack([x if lead == "MLII" else 0.3 * x[::-1] for lead in leads], axis=1)
    wfdb.wrsamp(name, HZ, ["mV"] * len(leads), list(leads), signals, fmt=["16"] * len(leads), adc_gain=[1000] * len(leads),
                baseline=[0] * len(leads), write_dir=str(folder))  # fmt: skip
    sample = np.concatenate([[at for at, _ in rhythms], r]).astype(int)
    marks = np.concatenate([["+"] * len(rhythms), symbols])
    aux = [*(name for _, name in rhythms), *[""] * len(r)]
    order = np.argsort(sample, kind="stable")
    wfdb.wrann(name, "atr", sample[order], marks[order].tolist(), aux_note=[aux[at] for at in order], fs=HZ, write_dir=str(folder))
    return folder
