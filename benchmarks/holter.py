"""The tables of docs/evidence/holter.md: detectors, seams, jumps, repetition, variability of a dataset of long records.

python -m benchmarks.holter DIR [--hours 10]               of a finished dataset of long records, by default ten hours of it
python -m benchmarks.holter --texture PNG [--records 64]   the texture stream beside real texture

Beside it: benchmarks.splices (ectopic beats), benchmarks.repetition (real recordings), benchmarks.cost (memory, speed).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.detect import neurokit, xqrs
from benchmarks.repetition import highest
from benchmarks.splices import told_apart, unspliced
from ecg_batch.dataset.beats import BEAT_SYMBOLS
from ecg_batch.dataset.plan import read_plan
from ecg_batch.donors.bank import read_bank
from ecg_batch.leads import MODELLED_INDEX, MV_PER_UV
from ecg_batch.reading.synthetic import open_dataset
from ecg_batch.signal.filters import low_pass
from ecg_batch.signal.hrv import RANGES_24_H, measure_hrv, rmssd_range
from ecg_batch.synthesis.long.begin import begin_records
from ecg_batch.synthesis.long.stitch import intervals
from ecg_batch.synthesis.retrieve import donors_for
from ecg_batch.synthesis.source import query_source
from ecg_batch.synthesis.synthesizer import Synthesizer

WITHIN_S = 0.15  # ANSI/AAMI EC57
ENDS_S = 5.0  # detectors learn at the beginning
CLEAN = ("NORM", "MI", "STTC", "CD", "HYP")
QRS_S = 0.10
TIGHT_S = 0.04  # TP is used up


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, nargs="?")
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--texture", type=Path)
    parser.add_argument("--records", type=int, default=64, help="of the texture stream")
    arguments = parser.parse_args(words)
    if arguments.texture:
        texture(arguments.texture, arguments.records)
    if arguments.dataset:
        evidence(arguments.dataset, arguments.hours)


def evidence(folder: Path, hours: float) -> None:
    dataset, plan = open_dataset(folder), read_plan(folder)
    bank = read_bank(Path(plan.request.bank))
    synthesizer = Synthesizer(plan.request, bank, donors_for(plan.request), models=None)
    chosen = mixed(dataset.records["label"].to_pylist(), int(hours * 3600 / plan.request.duration_s))
    queries_of = query_source(plan.request, folder)
    records = []
    for record in chosen:
        each = begin_records(synthesizer, queries_of(record, record + 1))[0]
        assert bank.table.ecg_id[each.donor_row] == dataset.records["donor_ecg_id"][record].as_py()
        records.append(Record(record, dataset, each))
    print(f"{len(records)} records of {plan.request.duration_s / 3600:g} h: {', '.join(one.label for one in records)}\n")
    detectors(records)
    seams(records)
    jumps(records, bank)
    repetition(records, bank)
    variability(records)


def mixed(labels: list[str], count: int) -> list[int]:
    """So many records, the labels in turn."""
    of = {label: [i for i, one in enumerate(labels) if one == label] for label in sorted(set(labels))}
    turns = [rows[turn] for turn in range(count) for rows in of.values() if turn < len(rows)]
    return sorted(turns[:count])


class Record:
    """One long record with all that is known of it: ecg int16 (12, time), beats (beat,), splices (interval,) in samples."""

    def __init__(self, record: int, dataset, each):
        self.label, self.fs_hz, self.each = dataset.records["label"][record].as_py(), dataset.fs_hz, each
        self.flags = dataset.records["flags"][record].as_py()
        self.ecg = dataset.raw[record]
        interval = intervals(each.donor, each.placed, np.arange(len(each.placed.r) - 1))
        self.splices = np.rint(interval.start + interval.splice).astype(int)
        self.interval, self.is_seam = interval, interval.donor_out != interval.donor_in
        both = np.array([each.donor.symbol[beats] == "N" for beats in (interval.before, interval.after)])
        self.normal, self.into = both.all(axis=0), ~both[1]  # intervals between normal beats; those that end in an ectopic one
        self.tight = interval.p_on - interval.t_end < TIGHT_S * dataset.fs_hz
        self.age = dataset.records["age"][record].as_py()
        rows = dataset.beats(record)
        self.symbol = np.array(rows["symbol"].to_pylist())
        is_beat = np.isin(self.symbol, BEAT_SYMBOLS)
        self.beats, self.symbol = rows["sample"].to_numpy()[is_beat], self.symbol[is_beat]
        assert np.array_equal(self.beats, each.placed.r[1:-1]), "made by another version of this program"


# Detectors ------------------------------------------------------------------------------------------------------------


def detectors(records: list[Record]) -> None:
    print("| label | flags | beats | XQRS Se / P+ | NeuroKit2 Se / P+ | invented within 60 ms of a splice: XQRS, NeuroKit2 |")
    print("|---|---|---|---|---|---|")
    total = np.zeros((2, 4))
    for one in records:
        counts = np.array([against(one, detect(one.ecg[1] * MV_PER_UV, one.fs_hz)) for detect in (xqrs, neurokit)])
        total += counts * (one.label in CLEAN)
        print(f"| {one.label} | {one.flags or '-'} | {len(one.beats):,} | {rates(counts[0])} | {rates(counts[1])} | "
              f"{counts[0, 3]:.0f}, {counts[1, 3]:.0f} |")  # fmt: skip
    print(f"| **clean classes** | | {total[0, 0]:,.0f} | **{rates(total[0])}** | **{rates(total[1])}** | "
          f"{total[0, 3]:.0f}, {total[1, 3]:.0f} |\n")  # fmt: skip


def against(one: Record, found: np.ndarray) -> tuple[int, int, int, int]:
    """(beats, missed, invented, invented near a splice), the ends of the record left out."""
    near, ends = WITHIN_S * one.fs_hz, ENDS_S * one.fs_hz

    def inner(r: np.ndarray) -> np.ndarray:
        return r[(r >= ends) & (r < one.ecg.shape[1] - ends)]

    invented = inner(found)[distance(inner(found), one.beats) > near]
    missed = (distance(inner(one.beats), found) > near).sum()
    return len(inner(one.beats)), int(missed), len(invented), int((distance(invented, one.splices) <= 0.06 * one.fs_hz).sum())


def distance(these: np.ndarray, those: np.ndarray) -> np.ndarray:
    """From each of these to the nearest of those, which ascend."""
    after = np.searchsorted(those, these).clip(1, len(those) - 1)
    return np.minimum(np.abs(these - those[after]), np.abs(these - those[after - 1]))


def rates(counts: np.ndarray) -> str:
    beats, missed, invented, _ = counts
    return f"{1 - missed / max(beats, 1):.4f} / {1 - invented / max(beats - missed + invented, 1):.4f}"


# Seams ----------------------------------------------------------------------------------------------------------------


def seams(records: list[Record]) -> None:
    """AUC of gradient boosting on held-out records, for three kinds of places where something was joined."""
    print("| windows of 0.3 s about | against | windows of each kind | AUC (5 folds by record) |\n|---|---|---|---|")
    chance = np.random.default_rng(0)
    kinds = {
        "splices of beats that did not follow each other in the donor": lambda one: one.normal,
        "the same where TP is used up": lambda one: one.normal & one.tight,
    }
    splices = {name: [(one, one.splices[one.is_seam & kind(one)], unspliced(one, kind(one), chance)) for one in records]
              for name, kind in kinds.items()}  # fmt: skip
    minutes = [(one, np.arange(6000, one.ecg.shape[1], 6000), None) for one in records]
    pieces = [(one, one.each.placed.atrial_out, None) for one in records if len(one.each.placed.atrial_out)]
    for name, other, places in (
        *((name, "the same places of TP where they did", places) for name, places in splices.items()),
        ("edges of minutes (blocks of decoding, filtering, storing)", "other times", minutes),
        ("splices of pieces of atrial activity", "other times", pieces),
    ):
        places = [(one, seam, plain) for one, seam, plain in places if len(seam) and (plain is None or len(plain))]
        if len(places) > 1:
            auc, count = told_apart(places, chance)
            print(f"| {name} | {other} | {count:,} | {auc:.3f} |")
    print()


def jumps(records: list[Record], bank) -> None:
    print("| largest within 30 ms of a splice, uV | value, sample to sample | slope, sample to sample |\n|---|---|---|")
    share, ratio, over = [], [], []
    for one in records:
        donor = bank.skeleton[one.each.donor_row].astype(float) + bank.texture[one.each.donor_row]
        donor = low_pass(donor, 40, one.fs_hz)
        r = bank.beats(one.each.donor_row)
        outside = np.abs(np.arange(donor.shape[1])[:, None] - r).min(axis=1) > QRS_S * one.fs_hz
        leads = one.ecg[np.array(MODELLED_INDEX)].astype(float)
        near = one.splices[(one.splices > 10) & (one.splices < leads.shape[1] - 10)][:, None] + np.arange(-3, 4)
        clear = distance(near[:, 3], one.beats) > QRS_S * one.fs_hz
        row = []
        for order in (1, 2):
            own, made = np.abs(np.diff(donor, order, axis=1)), np.abs(np.diff(leads, order, axis=1))
            at = made[:, near[clear] - 1].max(axis=(0, 2))
            row.append((at.max(), own.max(), (at > own[:, outside[: own.shape[1]]].max()).mean()))
        share.append([cell[2] for cell in row])
        ratio.append([cell[0] / cell[1] for cell in row])
        over.append([cell[0] for cell in row])
    share, ratio, over = np.array(share), np.array(ratio), np.array(over)
    print(f"| median of records, largest over all splices | {np.median(over[:, 0]):.0f} | {np.median(over[:, 1]):.0f} |")
    worst, mean = ratio.max(axis=0), share.mean(axis=0)
    print(f"| largest over all splices / donor's own largest, worst record | {worst[0]:.2f} | {worst[1]:.2f} |")
    print(f"| splices above the donor's own largest outside QRS, mean of records | {mean[0]:.4%} | {mean[1]:.4%} |")
    print()


# Repetition -----------------------------------------------------------------------------------------------------------


def repetition(records: list[Record], bank) -> None:
    """Highest normalised correlation, eight leads at once, of two windows that begin at R peaks and do not overlap."""
    tens = [highest(one.ecg[list(MODELLED_INDEX)], one.beats, 10 * one.fs_hz) for one in records]
    chance = np.random.default_rng(0)
    short, real = [], []
    for one in records:
        for start in chance.integers(0, one.ecg.shape[1] - 1000, size=30):
            beats = one.beats[(one.beats >= start) & (one.beats < start + 1000)] - start
            short.append(highest(one.ecg[list(MODELLED_INDEX), start : start + 1000], beats, 3 * one.fs_hz))
    for row in range(len(bank.table)):
        ecg = bank.skeleton[row].astype(float) + bank.texture[row]
        real.append(highest(low_pass(ecg, 40, bank.table.fs_hz), bank.beats(row), 3 * bank.table.fs_hz))
    short, real = (np.array([x for x in found if np.isfinite(x)]) for found in (short, real))
    hours = records[0].ecg.shape[1] / records[0].fs_hz / 3600
    print("| highest correlation of two windows | median | 90th percentile | highest |\n|---|---|---|---|")
    for name, x in ((f"10 s, within a record of {hours:g} h (a donor tiled: 1.0000)", np.array(tens)),
                    ("3 s, within 10 s of these records", short),
                    ("3 s, within real records of 10 s (all donors)", real)):  # fmt: skip
        print(f"| {name} | {np.median(x):.4f} | {np.percentile(x, 90):.4f} | {x.max():.4f} |")
    print()


# Variability ----------------------------------------------------------------------------------------------------------


def variability(records: list[Record]) -> None:
    """Against what healthy people show who wear a Holter: five-minute SDNN and LF/HF whatever the age, RMSSD by age."""
    print(
        "| label | age | rate | SDNN of 5 min, ms | RMSSD, ms (published for the age) | LF/HF | 1/f slope | CV of RR | RR lag-1 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for one in records:
        measured = measure_hrv(one.beats / one.fs_hz, one.symbol)
        rr, age = np.diff(one.beats), 50.0 if one.age is None else one.age
        ranges = {"sdnn_index_ms": RANGES_24_H["sdnn_index_ms"], "rmssd_ms": rmssd_range(age), "lf_hf": RANGES_24_H["lf_hf"]}
        marks = {name: "" if held.holds(getattr(measured, name)) else "*" for name, held in ranges.items()}
        low, high = ranges["rmssd_ms"].low, ranges["rmssd_ms"].high
        cells = (
            one.label, f"{age:.0f}", f"{measured.mean_hr_bpm:.0f}", f"{measured.sdnn_index_ms:.0f}{marks['sdnn_index_ms']}",
            f"{measured.rmssd_ms:.1f}{marks['rmssd_ms']} ({low} to {high})", f"{measured.lf_hf:.2g}{marks['lf_hf']}",
            f"{measured.slope:.2f}", f"{rr.std() / rr.mean():.3f}", f"{np.corrcoef(rr[1:], rr[:-1])[0, 1]:.2f}",
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |")
    print("\n`*`: outside the published range of healthy people (docs/evidence/rhythm.md).\n")


# Texture --------------------------------------------------------------------------------------------------------------


def texture(path: Path, count: int) -> None:
    """SD of texture by ten seconds and its spectrum: the state carried on, as the stream gives it out, and real."""
    import torch
    from matplotlib.figure import Figure
    from scipy.signal import welch

    from ecg_batch import draws
    from ecg_batch.bundled import BUNDLED
    from ecg_batch.models import decode
    from ecg_batch.request.parse import parse_request
    from ecg_batch.settings import Written
    from ecg_batch.synthesis.long.texture_stream import TextureStream

    models, bank = decode.load_models(BUNDLED), read_bank(BUNDLED)
    records, seconds = np.arange(count), 120
    asked = {"records": count, "duration_s": 120, "batch": count, "mix": {"labels": {"NORM": 1}}}
    asked |= {"texture": "decoded", "alpha": 0.6, "prd_limit_pct": 10, "lowpass_hz": 40}
    request = parse_request(Written(asked, "benchmark"), Path())
    conditions = decode.conditions_of(models, ["NORM"] * count, [["NORM"]] * count)
    uniforms = torch.from_numpy(draws.uniforms(0, records, draws.Stream.TOKENS, 25 * seconds))
    tokens = decode.sample_tokens(models, conditions, uniforms)
    raw = decode.decode_texture(models, tokens, decode.draw_noise(models, 0, records, 25 * seconds))
    stream = TextureStream(request, models, records, conditions)
    kinds = {"carried on as it is": 1000 * raw.numpy(), "as the stream gives it": 1000 * np.stack(stream.next(100 * seconds))}
    real = bank.texture.astype(float)
    figure = Figure(figsize=(11, 3.6))
    left, right = figure.subplots(1, 2)
    print("| texture, SD in 10 s, uV | first 10 s | 10 to 20 s | 20 to 30 s | 60 to 120 s | median record, 60 to 120 s |")
    print("|---|---|---|---|---|---|")
    for name, x in kinds.items():
        sd = np.sqrt(x.reshape(count, 8, -1, 1000).var(axis=3).mean(axis=1))  # (record, window)
        whole = np.sqrt(np.square(sd).mean(axis=0))
        cells = (*whole[:3], np.sqrt(np.square(whole[6:]).mean()), np.median(sd[:, 6:]))
        print(f"| {name} | {' | '.join(f'{cell:.0f}' for cell in cells)} |")
        left.plot(10 * np.arange(len(whole)) + 5, whole, marker="o", label=name)
        frequency, power = welch(x[..., 3000:], 100, nperseg=1000)
        right.loglog(frequency[1:], np.median(power.mean(axis=1), axis=0)[1:], label=name)
    own = np.sqrt(real.var(axis=2).mean(axis=1))
    print(f"| real ({len(real):,} donors) | {np.sqrt(np.square(own).mean()):.0f} | | | | {np.median(own):.0f} |\n")
    left.axhline(np.sqrt(np.square(own).mean()), color="k", linestyle="--", label="real, 10 s")
    frequency, power = welch(real, 100, nperseg=1000)
    right.loglog(frequency[1:], np.median(power.mean(axis=1), axis=0)[1:], "k--", label="real")
    left.set(xlabel="time in the record, s", ylabel="SD within 10 s, uV", ylim=(0, None))
    right.set(xlabel="Hz", ylabel="uV2/Hz, typical record", ylim=(1e-2, 1e5))
    left.legend()
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
