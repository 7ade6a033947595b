"""The figure and the tables of docs/evidence/events.md: one of each event, as often as asked, and what they cost.

python -m benchmarks.events figure --out docs/figures/events.png    twelve seconds with each event
python -m benchmarks.events rates [--records 16] [--seconds 3600]   events found in the annotations beside those asked
python -m benchmarks.events places [--records 40]                   how far events are from their places, and rates from those asked
python -m benchmarks.events cost [--records 32] [--seconds 480]     seconds an hour of one process without and with events
python -m benchmarks.events ablation --mitdb DIR [--out FOLDER]     configs/beats.yaml without one element after the other
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.noise import opened
from ecg_batch.dataset.beats import BEAT_SYMBOLS, LONE_P, RHYTHM
from ecg_batch.draws import Stream, generator
from ecg_batch.leads import LEADS, MV_PER_UV
from ecg_batch.request.events import KINDS, OVERLAYS
from ecg_batch.request.model import Distribution, Event
from ecg_batch.request.places import Place
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.synthesis.long.batch import LongBatch
from ecg_batch.synthesis.long.beat_times import WITHIN_BPM
from ecg_batch.synthesis.long.events.patient import RHYTHM_OF_EVENT, Asked, Host, drawn_habits
from ecg_batch.synthesis.long.events.write_order import FROM_BEAT_BEFORE, write_order
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm

SHOWN_S, LEAD, SECONDS = 12, "II", 300
MIX = {"labels": {"NORM": 1.0}, "hr_bpm": {"uniform": [60, 80]}}
# By which annotation an event is found where it begins no rhythm: symbols of the beats of one, or a pause.
SIGN = {"v_beat": "V", "v_interpolated": "V", "fusion_beat": "F", "v_couplet": "VV", "sv_beat": "Aa", "sv_couplet": "AA",
        "sv_blocked": LONE_P, "branch_block": "B"}  # fmt: skip
LENGTH = {"beats": 8, "s": 20, "": None}
LENGTH_PLACED = {"beats": 6.0, "s": 20.0, "": None}
SEEDS = {"v_run": 4, "flutter": 2, "sv_couplet": 3}  # with which it is seen well in the lead that is shown


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("figure", "rates", "places", "cost", "ablation"))
    parser.add_argument("--records", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--out", type=Path, default=Path("events.png"))
    parser.add_argument("--mitdb", type=Path, help="of MIT-BIH recordings")
    arguments = parser.parse_args(words)
    if arguments.part == "figure":
        figure(arguments.out)
    elif arguments.part == "ablation":
        ablation(arguments.mitdb, arguments.out)
    elif arguments.part == "rates":
        rates(arguments.records or 16, arguments.seconds or 3600)
    elif arguments.part == "places":
        placed(arguments.records or 40)
    else:
        cost(arguments.records or 32, arguments.seconds or 480)


def made(asked: dict):
    """(ecg int16 (record, 12, time), annotations of each record as data frames, begun records)."""
    synthesizer, queries_of = opened(asked)
    batch = LongBatch(synthesizer, queries_of(0, asked["records"]), lambda done: None)
    ecg = np.concatenate(list(batch.blocks()), axis=-1)
    return ecg, [table.to_pandas() for table in batch.tables(0)[1]]


def event_of(name: str, per_hour: float) -> dict:
    length = 2.6 if name == "pause" else LENGTH[KINDS[name].unit]
    return {name: {"per_hour": per_hour, "share": 1.0} | ({} if length is None else {"length": length})}


def places(name: str, rows, fs_hz: int) -> np.ndarray:
    """Samples at which an event of this name begins, by the annotations of a record."""
    sample, beats = rows["sample"].to_numpy(), rows.symbol.isin(BEAT_SYMBOLS).to_numpy()
    if name in RHYTHM_OF_EVENT:
        return sample[(rows.symbol == RHYTHM) & (rows.aux == RHYTHM_OF_EVENT[name])]
    if name in OVERLAYS:  # where an ST episode is highest
        return sample[rows.aux.str.startswith("AST") if name == "st_episode" else rows.aux == name]
    if name == "sv_blocked":
        return sample[rows.symbol == LONE_P]
    r, symbol = sample[beats], rows.symbol.to_numpy()[beats]
    if name == "pause":
        return r[:-1][np.diff(r) > 1.8 * fs_hz]
    if name == "sinus_arrhythmia":
        rr = np.diff(r)
        return r[1:-1][np.abs(np.diff(rr)) > 0.1 * rr.mean()][:1]
    ours = np.isin(symbol, list(SIGN[name]))
    begins = np.flatnonzero(ours & ~np.append(False, ours[:-1]))
    return r[begins]


def rates(records: int, seconds: int) -> None:
    """Each event by itself, found in the annotations."""
    hours = records * seconds / 3600
    print(f"| event | asked an hour | found an hour, in {hours:g} h |\n|---|---|---|")
    for name in KINDS:
        if name in ("sinus_arrhythmia", "branch_block"):
            continue  # several in a row, or none by the annotations alone
        asked = 6.0 if KINDS[name].unit == "s" else 30.0
        request = {"records": records, "duration_s": seconds, "seed": 3, "mix": MIX, "events": event_of(name, asked)}
        found = sum(len(places(name, rows, 100)) for rows in made(request)[1])
        print(f"| `{name}` | {asked:g} | {found / hours:.1f} |", flush=True)


BESIDE = (Event("v_beat", Distribution(60, 60), None, 1.0), Event("sv_run", Distribution(10, 10), Distribution(3, 30), 1.0),
          Event("fibrillation", Distribution(2, 2), Distribution(60, 60), 1.0))  # fmt: skip


def placed(records: int) -> None:
    """Sinus rhythm of 45 to 110 bpm, one event of any kind about each two minutes."""
    print("| records | places | latest, in RR | mean rate off by, at most | under 0.05 bpm |\n|---|---|---|---|---|")
    for duration_s, count in ((600, records), (3600, records), (86_400, max(records // 20, 1))):
        for beside in ((), BESIDE):
            late, off = zip(*(_found(record, 45 + 65 * record / count, duration_s, beside) for record in range(count)), strict=True)
            late, off = np.concatenate(late), np.array(off)
            what = f"{count} of {duration_s:,} s, {'others by chance too' if beside else 'alone'}"
            met = 100 * (off < WITHIN_BPM).mean()
            print(f"| {what} | {len(late):,} | {late.max():.2f} | {off.max():.2f} bpm | {met:.0f} % |", flush=True)


def _found(record: int, bpm: float, duration_s: int, beside: tuple[Event, ...]) -> tuple[np.ndarray, float]:
    """(how late each placed event begins, in the longest RR within 4 s; how far the mean rate is off) of one record."""
    lot, names = np.random.default_rng(record), [name for name in KINDS if name not in OVERLAYS]
    at = np.arange(20, duration_s - 100, 120) + lot.uniform(0, 20, len(np.arange(20, duration_s - 100, 120)))
    chosen = [names[at] for at in lot.integers(len(names), size=len(at))]
    asked = Asked(beside, {event.name: event.per_hour.low for event in beside},
                  tuple(Place(None, name, float(time_s), LENGTH_PLACED[KINDS[name].unit] if name != "pause" else 2.5)
                        for name, time_s in zip(chosen, at, strict=True)),
                  lambda place: generator(4, record, Stream.PLACES, 1 + place))  # fmt: skip
    habits, p = drawn_habits(generator(4, record, Stream.EVENTS)), RhythmParameters()
    host = Host(sinus=True, fibrillation=False, pr_s=0.16, rhythm="(N", ectopic={})

    def order_of(rr_s, first):
        return write_order(p, host, habits, asked, rr_s, 60 / bpm, duration_s, generator(4, record, Stream.EVENTS, 1), first)

    rhythm = make_rhythm(p, DonorRhythm(bpm), bpm, duration_s, generator(4, record, Stream.LONG_RHYTHM), None, order_of, True)
    r_s, rr = rhythm.r_s, np.diff(rhythm.r_s)
    begun = [(r_s[beat - (name in FROM_BEAT_BEFORE)], name) for beat, name in rhythm.order.events if beat < len(r_s)]
    late = [min(time_s - one.start_s for time_s, name in begun if name == one.event and time_s >= one.start_s)
            / rr[(r_s[1:] > one.start_s - 4) & (r_s[1:] < one.start_s + 4)].max() for one in asked.places]  # fmt: skip
    return np.array(late), abs(60 / rr.mean() - bpm)


def cost(records: int, seconds: int) -> None:
    """In turns; the median of five."""
    plain = {"records": records, "duration_s": seconds, "seed": 3, "batch": records, "mix": MIX}
    kinds, took = {"without events": plain, "`events: {}`": plain | {"events": {}}}, {}
    ready = {name: opened(asked) for name, asked in kinds.items()}
    for _ in range(5):
        for name, (synthesizer, queries_of) in ready.items():
            began = time.perf_counter()
            for _ in LongBatch(synthesizer, queries_of(0, records), lambda done: None).blocks():
                pass
            took.setdefault(name, []).append(time.perf_counter() - began)
    print("| records | s an hour of twelve leads |\n|---|---|")
    for name, each in took.items():
        print(f"| {name} | {np.median(each) / (records * seconds / 3600):.3f} |")


WITHOUT = {
    "all": (), "supraventricular runs, couplets, bigeminy": ("sv_run", "sv_couplet", "sv_bigeminy"),
    "ventricular runs, couplets, bigeminy, trigeminy": ("v_run", "v_couplet", "v_bigeminy", "v_trigeminy", "idioventricular"),
    "paroxysms of fibrillation and flutter": ("fibrillation", "flutter"), "sinus arrhythmia": ("sinus_arrhythmia",),
    "blocked, junctional, pauses, AV blocks": ("sv_blocked", "junctional", "pause", "av_block_1", "wenckebach", "mobitz"),
    "bundle branch block, pre-excitation that come and go": ("branch_block", "pre_excitation"),
    "interpolated and fusion beats": ("v_interpolated", "fusion_beat"), "changes of posture": ("posture",), "noise": ("noise",),
}  # fmt: skip


def ablation(mitdb: Path, out: Path) -> None:
    """F1 of V and S in these recordings of networks that each learned from the request without one element; two trainings each.

    Datasets and weights stay in FOLDER; those that are there are not made again.
    """
    from ecg_batch.cli.main import main as command
    from ecg_batch.evaluation.beats.classifier import kinds_of
    from ecg_batch.evaluation.beats.compare import SYNTHETIC, BeatSettings, Job, by_network, trained
    from ecg_batch.evaluation.beats.features import seen
    from ecg_batch.evaluation.beats.recordings import read_recording
    from ecg_batch.evaluation.beats.scores import confusion, of_class
    from ecg_batch.evaluation.waves.marked import names_in
    from ecg_batch.evaluation.waves.scores import f1

    settings = BeatSettings(seeds=2, workers=1)
    recordings = [read_recording(mitdb, name) for name in names_in(mitdb, "atr", None)]
    sights, truths = [seen(each.lead, each.r) for each in recordings], [kinds_of(each.symbol) for each in recordings]
    print("| without | V F1 | S F1 | S F1 without the recording of most |\n|---|---|---|---|", flush=True)
    for at, (name, keys) in enumerate(WITHOUT.items()):
        dataset = out / f"without-{at}"
        if not dataset.exists():
            gone = [f"{key}=null" if key == "noise" else f"events.{key}=null" for key in keys]
            options = ["--set", *gone] if gone else []
            if command(["synthesize", "configs/beats.yaml", "--out", str(dataset), "--workers", "1", *options]):
                raise SystemExit(f"{dataset}: not made")
        jobs = [Job(f"without-{at}-{seed}", SYNTHETIC, dataset, settings, seed) for seed in range(settings.seeds)]
        models = trained(jobs, out)
        found = np.array([[confusion(truth, by_network(models[job.name], sight))
                           for truth, sight in zip(truths, sights, strict=True)] for job in jobs])  # fmt: skip
        most = int(found[0].sum(axis=2)[:, 1].argmax())
        cells = [f1(of_class(found.sum(axis=(0, 1)), "V")), f1(of_class(found.sum(axis=(0, 1)), "S")),
                 f1(of_class(np.delete(found, most, axis=1).sum(axis=(0, 1)), "S"))]  # fmt: skip
        print(f"| {name if keys else 'nothing'} | " + " | ".join(f"{float(cell):.3f}" for cell in cells) + " |", flush=True)


def figure(path: Path) -> None:
    """Twelve seconds of lead II about the beginning of each event, with the annotations."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(13, 1.02 * len(KINDS)), dpi=80)
    panels = page.subplots(len(KINDS), 1)
    for axes, name in zip(panels, KINDS, strict=True):
        request = {"records": 4, "duration_s": SECONDS, "seed": SEEDS.get(name, 1), "mix": MIX, "events": event_of(name, 40)}
        request["events"][name]["per_hour"] = 20 if KINDS[name].unit == "s" else 60
        ecg, tables = made(request)
        at = next((record, places_of[0]) for record, rows in enumerate(tables)
                  if len(places_of := _inside(places(name, rows, 100))))  # fmt: skip
        strip(axes, name, ecg[at[0]], tables[at[0]], max(int(at[1]) - 400, 0))
    page.subplots_adjust(0.005, 0.005, 0.995, 0.995, hspace=0.06)
    page.savefig(path)
    print(f"written: {path}")


def _inside(places_of: np.ndarray) -> np.ndarray:
    return places_of[(places_of > 500) & (places_of < 100 * (SECONDS - 15))]


def strip(axes, name: str, ecg: np.ndarray, rows, start: int) -> None:
    """Twelve seconds from a sample on: 25 mm/s in its proportions, with a grid of 0.2 s and 0.5 mV."""
    time_s = np.arange(SHOWN_S * 100) / 100
    lead = ecg[LEADS.index(LEAD), start : start + len(time_s)] * MV_PER_UV
    lead = lead - np.median(lead)
    for value in np.arange(0, SHOWN_S + 0.01, 0.2):
        axes.axvline(value, color="#f3d5d5", linewidth=0.5)
    for value in np.arange(-1.5, 2.6, 0.5):
        axes.axhline(value, color="#f3d5d5", linewidth=0.5)
    axes.plot(time_s, np.clip(lead, -1.45, 2.0), color="#111111", linewidth=0.9)
    shown = rows[(rows["sample"] >= start) & (rows["sample"] < start + len(time_s) - 20)]
    for sample, symbol, aux in zip(shown["sample"], shown.symbol, shown.aux, strict=True):
        if symbol in (*BEAT_SYMBOLS, LONE_P):
            colour = "#33506e" if symbol == "N" else "#c0392b"
            axes.text((sample - start) / 100, -1.45, symbol, fontsize=8, ha="center", color=colour)
        elif symbol == RHYTHM or aux in ("posture", "activity") or aux.startswith(("AST", "(ST")):
            axes.text((sample - start) / 100, 1.2, aux, fontsize=8, ha="left", color="#2e8b57", weight="bold")
    axes.text(0.03, 1.9, f"{name}: {KINDS[name].meaning}", fontsize=9, weight="bold")
    axes.set(xlim=(0, SHOWN_S), ylim=(-1.6, 2.5), xticks=[], yticks=[])


if __name__ == "__main__":
    main()
