"""The figure of a bank: one donor taken apart, and who the donors are."""

from pathlib import Path

import numpy as np

from ecg_batch.donors.bank import Bank, read_bank
from ecg_batch.leads import MODELLED, MV_PER_UV
from ecg_batch.statements import SUPERCLASSES

SHOWN = ("II", "V2")


def draw(folder: Path, out: Path) -> None:
    """Draws the bank in `folder` as PNG: a typical donor, its skeleton and texture; heart rates, ages, classes."""
    from matplotlib.figure import Figure

    bank = read_bank(folder)
    figure = Figure(figsize=(14, 9), dpi=90, layout="constrained")
    grid = figure.add_gridspec(3, 3)
    rms = np.sqrt(np.square(bank.texture, dtype=np.float32).mean(axis=(1, 2)))
    donor = int(np.argsort(rms)[len(rms) // 2])  # the median texture: neither the cleanest nor the worst
    for row, lead in enumerate(SHOWN):
        _taken_apart(figure.add_subplot(grid[row, :]), bank, donor, lead)
    table = bank.table
    _histogram(figure.add_subplot(grid[2, 0]), table.hr_bpm, "heart rate (bpm)")
    _histogram(figure.add_subplot(grid[2, 1]), table.age, "age (years; 90 = 90 and over)")
    axes = figure.add_subplot(grid[2, 2])
    axes.bar(SUPERCLASSES, table.superclasses.sum(axis=0), color="#4477aa")
    axes.set_ylabel("donors holding it")
    figure.suptitle(f"{len(table)} donors, {len(np.unique(table.patient_id))} patients, folds {sorted(set(table.fold.tolist()))}, "
                    f"{table.fs_hz} Hz")  # fmt: skip
    figure.savefig(out, format="png")


def _taken_apart(axes, bank: Bank, donor: int, lead: str) -> None:
    """Donor, skeleton and texture of one lead, in mV over seconds."""
    at = MODELLED.index(lead)
    skeleton, texture = (part[donor, at].astype(np.float64) * MV_PER_UV for part in (bank.skeleton, bank.texture))
    time = np.arange(len(skeleton)) / bank.table.fs_hz
    below = skeleton.min() - 0.5
    axes.plot(time, skeleton + texture, color="#999999", linewidth=2.2, label="donor")
    axes.plot(time, skeleton, color="#cc3311", linewidth=0.9, label="skeleton")
    axes.plot(time, texture + below, color="#004488", linewidth=0.9, label=f"texture (shifted {below:.1f} mV)")
    axes.set(xlabel="s", ylabel="mV", xlim=(0, time[-1]), title=f"record {bank.table.ecg_id[donor]}, lead {lead}")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", ncols=3, fontsize=8)


def _histogram(axes, values: np.ndarray, name: str) -> None:
    axes.hist(values, bins=30, color="#4477aa")
    axes.set(xlabel=name, ylabel="donors")
