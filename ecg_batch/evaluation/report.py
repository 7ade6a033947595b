"""The whole evaluation: sections in order, the bars, the first lines, report.json and report.html."""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.plan import read_plan
from ecg_batch.donors.bank import read_bank
from ecg_batch.evaluation import figures as evaluate_figures
from ecg_batch.evaluation import sections as evaluate
from ecg_batch.evaluation.labelled import CHOICE_FOLD, TEST_FOLD, TRAIN_FOLDS, from_ptbxl
from ecg_batch.evaluation.page import write_page
from ecg_batch.evaluation.sets import Sets, Settings, read_sets, refuse_leak
from ecg_batch.evaluation.two_sample_rows import (
    AS_THEY_ARE,
    FAIR,
    GAUSSIAN,
    LEAST_TOLD,
    REAL,
    in_windows,
    sides_of,
    two_sample_section,
)
from ecg_batch.evaluation.usefulness_rows import CANDIDATES, usefulness_section
from ecg_batch.files import sha256_file, to_json
from ecg_batch.progress import progress, track
from ecg_batch.reading.synthetic import open_dataset

PTBXL_S = 10
PUBLISHED_GAIN = 0.022  # class-wise mean macro F1 of the published system, 0.726 -> 0.748


def evaluate_dataset(
    folder: Path, ptbxl: Path, out: Path, settings: Settings, skip: tuple[str, ...] = (), judges: Path = BUNDLED
) -> dict:
    """Writes OUT/report.json and OUT/report.html and returns the report.

    skip: names of sections to leave out; judges: the folder of judge.safetensors and encoder.safetensors. Of longer records than
    PTB-XL's only the two-sample test is made.
    """
    started, dataset, plan = time.monotonic(), open_dataset(folder), read_plan(folder)
    out.mkdir(parents=True, exist_ok=True)
    real = from_ptbxl(ptbxl, plan.request.fs_hz)
    settings = settings.of(real)
    bank = read_bank(Path(plan.request.bank))
    if plan.request.duration_s != PTBXL_S:
        windows = in_windows(dataset, settings.records)
        refuse_leak(folder, windows, real.in_folds(CHOICE_FOLD), real.in_folds(TEST_FOLD))
        report = {"two-sample test": two_sample_section(sides_of(windows, real), bank, out, settings, plan.run_id)}
        splits = [real.in_folds(*folds) for folds in (TRAIN_FOLDS, (CHOICE_FOLD,), (TEST_FOLD,))]
        report["made with"] = of_sets(folder, plan, ptbxl, len(windows), splits, settings, time.monotonic() - started)
        return _judged(report, {}, out)
    sets = read_sets(folder, real, settings, lambda batches: track(batches, "ablations", "batches"))
    nets = evaluate.networks(judges)
    encoder = nets["encoder"][0]
    sections: dict[str, Callable[[], dict]] = {
        "judge": lambda: evaluate.judge_section(sets, nets),
        "fidelity": lambda: evaluate.fidelity_section(sets, encoder, settings, sha256_file(judges / "encoder.safetensors")),
        "distortion": lambda: evaluate.distortion_section(sets, encoder),
        "clinical validity": lambda: evaluate.validity_section(sets, settings),
        "diversity and privacy": lambda: evaluate.privacy_section(sets, encoder, settings),
        "two-sample test": lambda: two_sample_section(sides_of(sets.made, real), bank, out, settings, plan.run_id),
        "refinement": lambda: evaluate.refinement_section(plan, nets, folder),
        "usefulness": lambda: usefulness_section(sets, out, settings, plan.run_id),
    }
    report = {"gallery": {"what": "Records of the dataset, the same without variation, and their donors; none picked by hand."}}
    with progress(len(sections), "evaluation", "sections") as shown:
        for name, section in sections.items():
            shown.note = name
            if name not in skip:
                report[name] = section()
            shown.update()
    splits = [sets.train, sets.choice, sets.test]
    report["made with"] = of_sets(folder, plan, ptbxl, len(sets.made), splits, settings, time.monotonic() - started)
    return _judged(report, draw(report, sets), out)


def _judged(report: dict, figures: dict[str, bytes], out: Path) -> dict:
    report["bars"] = bars(report)
    report["first lines"] = first_lines(report)
    if "two-sample test" in report:
        figures["two-sample test"] = evaluate_figures.told(report["two-sample test"]["rows"])
    return written(report, figures, out)


def written(report: dict, figures: dict[str, bytes], out: Path) -> dict:
    (out / "report.json").write_bytes(to_json(without_nan(report)))
    write_page(out / "report.html", report, figures)
    return report


def without_nan(value):
    """null for what could not be measured: NaN is no JSON."""
    if isinstance(value, dict):
        return {str(name): without_nan(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(held) for held in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def of_sets(folder: Path, plan, ptbxl: Path, used_records: int, splits: list, settings: Settings, wall_s: float) -> dict:
    sizes = {"PTB-XL": str(ptbxl), "synthetic records used": used_records,
             "real records (folds 1-8, 9, 10)": ", ".join(str(len(part)) for part in splits)}  # fmt: skip
    return made_with(folder, plan, settings, wall_s) | sizes


def made_with(folder: Path, plan, settings, wall_s: float) -> dict:
    """settings: a dataclass."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "dataset": str(folder), "run id": plan.run_id,
        "settings": ", ".join(f"{name} {value}" for name, value in asdict(settings).items()),
        "software": ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "scikit-learn")),
        "CPU seconds": round(sum(one.ru_utime + one.ru_stime for one in used)), "wall seconds": round(wall_s),
    }  # fmt: skip


def bars(report: dict) -> list[dict]:
    """What is asked of a dataset, what was found, whether it is met. What was not measured has no row."""
    rows = [bar("patients of folds 9 and 10 among donors or training data", "none", "none (else refused)", True)]
    if "fidelity" in report:
        row = report["fidelity"]["rows"]["synthetic"]
        ratio, found = (
            row["ratio to floor"],
            "{ratio to floor:.2f} (draws: {lowest ratio:.2f} to {highest ratio:.2f})".format(**row),
        )
        rows.append(bar("Frechet distance over real-against-real floor", "at most 2", found, ratio <= 2))
    if "clinical validity" in report:
        prd = report["clinical validity"]["PRD against the skeleton, %"]
        largest, limit = prd["largest"], prd["limit"]
        if limit is not None:
            rows.append(bar("PRD against the skeleton, every record", f"at most {limit:g} %", f"{largest:.3f} %", largest <= limit))
    if "two-sample test" in report:
        rows += told_bars(report["two-sample test"]["rows"])
    if "usefulness" in report:
        held = report["usefulness"]
        alone = held["synthetic alone against its donors"]["gain"]["AUROC"]
        what = "synthetic alone against real training on the same donors, AUROC"
        rows.append(bar(what, "at least -0.01", span(alone), alone[0] >= -0.01))
        rows += [gain_bar(name, held) for name in CANDIDATES]
        rows += [bar(f"macro F1 of rare statements, first rare synthetic, then real, over {other}", "interval above 0",
                     span(gain["F1"]), gain["F1"][1] > 0) for other, gain in held["rare synthetic against"].items()]  # fmt: skip
    return rows


def told_bars(told: dict) -> list[dict]:
    """Whether a network tells the records from real ones, beside whether it would."""
    wanted = {FAIR: 0.56, AS_THEY_ARE: 0.60}
    rows = [bar(f"two-sample test, {name}, AUC", f"at most {most}", _auc(told[name]), told[name]["AUC"] <= most)
            for name, most in wanted.items()]  # fmt: skip
    strong = told[GAUSSIAN]["AUC"] >= LEAST_TOLD and abs(told[REAL]["AUC"] - 0.5) <= 0.1
    found = f"{_auc(told[GAUSSIAN])}; {_auc(told[REAL])}"
    return [*rows, bar(f"its strength: {GAUSSIAN}; {REAL}", f"at least {LEAST_TOLD}; 0.5 within 0.1", found, strong)]


def _auc(told: dict) -> str:
    return "{:.3f} ({:.3f} to {:.3f})".format(told["AUC"], *told["interval"])


def gain_bar(name: str, held: dict) -> dict:
    """Met where the gain is large enough, its interval excludes 0, and no baseline that costs nothing does as well."""
    gain, over = held["rows"][name]["gain"]["F1"], held["against it"][name]["gain"]["F1"]
    met = gain[0] >= PUBLISHED_GAIN and gain[1] > 0 and over[0] > 0
    found = f"{span(gain)}; over {held['best cheap baseline']}: {span(over)}"
    wanted = f"at least +{PUBLISHED_GAIN}, interval without 0, above every cheap baseline"
    return bar(f"macro F1 gain of {name} over real alone", wanted, found, met)


def bar(what: str, wanted: str, found: str, met: bool) -> dict:
    return {"what": what, "bar": wanted, "found": found, "met": bool(met)}


def span(values: list[float], digits: int = 3) -> str:
    return "{:+.{d}f} ({:+.{d}f} to {:+.{d}f})".format(*values, d=digits)


def first_lines(report: dict) -> list[str]:
    """The verdict in words, the unwelcome first."""
    if "usefulness" not in report:
        left_out = "Usefulness was not measured in this run."
        windows = "Of records longer than PTB-XL's ten seconds, windows of ten seconds were held against their donors' recordings."
        return [left_out] if "gallery" in report else [windows, left_out]
    held, lines = report["usefulness"], []
    rows, cheap = held["rows"], held["best cheap baseline"]
    best = max(CANDIDATES, key=lambda name: rows[name]["F1"][0])
    met = any(bar["met"] for bar in report["bars"] if bar["what"].startswith("macro F1 gain"))
    lines.append(
        f"{'The bar is met' if met else 'Synthetic records do not reach the bar here'}: the best row ({best}) has macro F1 "
        f"{rows[best]['F1'][0]:.3f}, {span(rows[best]['gain']['F1'])} over real alone and "
        f"{span(held['against it'][best]['gain']['F1'])} over the best baseline that costs nothing ({cheap}); macro AUROC "
        f"{span(rows[best]['gain']['AUROC'])} over real alone."
    )
    gains = [f"{what}: {span(gain['AUROC'])} AUROC" for what, gain in held["texture"].items()]
    beats = all(gain["AUROC"][1] > 0 for gain in held["texture"].values())
    lines.append(f"Generated texture {'; '.join(gains)}. {'' if beats else 'The texture does not beat the cheap baselines here.'}")
    return lines


def draw(report: dict, sets: Sets) -> dict[str, bytes]:
    figures = {"gallery": evaluate_figures.gallery(sets.made, sets.train, sets.rows, sets.variants["no variation"])}
    held_out = np.concatenate([sets.choice.ecg, sets.test.ecg])
    spectra = {"held-out": held_out, "real": sets.train.ecg[: len(held_out)], "synthetic": sets.made.ecg[: len(held_out)]}
    figures["spectra"] = evaluate_figures.spectra(spectra, sets.made.fs_hz)
    if "judge" in report:
        figures["judge"] = evaluate_figures.judge(report["judge"])
    if "clinical validity" in report:
        figures["intervals"] = evaluate_figures.intervals(report["clinical validity"]["measures"])
    if "usefulness" in report:
        rows = report["usefulness"]["rows"] | report["usefulness"]["on the few folds"]
        figures["low data"], figures["alpha sweep"] = evaluate_figures.low_data(rows), evaluate_figures.alpha_sweep(rows)
    return figures
