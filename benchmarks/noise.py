"""The tables and the figure of docs/evidence/noise.md: detectors on noisy hours, spectra of models beside recorded ones, strips.

python -m benchmarks.noise detect [--records 24] [--seconds 600]   XQRS on lead II by kind and ratio
python -m benchmarks.noise holters [--records 64] [--seconds 600]  the same without noise, and with that of people who wear Holters
python -m benchmarks.noise mitbih --folder DIR                      XQRS on recordings of MIT-BIH in WFDB format, their first signal
python -m benchmarks.noise spectra                                  muscle and baseline beside PTB-XL's leads with stated noise
python -m benchmarks.noise cost [--records 1024]                    records a second of one process without and with noise
python -m benchmarks.noise figure --out docs/figures/noise.png      a strip of each kind
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.detect import xqrs
from benchmarks.holter import ENDS_S, WITHIN_S, distance
from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.leads import LEADS, MODELLED_INDEX, MV_PER_UV, twelve_leads
from ecg_batch.request.model import ADDED, Distribution, Noise
from ecg_batch.request.parse import load_request
from ecg_batch.run.planning import make_plan
from ecg_batch.statements import NOISE_KINDS
from ecg_batch.synthesis.generate import open_generator
from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.noise import make_episode
from ecg_batch.synthesis.noise_models import LEADS_OF, electrode_noise
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import open_synthesizer

LABELS = {"NORM": 0.3, "MI": 0.15, "STTC": 0.15, "CD": 0.1, "HYP": 0.1, "AFIB": 0.1, "PVC": 0.1}  # as configs/holter.yaml
LEVELS_DB = (24, 12, 6, 0, -6)
SPECTRUM_HZ = (0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 40, 45)
# kind, dB, and a seed with which it is seen in the leads that are shown
SHOWN = (("muscle", 6, 3), ("electrode", 0, 3), ("baseline", 6, 0), ("mains", 0, 0), ("lead_off", 12, 2), ("lead_off", 12, 7),
         ("swapped", 30, 0), ("clipped", 12, 3))  # fmt: skip
SEED, SECONDS = 5, 8


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("detect", "holters", "mitbih", "spectra", "cost", "figure"))
    parser.add_argument("--records", type=int)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="of MIT-BIH recordings")
    parser.add_argument("--out", type=Path, default=Path("noise.png"))
    arguments = parser.parse_args(words)
    if arguments.part == "detect":
        detect(arguments.records or 24, arguments.seconds)
    elif arguments.part == "holters":
        holters(arguments.records or 64, arguments.seconds)
    elif arguments.part == "mitbih":
        mitbih(arguments.folder)
    elif arguments.part == "spectra":
        spectra()
    elif arguments.part == "cost":
        cost(arguments.records or 1024)
    else:
        figure(arguments.out)


# Detectors ------------------------------------------------------------------------------------------------------------


def detect(records: int, seconds: int) -> None:
    print("| noise all the time, of one kind | " + " | ".join(f"{level} dB" for level in LEVELS_DB) + " |")
    print("|---|" + "---|" * len(LEVELS_DB))
    for kind in (kind for kind in ADDED if kind != "mains"):
        all_the_time = {"kinds": {kind: 1}, "per_hour": 60, "length_s": 60}
        cells = [f1_of(records, seconds, {**all_the_time, "snr_db": level}) for level in LEVELS_DB]
        print(f"| {kind} | " + " | ".join(f"{cell[0]:.4f}" for cell in cells) + " |", flush=True)


def holters(records: int, seconds: int) -> None:
    print("| records | beats | F1 | sensitivity | precision | F1 of records: lowest, tenth, median |\n|---|---|---|---|---|---|")
    for name, noise in (("without noise", None), ("`noise: {}`, as people wear Holters", {})):
        found = f1_of(records, seconds, noise)
        print(f"| {name} | {found[3]:,} | {found[0]:.4f} | {found[1]:.4f} | {found[2]:.4f} | {low(found[4])} |", flush=True)


def f1_of(records: int, seconds: int, noise: dict | None) -> tuple[float, float, float, int, np.ndarray]:
    """(F1, sensitivity, precision, beats, F1 of each record) of XQRS on lead II, the first and last 5 s left out."""
    asked = {"records": records, "duration_s": seconds, "seed": SEED, "batch": records,
             "mix": {"labels": LABELS, "hr_bpm": {"normal": [75, 10], "within": [55, 100]}}}  # fmt: skip
    synthesizer, queries_of = opened(asked | ({} if noise is None else {"noise": noise}))
    batch = LongBatch(synthesizer, queries_of(0, records), lambda done: None)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    counts = []
    for lead_uv, beats in zip(ecg[:, LEADS.index("II")], batch.tables(0)[1], strict=True):
        is_beat = np.isin(np.array(beats["symbol"].to_pylist()), ("N", "V", "A"))
        counts.append(counted(lead_uv * MV_PER_UV, beats["sample"].to_numpy()[is_beat], synthesizer.request.fs_hz))
    return rates(np.array(counts))


def opened(asked: dict):
    """(Synthesizer, queries_of) of a request."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "request.yaml").write_text(json.dumps(asked))
        plan, _ = make_plan(load_request(Path(folder) / "request.yaml"))
    return open_synthesizer(plan), query_source(plan.request, Path())


def counted(lead_mv: np.ndarray, beats: np.ndarray, fs_hz: int) -> tuple[int, int, int]:
    """(beats, missed, invented) by XQRS."""
    found, near, ends = xqrs(lead_mv, fs_hz), WITHIN_S * fs_hz, ENDS_S * fs_hz
    true, seen = (r[(r >= ends) & (r < len(lead_mv) - ends)] for r in (beats, found))
    if len(found) < 2:
        return len(true), len(true), 0
    return len(true), int((distance(true, found) > near).sum()), int((distance(seen, beats) > near).sum())


def rates(counts: np.ndarray) -> tuple[float, float, float, int, np.ndarray]:
    beats, missed, invented = counts.sum(axis=0)
    right = beats - missed
    each = 2 * (counts[:, 0] - counts[:, 1]) / (2 * counts[:, 0] - counts[:, 1] + counts[:, 2])
    return 2 * right / (2 * beats - missed + invented), right / beats, right / max(right + invented, 1), int(beats), each


def low(each: np.ndarray) -> str:
    return ", ".join(f"{value:.4f}" for value in np.quantile(each, (0, 0.1, 0.5)))


def mitbih(folder: Path) -> None:
    import wfdb
    from scipy.signal import resample_poly

    counts = []
    for path in sorted(folder.glob("*.hea")):
        record, marks = wfdb.rdrecord(str(path.with_suffix(""))), wfdb.rdann(str(path.with_suffix("")), "atr")
        is_beat = np.isin(marks.symbol, list("NLRBAaJSVrFejnE/fQ?"))
        lead = resample_poly(record.p_signal[:, 0], 5, 18)  # 360 to 100 Hz, as ours
        counts.append(counted(lead, np.rint(marks.sample[is_beat] / 3.6).astype(int), 100))
    f1, sensitivity, precision, beats, each = rates(np.array(counts))
    print(f"| MIT-BIH, {len(counts)} recordings | {beats:,} | {f1:.4f} | {sensitivity:.4f} | {precision:.4f} | {low(each)} |")


# Spectra and cost -----------------------------------------------------------------------------------------------------


def spectra() -> None:
    """Power by frequency of single leads, relative to 10 Hz (muscle) and 0.5 Hz (baseline)."""
    bank, draws = read_bank(BUNDLED), np.random.default_rng(0)
    texture, quiet = bank.texture.astype(float), ~bank.noise.any(axis=1)
    print("| power, dB | leads | " + " | ".join(f"{hz:g} Hz" for hz in SPECTRUM_HZ) + " |\n|---|---|" + "---|" * len(SPECTRUM_HZ))
    for kind, stated, at_hz in (("muscle", "static_noise", 10), ("baseline", "baseline_drift", 0.5)):
        noisy = bank.noise[:, NOISE_KINDS.index(stated)] > 0
        excess = power(texture[noisy]) - power(texture[quiet])  # what a quiet recording has is not the noise
        made = np.concatenate([LEADS_OF @ electrode_noise(kind, draws, texture.shape[-1], 100) for _ in range(60)])
        for name, leads, values in ((f"recorded, {stated}", noisy.sum(), excess), (f"model, {kind}", len(made), power(made))):
            said = 10 * np.log10(np.maximum(values, 1e-30) / values[SPECTRUM_HZ.index(at_hz)])
            print(f"| {name} | {leads:,} | " + " | ".join(f"{value:.0f}" if value > -99 else "-" for value in said) + " |")


def power(leads: np.ndarray) -> np.ndarray:
    """Of a typical lead (lead, time) at SPECTRUM_HZ, each over a quarter of an octave."""
    window = np.hanning(leads.shape[1])
    bins = np.median(np.abs(np.fft.rfft((leads - leads.mean(axis=1, keepdims=True)) * window)) ** 2, axis=0)
    f = np.fft.rfftfreq(leads.shape[1], 0.01)
    return np.array([bins[(f > hz * 0.88 - 0.06) & (f < hz * 1.12 + 0.06)].mean() for hz in SPECTRUM_HZ])


def cost(records: int) -> None:
    asked = {"records": records, "seed": SEED, "batch": 256, "shard": -(-records // 256) * 256, "mix": {"labels": LABELS}}
    spent: dict[str, list[float]] = {"without": [], "with": []}
    makers = {}
    for name, more in (("without", {}), ("with", {"noise": {}})):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "request.yaml").write_text(json.dumps(asked | more))
            plan, _ = make_plan(load_request(Path(folder) / "request.yaml"))
        makers[name] = (open_generator(plan), plan.shards[0], query_source(plan.request, Path()))
    for turn in range(6):
        for name, (make, shard, queries_of) in makers.items():
            began = time.process_time()
            make(shard, 256, queries_of, lambda done: None)
            spent[name] += [time.process_time() - began] * (turn > 0)  # the first fills caches
    rates = {name: records / np.median(each) for name, each in spent.items()}
    print(f"{rates['without']:.0f} records/s of processor time without, {rates['with']:.0f} with noise: "
          f"{100 * (rates['without'] / rates['with'] - 1):.0f} % more")  # fmt: skip
    long = {"records": 8, "duration_s": 600, "seed": SEED, "batch": 8, "mix": {"labels": LABELS, "hr_bpm": 75}}
    took: dict[str, list[float]] = {"without": [], "with": []}
    for turn in range(4):
        for name, more in (("without", {}), ("with", {"noise": {}})):
            synthesizer, queries_of = opened(long | more)
            began = time.process_time()
            batch = LongBatch(synthesizer, queries_of(0, 8), lambda done: None)
            for _ in batch.blocks():
                pass
            took[name] += [time.process_time() - began] * (turn > 0)
    without, noisy = (float(np.median(each)) for each in took.values())
    more = 100 * (noisy / without - 1)
    print(f"8 records of 10 min: {without:.2f} s of processor time without, {noisy:.2f} with: {more:.0f} % more")


# Strips ---------------------------------------------------------------------------------------------------------------


def figure(path: Path) -> None:
    """Eight seconds of leads I, II and V2 of one record with each kind, on ECG paper."""
    from matplotlib.figure import Figure

    fs_hz, leads = 500, ("I", "II", "V2")
    asked = {"records": 1, "seed": 3, "batch": 64, "shard": 64, "mix": {"labels": {"NORM": 1}, "hr_bpm": 72}}
    synthesizer, queries_of = opened(asked | {"noise": {"snr_db": 20}})
    from ecg_batch.synthesis.generate import make_clean_batches

    (batch,) = make_clean_batches(synthesizer, [queries_of(0, 1)])
    clean_uv, skeleton_mv = (fourier(x.astype(float), 5) for x in (batch.ecg[0, list(MODELLED_INDEX)], batch.skeleton_mv[0]))
    page = Figure(figsize=(14, 2.6 * (1 + len(SHOWN))), dpi=100)
    for axes, (kind, level, seed) in zip(page.subplots(1 + len(SHOWN)), [("", 0, 0), *SHOWN], strict=True):
        ecg, said = twelve_leads(np.rint(clean_uv).astype(np.int32)).astype(np.int16), "without noise"
        if kind:
            kinds = ((kind, 1.0),) if kind in ADDED else (("muscle", 0.0), (kind, 1.0))
            noise = Noise(Distribution(level, level), kinds)
            request = replace(synthesizer.request, noise=noise, fs_hz=fs_hz)
            made = make_episode(request, np.random.default_rng(seed), skeleton_mv, (False, False))
            made.put_over(ecg, 0)
            if kind == "swapped":
                ecg = exchanged(ecg)
            by_lead = 10 * np.log10(made.beats / made.added)[[LEADS.index(lead) for lead in leads]]
            off = f", {made.off}" if made.off else ""
            said = f"{kind}{off}: {level} dB of the record; leads I, II, V2 {', '.join(f'{db:.0f}' for db in by_lead)} dB"
        strip(axes, ecg, fs_hz, leads, said)
    page.tight_layout()
    page.savefig(path)


def exchanged(ecg: np.ndarray) -> np.ndarray:
    from ecg_batch.synthesis.noise import arms_exchanged

    out = ecg.copy()
    arms_exchanged(out)
    return out


def fourier(x: np.ndarray, times: int) -> np.ndarray:
    """x (..., time) with so many times the samples, its ends mirrored."""
    both = np.concatenate([x, x[..., ::-1]], axis=-1)
    return np.fft.irfft(np.fft.rfft(both), both.shape[-1] * times)[..., : x.shape[-1] * times] * times


def strip(axes, ecg: np.ndarray, fs_hz: int, leads: tuple[str, ...], said: str) -> None:
    time_s, apart_mv = np.arange(ecg.shape[1]) / fs_hz, 2.5
    for row, lead in enumerate(leads):
        axes.plot(time_s, ecg[LEADS.index(lead)] * MV_PER_UV - row * apart_mv, color="#101018", linewidth=0.7)
        axes.text(-0.05, -row * apart_mv, lead, ha="right", va="center")
    axes.set_title(said, loc="left", fontsize=10)
    low, high = -len(leads) * apart_mv + 0.5, 2.5
    axes.set(xlim=(0, SECONDS), ylim=(low, high), yticks=np.arange(low, high + 0.1, 0.5), xticks=np.arange(0, SECONDS + 0.1, 0.2))
    axes.tick_params(labelleft=False, labelbottom=False, length=0)
    axes.set_xlabel(f"{SECONDS} s, a square is 0.2 s by 0.5 mV", loc="right", fontsize=8)
    axes.grid(color="#eda9a9", linewidth=0.4)


if __name__ == "__main__":
    main()
