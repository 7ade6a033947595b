"""Generated texture against real texture of fold 9: spectrum and amplitude distribution by lead, a figure and numbers.

Every distance stands beside its floor, the same distance between two sets of real patients, fold 8 and fold 9.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.signal import welch

from ecg_batch import draws
from ecg_batch.errors import UserError
from ecg_batch.leads import MODELLED
from ecg_batch.models.checkpoints import save_figure, save_report
from ecg_batch.models.conditions import labels_of
from ecg_batch.models.corpus import VALIDATION_FOLD, Corpus, select
from ecg_batch.models.decode import Models, decode_texture, draw_noise, sample_tokens, token_count

BAND_HZ = (0.3, 40.0)
SEGMENT_S = 2.56  # 0.39 Hz a bin
SEED = 0
BATCH = 128


def write_report(corpus: Corpus, models: Models, out: Path) -> str:
    """Writes OUT/texture.png, OUT/traces.png and OUT/texture.json; returns one line for the terminal."""
    if models.fs_hz != corpus.fs_hz:
        raise UserError(
            f"the models are for {models.fs_hz:g} Hz, the bank's texture has {corpus.fs_hz:g} Hz; spectra "
            "would compare nothing. Give models that were trained on this bank"
        )
    held_out, floor = (select(corpus, corpus.fold == fold) for fold in (VALIDATION_FOLD, VALIDATION_FOLD - 1))
    real, other = held_out.texture_mv, floor.texture_mv
    generated = generate(models, held_out)
    rows = {"generated": compare(generated, real, corpus.fs_hz), "fold 8 (floor)": compare(other, real, corpus.fs_hz)}
    save_figure(out / "texture.png", spectra_and_amplitudes(generated, real, other, corpus.fs_hz))
    save_figure(out / "traces.png", traces(generated, real, corpus.fs_hz))
    save_report(out / "texture.json", {"records": len(real), "against": "fold 9", **rows})
    return "; ".join(f"{name}: {summary(row)}" for name, row in rows.items())


def generate(models: Models, like: Corpus) -> np.ndarray:
    """A texture for each record of `like`, under a condition drawn among those it holds: (record, lead, time)."""
    records, samples = np.arange(len(like)), like.texture_mv.shape[-1]
    conditions = torch.tensor([draw_condition(models, like, record) for record in records])
    length, parts = token_count(models, samples), []
    for rows in np.split(records, range(BATCH, len(records), BATCH)):
        uniforms = torch.from_numpy(draws.uniforms(SEED, rows, draws.Stream.TOKENS, length))
        tokens = sample_tokens(models, conditions[rows], uniforms)  # (b, l)
        parts.append(decode_texture(models, tokens, draw_noise(models, SEED, rows, length)).cpu().numpy())
    return np.concatenate(parts)[..., :samples]


def draw_condition(models: Models, like: Corpus, record: int) -> int:
    names = labels_of(like.statements[record], like.superclass_of)
    held = [index for index, name in enumerate(models.conditions) if name in names]
    return int(draws.generator(SEED, record, draws.Stream.QUERY).choice(held))


def compare(x: np.ndarray, real: np.ndarray, fs_hz: float) -> dict:
    """Distances between two sets of texture (record, lead, time), by lead.

    spectral_db: mean absolute difference of the log spectra in BAND_HZ; of the mean power, which loud records rule, and
    of the mean log power, the typical record. amplitude: Wasserstein-1 distance between all samples, in units of the
    real standard deviation. level: the same between the standard deviations of single records, in log10.
    """
    f, power = spectrum(real, fs_hz)  # (frequency,), (record, lead, frequency)
    band = (f >= BAND_HZ[0]) & (f <= BAND_HZ[1])
    a, b = spectrum(x, fs_hz)[1][..., band], power[..., band]
    by_lead = {
        "spectral_db": np.abs(db(a.mean(0)) - db(b.mean(0))).mean(-1),
        "spectral_db_typical": np.abs(db(a).mean(0) - db(b).mean(0)).mean(-1),
        "amplitude": [wasserstein(x[:, k], real[:, k]) / real[:, k].std() for k in range(len(MODELLED))],
        "level": [wasserstein(np.log10(x[:, k].std(-1)), np.log10(real[:, k].std(-1))) for k in range(len(MODELLED))],
    }
    return {name: dict(zip(MODELLED, np.round(values, 4).tolist(), strict=True)) for name, values in by_lead.items()}


def summary(row: dict) -> str:
    means = {name: np.mean(list(values.values())) for name, values in row.items()}
    return f"spectrum {means['spectral_db']:.2f} dB, amplitude {means['amplitude']:.3f} SD"


def spectrum(x: np.ndarray, fs_hz: float) -> tuple[np.ndarray, np.ndarray]:
    return welch(x, fs_hz, nperseg=round(SEGMENT_S * fs_hz), detrend="linear")  # (frequency,), (..., frequency) mV^2/Hz


def db(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(power + 1e-12)  # 1e-12 mV^2/Hz is far under one microvolt step


def wasserstein(x: np.ndarray, y: np.ndarray) -> float:
    """Wasserstein-1 distance of two samples through their quantiles."""
    q = (np.arange(5000) + 0.5) / 5000
    return float(np.abs(np.quantile(x, q) - np.quantile(y, q)).mean())


def spectra_and_amplitudes(
    generated: np.ndarray, real: np.ndarray, other: np.ndarray, fs_hz: float, fold: int = VALIDATION_FOLD
) -> Figure:
    """fold: that of `real`; `other` is of the one before."""
    figure = Figure(figsize=(15, 12), layout="constrained")
    axes = figure.subplots(4, 4)
    sets = {f"real, fold {fold}": (real, "k"), f"real, fold {fold - 1}": (other, "0.6"), "generated": (generated, "C3")}
    for k, lead in enumerate(MODELLED):
        spectra, amplitudes = axes[k // 4, k % 4], axes[2 + k // 4, k % 4]
        for name, (x, colour) in sets.items():
            f, power = spectrum(x[:, k], fs_hz)
            spectra.semilogx(f[1:], db(power.mean(0))[1:], color=colour, lw=1.2, label=f"{name}, mean")
            spectra.semilogx(f[1:], db(power).mean(0)[1:], color=colour, lw=1.2, ls=":", label=f"{name}, typical")
            edges = np.linspace(-2, 2, 161)
            amplitudes.stairs(np.histogram(x[:, k], edges, density=True)[0], edges, color=colour, label=name)
        spectra.set(title=f"lead {lead}: spectrum", xlabel="frequency (Hz)", ylabel="dB re 1 mV²/Hz")
        amplitudes.set(title=f"lead {lead}: amplitude", xlabel="texture (mV)", ylabel="density (1/mV)")
        amplitudes.set(yscale="log", ylim=(1e-4, 30))
    axes[0, 0].legend(frameon=False, fontsize=7)
    axes[2, 0].legend(frameon=False, fontsize=7)
    return figure


def traces(generated: np.ndarray, real: np.ndarray, fs_hz: float, rows: int = 8, fold: int = VALIDATION_FOLD) -> Figure:
    """Real records to the left, generated ones to the right, four leads each, none picked by hand."""
    figure = Figure(figsize=(18, 2 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, sharey=True)
    time_s = np.arange(real.shape[-1]) / fs_hz
    for column, (name, x) in enumerate(((f"real, fold {fold}", real), ("generated", generated))):
        for row in range(rows):
            record = row * len(x) // rows
            for place, k in enumerate((0, 1, 2, 6)):
                axes[row, column].plot(time_s, x[record, k] - 0.6 * place, lw=0.7, label=MODELLED[k])
            axes[row, column].set(ylim=(-2.6, 0.8), ylabel="mV")
        axes[0, column].set(title=name)
        axes[-1, column].set(xlabel="time (s)")
    axes[0, 0].legend(frameon=False, ncols=4, fontsize=7)
    return figure
