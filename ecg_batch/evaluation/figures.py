"""Figures of the evaluation, each from the numbers of the report or from the sets themselves; bytes of a PNG."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from scipy.signal import welch

from ecg_batch.evaluation.page import png
from ecg_batch.evaluation.scores import calibration
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.statements import SUPERCLASSES

SHOWN = ("I", "II", "V1", "V5")
NAMED = 0.9  # AUROC from which on statements are too many to name
COLOURS = {"synthetic": "C3", "real": "0.5", "held-out": "k"}


def judge(section: dict) -> bytes:
    """Confusion (of those who hold a class, how many are said to hold each) and reliability on real fold 10."""
    held = section["judge"]
    truth, p = np.array(held["truth"], bool), np.array(held["probabilities"])
    said = p >= np.array(held["thresholds"])
    share = np.array([[said[truth[:, i], j].mean() if truth[:, i].any() else np.nan for j in range(5)] for i in range(5)])
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    shades = left.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for (i, j), value in np.ndenumerate(share):
        left.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    left.set(xticks=range(5), yticks=range(5), xticklabels=SUPERCLASSES, yticklabels=SUPERCLASSES)
    left.set(xlabel="said by the judge", ylabel="held by the record", title="Share of holders said to hold (multi-label), fold 10")
    figure.colorbar(shades, ax=left, shrink=0.8)
    error, rows = calibration(truth, p)
    right.plot([0, 1], [0, 1], color="0.7", lw=1)
    right.plot(rows[:, 0], rows[:, 1], "o-", color="C0")
    right.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability said", ylabel="share that holds the class")
    right.set(title=f"Calibration of all class decisions, error {error:.3f}")
    return png(figure)


def auroc_by_class(report: dict) -> bytes:
    """AUROC on fold 10 of each superclass and statement over the number of its records, from a judge's report."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, colour in (("fold 10, statements", "C0"), ("fold 10", "C3")):
        held = report[name]["by class"]
        records, aurocs = ([row[key] for row in held.values()] for key in ("records", "AUROC"))
        kind = "statements" if "statements" in name else "superclasses"
        axes.plot(records, aurocs, "o", color=colour, ms=4, label=f"{len(held)} {kind}, mean {report[name]['macro AUROC'][0]:.3f}")
        for label, x, y in zip(held, records, aurocs, strict=True):
            if kind == "superclasses" or y < NAMED:
                axes.annotate(label, (x, y), xytext=(3, 2), textcoords="offset points", fontsize=6.5, color=colour)
    title = f"Fold 10, class by class; statements under {NAMED:g} by name"
    axes.set(xscale="log", xlabel="records of fold 10 that hold it", ylabel="AUROC", title=title)
    axes.legend(frameon=False, loc="lower right")
    return png(figure)


def spectra(sets: Mapping, fs_hz: float) -> bytes:
    """Mean power spectra of four leads."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, lead in zip(figure.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
        for name, ecg in sets.items():
            f, power = welch(ecg[:, LEADS.index(lead)] * MV_PER_UV, fs_hz, nperseg=512, detrend="linear")
            axes.semilogx(f[1:], 10 * np.log10(power.mean(0)[1:] + 1e-12), label=name, color=COLOURS.get(name), lw=1.2)
        axes.set(title=f"lead {lead}", xlabel="frequency (Hz)", xlim=(0.2, fs_hz / 2), ylim=(-70, 0))
        axes.axvline(40, color="0.85", lw=1, zorder=0)
    axes.figure.axes[0].set_ylabel("dB re 1 mV²/Hz")
    axes.figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def told(rows: Mapping[str, dict]) -> bytes:
    """AUC of each row of the two-sample test with its interval by patient."""
    figure = Figure(figsize=(9, 0.6 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for at, row in enumerate(reversed(rows.values())):
        axes.plot(row["interval"], [at, at], color="C0", lw=3, alpha=0.4, solid_capstyle="round")
        axes.plot(row["AUC"], at, "o", color="C0")
    axes.axvline(0.5, color="0.6", lw=1, zorder=0)
    axes.set(yticks=range(len(rows)), yticklabels=list(reversed(rows)), xlim=(0.4, 1.02))
    axes.set_xlabel("AUC of a network that tells them apart (0.5: it cannot); 95 % interval by patient")
    return png(figure)


def intervals(measures: dict) -> bytes:
    """Distributions of the clinical measures: synthetic, real training patients, held-out patients."""
    units = {"HR": "bpm", "PR": "ms", "QRS": "ms", "QT": "ms", "QTc": "ms", "P": "mV", "T": "mV", "axis": "degrees"}
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    for axes, (name, unit) in zip(figure.subplots(2, 4).flat, units.items(), strict=True):
        held = {part: np.array(table[name], float) for part, table in measures.items()}
        held = {part: x[np.isfinite(x)] for part, x in held.items()}
        low, high = np.percentile(np.concatenate(list(held.values())), [0.5, 99.5])
        edges = np.linspace(low, high, 25)
        if unit == "ms":  # whole samples of 10 ms, or the bins beat against them
            edges = np.arange(10 * np.floor(low / 10) - 5, high + 15, max(10, 10 * round((high - low) / 250)))
        for part, x in held.items():
            axes.stairs(np.histogram(x, edges, density=True)[0], edges, color=COLOURS.get(part), label=part)
        axes.set(title=name, xlabel=unit, yticks=[])
    figure.axes[0].legend(frameon=False, fontsize=8)
    return png(figure)


def low_data(rows: dict) -> bytes:
    """Macro AUROC over the share of real patients, by kind of training, with 95 % intervals."""
    kinds: dict[str, dict[float, list[float]]] = {}
    for name, row in rows.items():
        kind, _, share = name.rpartition(", ")
        if share.endswith(" %"):
            kinds.setdefault(kind, {})[float(share[:-2])] = row["AUROC"]
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for shift, (kind, held) in enumerate(kinds.items()):
        held = {**held, 100.0: rows[kind]["AUROC"]}
        _with_intervals(axes, {share * 1.04 ** (shift - 1): held[share] for share in sorted(held)}, kind)
    shares = sorted({share for held in kinds.values() for share in held} | {100.0})
    axes.set(xscale="log", xticks=shares, xticklabels=[f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.set(xlabel="share of real training patients (%)", ylabel="macro AUROC, unseen patients (95 %)")
    axes.legend(frameon=False, fontsize=8)
    return png(figure)


def alpha_sweep(rows: dict) -> bytes:
    """Gain in macro AUROC of synthetic first, then real, over alpha; that of the dataset is 1 unless its request says otherwise."""
    names = {"retrieval only": 0.0, "alpha 0.3": 0.3, "alpha 0.6": 0.6, "unvaried synthetic": 1.0}
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    held = {alpha: rows[f"{name} first, then real"]["gain"]["AUROC"] for name, alpha in names.items()
            if f"{name} first, then real" in rows}  # fmt: skip
    _with_intervals(axes, held, "synthetic first, then real")
    axes.axhline(0, color="k", lw=1, ls=":", label="real alone")
    axes.axhline(rows["real + classical"]["gain"]["AUROC"][0], color="0.5", lw=1, ls="--", label="real + classical augmentation")
    axes.set(xlabel="alpha, share of texture", ylabel="gain in macro AUROC (95 %)", xticks=[0, 0.3, 0.6, 1])
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return png(figure)


def _with_intervals(axes, held: dict[float, list[float]], label: str) -> None:
    """held: x -> [value, low, high]."""
    value, low, high = np.array(list(held.values())).T
    axes.errorbar(list(held), value, [value - low, high - value], fmt="o-", ms=4, lw=1.2, capsize=2, label=label)


def wave_errors(rows: dict) -> bytes:
    """Histograms of what marks are off, ours less theirs, by boundary and by what taught."""
    names = list(next(iter(rows.values()))["by boundary"])
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3, sharex=True).T.flat, names, strict=True):
        for at, (source, row) in enumerate(rows.items()):
            counts = np.array(row["by boundary"][name]["histogram"])
            edges = np.linspace(-150, 150, len(counts) + 1)
            axes.stairs(counts / max(counts.sum(), 1), edges, label=source, color=f"C{at}")
        axes.axvline(0, color="0.85", lw=1, zorder=0)
        axes.set(title=name, yticks=[], xlim=(-100, 100), xlabel="ours less theirs, ms")
    named = figure.axes[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside upper center", ncols=len(rows), frameon=False, fontsize=9)
    return png(figure)


def beats_in_noise(rows: dict) -> bytes:
    """F1 of R peaks over the ratio, with 95 % intervals."""
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, row in rows.items():
        held = {float(at.split()[0]): of["F1"] for at, of in row.items() if at.endswith(" dB")}
        _with_intervals(axes, held, name)
    axes.set(xlabel="beats to noise (dB)", ylabel="F1 of R peaks (95 %)")
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=8)
    return png(figure)


def beat_types(section: dict) -> bytes:
    """F1 of V and of S with 95 % intervals over recordings, by what taught."""
    rows, names = section["rows"], list(section["rows"])
    figure = Figure(figsize=(10, 1.1 + 0.5 * len(names)), layout="constrained")
    kinds = {"V": "V", "S": "S", "S without the recording of most": f"S without {section['most S']['recording']}"}
    for axes, (kind, title) in zip(figure.subplots(1, len(kinds), sharey=True), kinds.items(), strict=True):
        held = [rows[name][kind].get("F1") for name in reversed(names)]
        for at, found in enumerate(held):
            if found:
                axes.plot(found[1:], [at, at], color="C0", lw=3, alpha=0.4, solid_capstyle="round")
                axes.plot(found[0], at, "o", color="C0")
        axes.set(title=title, yticks=range(len(names)), yticklabels=list(reversed(names)), xlim=(0, 1))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.grid(axis="x", color="0.9")
        axes.set_xlabel("F1 (95 %)")
    return png(figure)


def beat_confusions(rows: dict) -> bytes:
    """Of the beats of each class, the share that is said to be N, S, V."""
    figure = Figure(figsize=(2.6 * len(rows) + 0.6, 3.6), layout="constrained")
    for axes, (name, row) in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.items(), strict=True):
        counts = np.array(row["confusion"])
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for (i, j), value in np.ndenumerate(share):
            axes.text(j, i, f"{counts[i, j]:,.0f}", ha="center", va="center", color="white" if value > 0.6 else "black", fontsize=8)
        axes.set(title=name, xticks=range(3), xticklabels=["N", "S", "V"], yticks=range(5), yticklabels=["N", "S", "V", "F", "Q"])
        axes.title.set_fontsize(9)
    figure.axes[0].set_ylabel("annotated")
    figure.supxlabel("said (beats, mean over trainings)", fontsize=9)
    return png(figure)


def burden(section: dict) -> bytes:
    """Share of each recording that fibrillates, by people and by what taught."""
    names = list(section["burden"])
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes, at = figure.subplots(), np.arange(len(names))
    axes.bar(at, [section["burden"][name] for name in names], width=0.8, color="0.85", label="annotated")
    for row, (source, of) in enumerate(section["burden said"].items()):
        axes.plot(at + 0.2 * (row - 1), [of[name] for name in names], "o", ms=4, color=f"C{row}", label=source)
    axes.set(xticks=at, xticklabels=names, ylim=(-0.03, 1.03), ylabel="share in fibrillation")
    axes.tick_params(axis="x", rotation=60)
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return png(figure)


def fibrillation(section: dict) -> bytes:
    """AUROC with 95 % intervals over records, by what taught."""
    rows, kinds = section["rows"], ("A against N and O", "A against N")
    figure = Figure(figsize=(9, 1.1 + 0.4 * len(rows)), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2, sharex=True, sharey=True), kinds, strict=True):
        for at, row in enumerate(reversed(rows.values())):
            axes.plot(row[kind][1:], [at, at], color="C0", lw=3, alpha=0.4, solid_capstyle="round")
            axes.plot(row[kind][0], at, "o", color="C0")
        axes.set(title=kind, yticks=range(len(rows)), yticklabels=list(reversed(rows)), xlabel="AUROC (95 %)")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="x", color="0.9")
    return png(figure)


def gallery(made, train, rows, unvaried) -> bytes:
    """The first record of three classes as the dataset has it, the same without variation, and its donor, on ECG paper."""
    from ecg_batch.plot.paper import Sheet, draw

    by_id = {int(ecg_id): at for at, ecg_id in enumerate(train.ecg_id)}
    sheets, shown = [], set()
    same = made.ecg_id == unvaried.ecg_id  # a record that the gate had drawn again may have another donor
    for k in (1, 3, 4):
        can = (i for i in np.flatnonzero(made.labels[:, k] & same) if i not in shown and int(made.ecg_id[i]) in by_id)
        at = next((int(i) for i in can), None)
        if at is None:
            continue
        shown.add(at)
        asked = rows["hr_bpm_requested"][at].as_py()
        hr = f"HR {asked:.0f} asked" if asked is not None else "HR of the donor"
        codes, name = ", ".join(made.codes[at]), SUPERCLASSES[k]
        donor = train.ecg[by_id[int(made.ecg_id[at])]]
        titles = (f"Synthetic record {at}: {name}", f"The same without variation: {name}", f"Its donor: {made.ecg_id[at]}")
        facts = (f"{hr}   {codes}", f"{hr}   {', '.join(unvaried.codes[at])}", codes)
        traces = (made.ecg[at], unvaried.ecg[at], donor)
        sheets.append(tuple(Sheet(x * MV_PER_UV, made.fs_hz, *words) for x, *words in zip(traces, titles, facts, strict=True)))
    with TemporaryDirectory() as scratch:
        draw(sheets, Path(scratch) / "gallery.png", dpi=70)
        return (Path(scratch) / "gallery.png").read_bytes()
