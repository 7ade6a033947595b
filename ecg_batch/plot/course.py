"""Course: what comes and goes in a long record, by its annotations: rhythms, ST episodes, activity, noise; a lane for each."""

from dataclasses import dataclass

import numpy as np

from ecg_batch.dataset.beats import RHYTHM
from ecg_batch.rhythm_words import RHYTHMS

LANE_MM, LANES_HEAD_MM = 4.0, 11.0
THINNEST = 0.0012  # of the axis: what is shorter is drawn so wide, else a run would not be seen in a day
COLOURS = {
    "(AFIB": "#8e44ad", "(AFL": "#a569bd", "(VT": "#c0392b", "(IVR": "#d9705f", "(B": "#e08e79", "(T": "#e6ab9c",
    "(SVTA": "#d98a00", "(AB": "#e8b04b", "(NOD": "#8a6d3b", "ST episode": "#2874a6", "activity": "#2e8b57", "noise": "#999999",
}  # fmt: skip
SHORT = {"(N": "sinus rhythm", "(AB": "atrial bigeminy", "(AFIB": "atrial fibrillation", "(AFL": "atrial flutter",
         "(SVTA": "SV tachycardia", "(NOD": "junctional rhythm", "(PREX": "pre-excitation", "(B": "V bigeminy", "(T": "V trigeminy",
         "(IVR": "idioventricular", "(VT": "V tachycardia", "(BI": "AV block I", "(BII": "AV block II", "(BIII": "AV block III",
         "(P": "paced rhythm"}  # fmt: skip
USUAL = "#33506e"
ENDS = {"activity": "activity ends", "noise": "noise ends"}


@dataclass(frozen=True)
class Lane:
    """name: in words; colour; spans: (start, stop) in seconds, by time."""

    name: str
    colour: str
    spans: list[tuple[float, float]]

    def facts(self) -> str:
        """How many, and how long together."""
        whole_s = round(sum(stop - start for start, stop in self.spans))
        long = f"{whole_s // 3600} h {whole_s // 60 % 60} min" if whole_s >= 3600 else f"{whole_s // 60} min {whole_s % 60} s"
        return f"{len(self.spans)}, {long if whole_s >= 60 else f'{whole_s} s'}"


def rhythms_in(sample: np.ndarray, symbol: np.ndarray, aux: np.ndarray, fs_hz: float) -> list[tuple[float, str]]:
    """(seconds, WFDB's word) of where each rhythm begins, by annotations (row,)."""
    return [(at / fs_hz, word) for at, word in zip(sample[symbol == RHYTHM].tolist(), aux[symbol == RHYTHM].tolist(), strict=True)]


def lanes_in(sample: np.ndarray, symbol: np.ndarray, aux: np.ndarray, fs_hz: float, last_s: float) -> list[Lane]:
    """Rhythms that are not the record's own, and what comes over them; by annotations (row,)."""
    found = stretches_of(rhythms_in(sample, symbol, aux, fs_hz), last_s)
    spans = {word: each for word, each in found.items() if word != next(iter(found), None)}
    said = list(zip((sample / fs_hz).tolist(), aux.tolist(), strict=True))
    begins = {"ST episode": lambda text: text.startswith("(ST"), "activity": lambda text: text == "activity",
              "noise": lambda text: text.startswith("noise ") and text != ENDS["noise"]}  # fmt: skip
    ends = {"ST episode": lambda text: text.startswith("ST"), **{name: ENDS[name].__eq__ for name in ENDS}}
    for name in begins:
        spans[name] = _paired(said, begins[name], ends[name], last_s)
    return [Lane(SHORT.get(name, name), COLOURS.get(name, USUAL), each) for name, each in spans.items() if each]


def stretches_of(rhythms: list[tuple[float, str]], last_s: float) -> dict[str, list[tuple[float, float]]]:
    """Of each rhythm its spans, the record's own first."""
    found: dict[str, list[tuple[float, float]]] = {}
    for (start, word), (stop, _) in zip(rhythms, [*rhythms[1:], (last_s, "")], strict=True):
        found.setdefault(word, []).append((start, stop))
    return found


def _paired(said, begins, ends, last_s: float) -> list[tuple[float, float]]:
    found, start = [], None
    for at, text in said:
        if begins(text) or ends(text):
            if start is not None:
                found.append((start, at))
            start = at if begins(text) else None
    return [*found, (start, last_s)] if start is not None else found


def in_own_rhythm(r_s: np.ndarray, rhythms: list[tuple[float, str]]) -> np.ndarray:
    """Which beats (beat,) lie in the rhythm with which the record begins."""
    if not rhythms:
        return np.ones(len(r_s), bool)
    starts, words = zip(*rhythms, strict=True)
    at = np.searchsorted(np.array(starts), r_s, side="right") - 1
    return np.array(words)[np.maximum(at, 0)] == words[0]


def draw_lanes(axes, lanes: list[Lane], own: str, last_s: float) -> None:
    """A row for each lane, its name on the left, how many and how long on the right."""
    for row, lane in enumerate(lanes):
        bars = [(start, max(stop - start, THINNEST * last_s)) for start, stop in lane.spans]
        axes.broken_barh(bars, (len(lanes) - row - 0.85, 0.7), color=lane.colour, linewidth=0)
        axes.text(1.004, (len(lanes) - row - 0.5) / len(lanes), lane.facts(), fontsize=6.5, va="center", transform=axes.transAxes)
        axes.axhline(len(lanes) - row - 0.5, color="#e5e5e5", linewidth=0.5, zorder=0)
    axes.set_yticks(np.arange(len(lanes)) + 0.5, [lane.name for lane in reversed(lanes)], fontsize=6.5)
    axes.set(xlim=(0, 1.002 * last_s), ylim=(0, len(lanes)), xticks=[])
    axes.tick_params(axis="y", length=0)
    title = f"What comes to its own rhythm, which is {RHYTHMS.get(own, own)}; on the right how often, and how long together"
    axes.set_title(title, fontsize=9, loc="left", pad=3)
