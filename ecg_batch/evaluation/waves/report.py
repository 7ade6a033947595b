"""The evaluation of waves: its sections, its bars, and report.json and report.html, as evaluation/report.py has them."""

import time
from pathlib import Path

from ecg_batch.dataset.plan import read_plan
from ecg_batch.errors import UserError
from ecg_batch.evaluation import figures
from ecg_batch.evaluation.report import bar, made_with, span, written
from ecg_batch.evaluation.waves.compare import LOSES, SYNTHETIC, WaveSettings, waves_section
from ecg_batch.evaluation.waves.peaks import CLEAN, XQRS, beats_section
from ecg_batch.request.model import LOOP_S

WAVES, BEATS = "waves in LUDB", "beats in MIT-BIH"
LEAST = {"macro F1": 0.985, "P": 0.965}
LEAST_CLEAN, AT, LEAST_NOISY, LEAST_OVER = 0.999, "0 dB", 0.97, 0.06


def evaluate_waves(
    folder: Path, out: Path, settings: WaveSettings, ludb: Path | None, mitdb: Path | None, ptbxl: Path | None = None,
    records: dict[str, list[str]] | None = None,
) -> dict:  # fmt: skip
    """Writes OUT/report.json and OUT/report.html and returns the report. ptbxl: where noise is taken from, for MIT-BIH.

    records: those of "ludb" and of "mitdb" that are used; all, where none is named.
    """
    started, plan, named = time.monotonic(), read_plan(folder), records or {}
    if plan.request.duration_s != LOOP_S:
        raise UserError(f"{folder}: records of {plan.request.duration_s} s; a network is taught by records of {LOOP_S} s here, "
                        "as configs/waves.yaml makes them")  # fmt: skip
    report: dict = {}
    if ludb:
        report[WAVES] = waves_section(folder, ludb, named.get("ludb"), out, settings)
    if mitdb:
        report[BEATS] = beats_section(folder, mitdb, ptbxl, named.get("mitdb"), out, settings)
    of = {"LUDB": ludb, "MIT-BIH": mitdb, "PTB-XL": ptbxl}
    report["made with"] = made_with(folder, plan, settings, time.monotonic() - started) | {k: str(v) for k, v in of.items() if v}
    report["bars"] = bars(report)
    report["first lines"] = first_lines(report)
    return written(report, drawn(report), out)


def bars(report: dict) -> list[dict]:
    """What is asked, what was found, whether it is met. What was not measured has no row."""
    rows = []
    if WAVES in report:
        held = report[WAVES]["rows"][SYNTHETIC]
        for name, least in LEAST.items():
            rows.append(bar(f"waves, {name}", f"at least {least}", _shown(held[name]), held[name][0] >= least))
        less = held["less copies"]
        rows.append(bar("waves, macro F1 less that of copies", f"interval from {-LOSES} up", span(less, 4), less[1] >= -LOSES))
    if BEATS in report:
        held = report[BEATS]["rows"][SYNTHETIC]
        for of, key in (("all leads", "F1"), ("first leads", "F1 of first leads")):
            clean = held[CLEAN][key]
            rows.append(bar(f"beats {CLEAN}, F1 of {of}", f"at least {LEAST_CLEAN}", _shown(clean, 5), clean[0] >= LEAST_CLEAN))
    if BEATS in report and AT in report[BEATS]["rows"][SYNTHETIC]:
        noisy, over = held[AT]["F1"], held[AT][f"less {XQRS}"]
        rows.append(bar(f"beats at {AT}, F1", f"at least {LEAST_NOISY}", _shown(noisy), noisy[0] >= LEAST_NOISY))
        rows.append(bar(f"beats at {AT}, F1 less that of {XQRS}", f"at least {LEAST_OVER}", span(over, 4), over[0] >= LEAST_OVER))
    return rows


def _shown(values: list[float], digits: int = 4) -> str:
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(*values, d=digits)


def first_lines(report: dict) -> list[str]:
    """The verdict in words."""
    missed = [one["what"] for one in report["bars"] if not one["met"]]
    verdict = f"Not met: {'; '.join(missed)}." if missed else "All bars are met."
    return [f"A network that has learned from the marks of synthetic records alone, held against people's marks. {verdict}"]


def drawn(report: dict) -> dict[str, bytes]:
    out = {}
    if WAVES in report:
        out["wave errors"] = figures.wave_errors(report[WAVES]["rows"])
    if BEATS in report and AT in report[BEATS]["rows"][SYNTHETIC]:
        out["beats in noise"] = figures.beats_in_noise(report[BEATS]["rows"])
    return out
