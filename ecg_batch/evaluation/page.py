"""The report as one page of HTML that opens offline: verdicts first, then every table with its figure inlined as PNG."""

import base64
import html
import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ecg_batch.statements import SUPERCLASSES

matplotlib.use("agg")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0;font-size:14px}"
    "td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}.yes{color:#176b2c}.no{color:#a11}p.note{color:#555}"
)


def write_page(path: Path, report: dict, figures: dict[str, bytes]) -> None:
    parts = [f"<!doctype html><meta charset=utf-8><title>Evaluation</title><style>{STYLE}</style>", "<h1>Evaluation</h1>"]
    parts += [f"<p>{html.escape(line)}</p>" for line in report["first lines"]]
    parts.append(facts_table(report))
    met = {True: "<b class=yes>yes</b>", False: "<b class=no>no</b>", None: "not measured"}
    rows = [[bar["what"], bar["bar"], bar["found"], met[bar["met"]]] for bar in report["bars"]]
    parts.append(table(["what it must show", "bar", "found", "met"], rows, raw_last=True))
    for title, section in SECTIONS.items():
        if title in report:
            parts += [f"<h2>{html.escape(title.capitalize())}</h2>", *section(report[title], figures)]
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def facts_table(report: dict) -> str:
    return table(["", ""], [[key, value] for key, value in report["made with"].items()])


def table(head: list[str], rows: list[list], raw_last: bool = False) -> str:
    """A table; numbers rounded, text escaped, but for the last column where it is our own markup."""
    cells = [[html.escape(show(cell)) for cell in row] for row in rows]
    if raw_last:
        cells = [[*escaped[:-1], row[-1]] for escaped, row in zip(cells, rows, strict=True)]
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
    return "<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + f"</tr>{body}</table>"


def show(value) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def span(values: list[float], digits: int = 3, sign: str = "") -> str:
    """0.882 (0.876 to 0.889)"""
    mean, low, high = values
    return f"{mean:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def image(figures: dict[str, bytes], name: str) -> str:
    if name not in figures:
        return ""
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(figures[name]).decode()}">'


def note(text: str) -> str:
    return f"<p class=note>{html.escape(text)}</p>"


# Sections -------------------------------------------------------------------------------------------------------------


def usefulness(section: dict, figures) -> list[str]:
    def lines(rows: dict) -> list[list]:
        return [
            [name, row["trainings"], span(row["AUROC"]), span(row["gain"]["AUROC"], 3, "+"), span(row["F1"]),
             span(row["gain"]["F1"], 3, "+"), row["fold 10"]["AUROC"], row["fold 10"]["F1"]]
            for name, row in rows.items()
        ]  # fmt: skip

    head = ["trained on", "trainings", "macro AUROC", "gain over real alone", "macro F1", "gain over real alone",
            "fold 10: AUROC", "F1"]  # fmt: skip
    over = [*head[:3], "gain over it", head[4], "gain over it", *head[6:]]
    rare = section["rare statements"]
    kinds: dict[str, dict] = {"": {}, " %": {}, "rare statements": {}, "all statements": {}}
    for name, row in section["rows"].items():
        kinds[next((end for end in kinds if end and name.endswith(end)), "")][name] = row
    by_class = [[name, *(row["by class"].get(label, {}).get("AUROC", float("nan")) for label in SUPERCLASSES)]
                for name, row in (kinds[""] | kinds[" %"]).items()]  # fmt: skip
    by_statement = [[code, *(row["by class"].get(code, {}).get("F1", float("nan")) for row in kinds["rare statements"].values())]
                    for code in rare]  # fmt: skip
    return [
        note(
            f"{section['real records']} real records of {section['real patients']} patients are folds 1-8. A row is trained "
            f"{section['settings']['seeds']} times for each of {section['settings']['folds']} test folds (10 first), without any "
            "record of its patients; fold 9 chooses step and thresholds; all predictions are scored together. "
            f"{section['settings']['steps']} steps of 64 pieces of 2.5 s in every row: in turn, half of them each; mixed, half of "
            "each batch. Intervals are 95 %: bootstrap over trainings and over patients. The texture models have seen textures "
            "of folds 1-8 (without labels); of fold 10, nothing."
        ),
        table(head, lines(kinds[""])),
        note(f"Against the best cheap baseline ({section['best cheap baseline']}):"),
        table(over, lines(section["against it"])),
        note("Synthetic alone against real training on copies of the same donors:"),
        table(over, lines({"synthetic alone": section["synthetic alone against its donors"]})),
        note("Another classifier, of all statements that records of folds 1-8 and of fold 9 hold:"),
        table(head, lines(kinds["all statements"])),
        note(f"Another, of {len(rare)} statements that few records hold: {', '.join(rare)}."),
        table(head, lines(kinds["rare statements"])),
        note("What the first gain over others, rare synthetic first, then real:"),
        table(["over", "macro AUROC", "macro F1"], [[other, span(gain["AUROC"], 3, "+"), span(gain["F1"], 3, "+")]
                                                    for other, gain in section["rare synthetic against"].items()]),
        note("F1 of each of these statements:"),
        table(["", *(name.removesuffix(", rare statements") for name in kinds["rare statements"])], by_statement),
        note("Few real patients; donors are cut to the same patients:"),
        table(head, lines(kinds[" %"])),
        note("AUROC by class:"),
        table(["trained on", *SUPERCLASSES], by_class),
        image(figures, "low data"),
        image(figures, "alpha sweep"),
    ]


def fidelity(section: dict, figures) -> list[str]:
    names = list(next(iter(section["rows"].values())))
    return [
        note(
            f"Features of the encoder, a network that never refined anything (sha256 {section['encoder sha256'][:16]}), "
            f"against {section['N']} held-out real records of folds 9 and 10, {section['features']} features; "
            f"{section['class mix']}; means of {section['draws']} matchings. The floor is real records of other patients (folds "
            "1-8) against the same. Published "
            "FIDs (Hybrid-SSM-ECG 0.076, DiffECG 0.068, BioDiffusion 0.051) are of other features of one lead and have no "
            "floor beside them: they cannot be compared with these."
        ),
        table(["records", *names], [[name, *row.values()] for name, row in section["rows"].items()]),
        image(figures, "spectra"),
    ]


def distortion(section: dict, figures) -> list[str]:
    rows = []
    for name, held in section.items():
        if isinstance(held, dict):
            rows += [[name, lag, row["PRD %"], row["PRDN %"], float(np.mean(row["RMS mV by lead"]))] for lag, row in held.items()]
    return [
        note(
            f"Medians over {section['N']} records. A synthetic record's beats lie where the asked heart rate puts them, so at "
            "zero lag it does not fall on its donor. A low PRD against the donor measures copying, not quality (published: "
            "5.49 %); the last two rows say how far two different patients are apart. By lead, in mV: report.json."
        ),
        table(["pair", "", "PRD %", "PRDN %", "RMS mV"], rows),
    ]


def validity(section: dict, figures) -> list[str]:
    measures = list(section["KS"]["real"])
    by_class = [[f"{label}, {name}", *(section["KS by class"][name][label][m] for m in measures)]
                for label in SUPERCLASSES for name in ("synthetic", "real")]  # fmt: skip
    asked = [
        [name, row["N"], row["median gap"], row["95 %"], row.get("within 3 bpm", "")]
        for name, row in section["asked and got"].items()
    ]
    bias = section["delineators on real records, ms"]
    return [
        note(
            f"Kolmogorov-Smirnov distance to {section['N']} held-out real records with the same diagnoses; real: other real "
            "patients."
        ),
        table(["all classes", *measures], [[name, *section["KS"][name].values()] for name in ("synthetic", "real")]),
        table(["by class", *measures], by_class),
        note(f"The same by NeuroKit2 on lead II, {section['N by NeuroKit2']} records a side:"),
        table(
            ["", *section["KS by NeuroKit2"]["real"]], [[name, *row.values()] for name, row in section["KS by NeuroKit2"].items()]
        ),
        note("Our delineator minus NeuroKit2's on the same real records, ms:"),
        table(["interval", "median", "median absolute", "N"], [[name, *row.values()] for name, row in bias.items()]),
        note("Asked against got (age and sex are the donor's, so their gap is the distance to the nearest patient):"),
        table(["", "N", "median gap", "95 %", "within 3 bpm"], asked),
        note(
            f"Lead identities: largest residual {section['largest identity residual, steps']} stored steps (1 uV). PRD "
            f"against the skeleton: at most {section['PRD against the skeleton, %']['largest']:.3f} %."
        ),
        image(figures, "intervals"),
    ]


def privacy(section: dict, figures) -> list[str]:
    rows = [*section["donors"].items(), ("within-donor spread", section["within-donor spread"]), *section["attacks"].items()]
    return [
        note(
            "Plainly: the beats are real patients' beats, and who has the donors' ECGs finds each donor again. These data "
            "are for augmentation, not for release as anonymous; they inherit the donors' licence and consent. Membership "
            "AUC: 0.5 would mean that an attacker cannot tell donors from other patients; re-identified share: how often the "
            "nearest real record is the donor's."
        ),
        table(["", ""], [[name, value] for name, value in rows]),
    ]


def judge(section: dict, figures) -> list[str]:
    rows = [[name, span(held["fold 10"]["macro AUROC"]), span(held["fold 10"]["macro F1"]), held["fold 10"]["calibration error"],
             held["AUROC on synthetic labels"]] for name, held in section.items()]  # fmt: skip
    classes = [[f"{name}, {label}", row["records"], row["AUROC"], row["F1"]]
               for name, held in section.items() for label, row in held["fold 10"]["by class"].items()]  # fmt: skip
    return [
        note(
            "Two networks of different shape, both trained on folds 1-8. Intervals: 95 %, bootstrap over test patients. On "
            "all of PTB-XL the published benchmark reaches 0.925 to 0.930 (Strodthoff et al. 2020). The last column: do the "
            "synthetic labels mean what real ones do?"
        ),
        table(["network", "macro AUROC", "macro F1", "calibration error", "AUROC on synthetic labels"], rows),
        table(["class", "records", "AUROC", "F1"], classes),
        image(figures, "judge"),
    ]


def refinement(section: dict, figures) -> list[str]:
    return [
        note(
            "Gradient steps on the texture's latent for records the judge doubts. The encoder is another network and saw "
            "none of it: what only the judge sees is adversarial, what both see is a better record."
        ),
        table(["", ""], [[name, value] for name, value in section.items()]),
    ]


def two_sample(section: dict, figures) -> list[str]:
    made, real = section["records"]
    rate, beat_to_beat = section["rhythm alone, before records are weighted by it"].values()
    return [
        note(
            f"A small network learns to tell {made} synthetic records from the {real} recordings of their donors on seven tenths "
            "of the patients and is asked on the others; AUC 0.5: it cannot. Intervals are 95 %, by patient. It sees four bands, "
            "or one of them, or one part of the beat. Synthetic records are weighted so that both sides have the same heart rates "
            "and the same changes of RR from beat to beat, which are asked for (by themselves they would tell with AUC "
            f"{rate:.2f} and {beat_to_beat:.2f})."
        ),
        table(["records", "AUC", "of seeds"], [
            [name, span([row["AUC"], *row["interval"]]), ", ".join(f"{auc:.3f}" for auc in row["of seeds"])]
            for name, row in section["rows"].items()
        ]),
        image(figures, "two-sample test"),
    ]  # fmt: skip


def gallery(section: dict, figures) -> list[str]:
    return [note(section["what"]), image(figures, "gallery")]


def waves(section: dict, figures) -> list[str]:
    rows, names = section["rows"], list(next(iter(section["rows"].values()))["by boundary"])
    first = [[name, span(row["macro F1"], 4), span(row["P"], 4), *(f"{row['by boundary'][at]['F1']:.4f}" for at in names)]
             for name, row in rows.items()]  # fmt: skip
    said = {"errors": "{mean ms:+.1f} \u00b1 {SD ms:.1f}", "off": "{extra} + {missed}"}
    errors, off = ([[name, *(form.format(**row["by boundary"][at]) for at in names)] for name, row in rows.items()]
                   for form in said.values())  # fmt: skip
    return [
        note(
            f"{section['records']} records, {section['leads']} leads, each by itself. A mark is found where ours lies within "
            "150 ms; an extra one counts between a lead's first and last mark. F1 with 95 % intervals over records."
        ),
        table(["", "macro F1", "P", *names], first),
        note("Found marks, ours less theirs, ms (mean and standard deviation):"),
        table(["", *names], errors),
        note("Extra and missed marks:"),
        table(["", *names], off),
        image(figures, "wave errors"),
    ]


def beats(section: dict, figures) -> list[str]:
    rows = section["rows"]
    conditions = list(next(iter(rows.values())))
    cells, first = ([[name, *(span(row[at][key], 4) for at in conditions)] for name, row in rows.items()]
                    for key in ("F1", "F1 of first leads"))  # fmt: skip
    return [
        note(
            f"{section['recordings']} recordings, each lead by itself, tolerance 150 ms, without ventricular flutter; 95 % "
            f"intervals over recordings. Noise: what is left of {section['noise rows']} noisy leads of PTB-XL's folds 9 and 10 "
            f"without their beats, mixed into the first {section['noisy seconds']} s."
        ),
        table(["F1", *conditions], cells),
        note("Of the first lead of each recording alone:"),
        table(["F1", *conditions], first),
        image(figures, "beats in noise"),
    ]


def beat_types(section: dict, figures) -> list[str]:
    rows, most, classes = section["rows"], section["most S"], ("V", "S", "S without the recording of most")
    shown = dict(zip(classes, ("V", "S", f"S without {most['recording']}"), strict=True))
    scores = [[name, shown[kind], *(span(row[kind][score]) for score in ("Se", "P+", "F1")),
               ", ".join(f"{f1:.3f}" for f1 in row["F1 of seeds"].get(kind, ()))]
              for kind in classes for name, row in rows.items() if row[kind]]  # fmt: skip
    counts = [[f"{name}: {kind}", *of] for name, row in rows.items()
              for kind, of in zip(section["beats"], row["confusion"], strict=True)]  # fmt: skip
    less = [[f"less {other}", *(span(of[kind], sign="+") for kind in ("V", "S"))]
            for other, of in ((key[5:], of) for key, of in rows["synthetic"].items() if key.startswith("less "))]  # fmt: skip
    worst = [[name, what, ", ".join(f"{at}: {beats:g}" for at, beats in of.items())]
             for name, each in section["worst recordings"].items() for what, of in each.items()]  # fmt: skip
    leads = ", ".join(f"{count} {name}" for name, count in section["leads"].items())
    beats = ", ".join(f"{count:,} {kind}" for kind, count in section["beats"].items())
    return [
        note(
            f"{section['recordings']} recordings, one lead each ({leads}), beats at the places where people put them, in the "
            f"classes of ANSI/AAMI EC57: {beats}. Fusions and unknown beats teach nothing and are in no score. Recording "
            f"{most['recording']} has {most['S']:,} of the S. Beats of all trainings of a row count together; 95 % intervals over "
            "recordings."
        ),
        table(["taught by", "class", "Se", "P+", "F1", "F1 of each training"], scores),
        image(figures, "beat types"),
        note("F1 of synthetic records, over the same recordings:"),
        table(["", "V", "S"], less),
        note("What beats of each class are said to be, mean over trainings:"),
        table(["annotated", "N", "S", "V"], counts),
        image(figures, "beat confusions"),
        note("Recordings with most beats that are extra or missed, mean over trainings:"),
        table(["", "", "recording: beats"], worst),
    ]


def fibrillation_windows(section: dict, figures) -> list[str]:
    names = ("found, extra, missed", "onsets: found, extra, missed")
    rows = [[name, *(span(row[key]) for key in ("AUROC", "F1", "burden error")),
             *(", ".join(f"{count:g}" for count in row[key]) for key in names)]
            for name, row in section["rows"].items()]  # fmt: skip
    holds = [[name, share, *(of[name] for of in section["burden said"].values())]
             for name, share in section["burden"].items() if share > 0]  # fmt: skip
    return [
        note(
            f"{section['windows']:,} windows of 10 s, a new one every 5 s, of {section['recordings']} recordings, one lead each; "
            f"log odds are averaged over 40 s. Of {len(holds)} recordings a part fibrillates. {section['flutter windows']:,} "
            f"windows of flutter are left out. {section['onsets']} onsets have 30 s without fibrillation before them and 30 s of "
            "it after; they are found within 30 s. Burden is the share of a recording, its error the mean over recordings. 95 % "
            "intervals over recordings; counts are means over trainings."
        ),
        table(["taught by", "AUROC", "F1 of windows", "burden error", *names], rows),
        note("Burden of the recordings that fibrillate:"),
        table(["recording", "annotated", *section["burden said"]], holds),
        image(figures, "burden"),
    ]


def fibrillation_records(section: dict, figures) -> list[str]:
    kinds, held = ("A against N and O", "A against N"), section["records"]
    rows = [[name, *(span(row[kind]) for kind in kinds), ", ".join(f"{auroc:.3f}" for auroc in row["of seeds"])]
            for name, row in section["rows"].items()]  # fmt: skip
    less = [[key, span(of, 4, "+")] for key, of in section["rows"]["synthetic"].items() if key.startswith("less ")]
    return [
        note(
            f"AUROC over whole records of one lead: {held['A']:,} with fibrillation, {held['N']:,} normal, {held['O']:,} of other "
            f"rhythms; {held['~']:,} that are too noisy are left out. 95 % intervals over records. People's marks: "
            f"{section['folds']} networks, each asked about records that it has not seen."
        ),
        table(["taught by", *kinds, "of each training"], rows),
        note("AUROC of synthetic records, over the same records:"),
        table(["", "A against N and O"], less),
        image(figures, "fibrillation"),
    ]


SECTIONS = {"usefulness": usefulness, "fidelity": fidelity, "distortion": distortion, "clinical validity": validity,
            "diversity and privacy": privacy, "judge": judge, "two-sample test": two_sample, "refinement": refinement,
            "gallery": gallery, "waves in LUDB": waves, "beats in MIT-BIH": beats,
            "beat types in MIT-BIH": beat_types, "fibrillation in MIT-BIH": fibrillation_windows,
            "fibrillation in CinC 2017": fibrillation_records}  # fmt: skip


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
