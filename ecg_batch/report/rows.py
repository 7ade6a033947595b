"""What records.parquet says: labels, heart rates, people, donors, flags and noise, asked against got."""

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ecg_batch.dataset.rows import NOISE_COLUMNS
from ecg_batch.errors import number_of
from ecg_batch.reading.labels import multi_hot
from ecg_batch.reading.synthetic import OpenDataset
from ecg_batch.report.asked import NOISE
from ecg_batch.report.parts import Facts, Histogram, Section, Series, Share, Table, Words, histogram, round_step
from ecg_batch.statements import SUPERCLASSES

NEAR_BPM = 3.0  # as the quality gate has it
MOST_USED, MOST_NAMED, MOST_LABELS = 5, 5, 80
COLUMNS = (
    "record", "label", "hr_bpm_requested", "hr_bpm_measured", "age_requested", "age", "sex_requested", "sex", "donor_ecg_id",
    "donor_patient_id", "donor_fold", "blend_patient_id", "texture_patient_id", "scp_codes", "prd_pct", "flags", *SUPERCLASSES,
)  # fmt: skip
OPTIONAL = ("beat_patient_id", "donor_source", "donor_record", "pair_id", *NOISE_COLUMNS[:1], *NOISE_COLUMNS[2:])
FLAG_MEANS = {
    "heart_rate": "the measured rate is more than 3 bpm off",
    "beats": "a beat was missed or invented",
    "amplitude": "more than 8 mV",
    "flat": "a lead hardly moves",
    "stretch": "the rate is more than 1.6 times off the donor's",
    "rate_statement": "a statement of the donor is false at this rate",
    "ectopic": "the donor's statements speak of ectopic beats that it cannot show",
}
ROLES = {"blend_patient_id": "beats blended in", "texture_patient_id": "recorded noise", "beat_patient_id": "beats lent"}


@dataclass(frozen=True)
class Rows:
    """The columns of records.parquet that a report needs, as a pyarrow Table, and the dataset that they are of."""

    dataset: OpenDataset
    table: object
    _known: dict[str, np.ndarray] = field(default_factory=dict)

    def numbers(self, name: str) -> np.ndarray:
        """float64 (record,), NaN where nothing was asked or measured."""
        return self.table[name].to_numpy(zero_copy_only=False).astype(np.float64)

    def texts(self, name: str) -> np.ndarray:
        """(record,), once made of a column of Python's texts, which takes a second of a million."""
        if name not in self._known:
            self._known[name] = np.array([value or "" for value in self.table[name].to_pylist()], dtype=str)
        return self._known[name]

    def has(self, name: str) -> bool:
        return name in self.table.column_names

    def __len__(self) -> int:
        return len(self.table)


def read_rows_of(dataset: OpenDataset) -> Rows:
    known = dataset.column_names()
    return Rows(dataset, dataset.columns([name for name in (*COLUMNS, *OPTIONAL) if name in known]))


# Sections -------------------------------------------------------------------------------------------------------------


def labels(rows: Rows, asked: dict[str, float]) -> Section:
    """asked: shares of labels, where the request states them."""
    said = rows.texts("label")
    counts = Counter(said.tolist())
    names = [name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    held = multi_hot(rows.dataset, names) if names else np.zeros((0, 0))
    most = max(counts.values(), default=1)
    table = []
    for at, name in enumerate(names[:MOST_LABELS]):
        of = said == name
        share = "not said" if not asked else f"{100 * asked.get(name, 0):.3g} %"
        table.append([name, share, of_all(counts[name], len(rows), most),
                      f"{int(held[of, at].sum()):,}", f"{int(held[:, at].sum()):,}"])  # fmt: skip
    parts = [Table("Asked for, and held by the donor", ["label", "share asked", "records that ask for it", "of these hold it",
                                                       "of all hold it"], table)]  # fmt: skip
    if len(names) > MOST_LABELS:
        parts.append(Words(f"{number_of(len(names) - MOST_LABELS, 'further label')} with fewer records are left out."))
    parts.append(Words("A record has all of its donor's statements. It may hold several superclasses."))
    classes = {name: int(rows.table[name].to_numpy(zero_copy_only=False).astype(bool).sum()) for name in SUPERCLASSES}
    most = max(1, *classes.values())
    held_by = [[name, of_all(count, len(rows), most)] for name, count in classes.items()]
    return Section("Labels", "labels", [*parts, Table("Superclasses held", ["superclass", "records"], held_by)])


def rates(rows: Rows) -> Section:
    asked, measured = rows.numbers("hr_bpm_requested"), rows.numbers("hr_bpm_measured")
    off = measured - asked
    both = off[~np.isnan(off)]
    facts = [("Asked", span(asked, "bpm")), ("Measured", span(measured, "bpm"))]
    if len(both):
        near = np.mean(np.abs(both) <= NEAR_BPM)
        facts += [("Within 3 bpm of the asked rate", f"{100 * near:.2f} % of {number_of(len(both), 'record')} that ask for one"),
                  ("Median difference", f"{np.median(np.abs(both)):.2f} bpm")]  # fmt: skip
    if lost := int(np.isnan(measured).sum()):
        facts.append(("Not measurable", number_of(lost, "record")))
    of = {"measured": measured} | ({"asked": asked} if len(both) else {})
    parts: list = [Facts(facts), histogram("Heart rate, bpm", "bpm", of)]
    if len(both):
        parts.append(histogram("Measured minus asked, bpm (what is farther off stands at the ends)", "bpm",
                               {"difference": np.clip(both, -5, 5)}, 20, (-5, 5)))  # fmt: skip
    return Section("Heart rates", "rates", parts)


def people(rows: Rows) -> Section:
    age, asked, sex, wanted = (rows.numbers(name) for name in ("age", "age_requested", "sex", "sex_requested"))
    of = {"of the donor": age} | ({"asked": asked} if (~np.isnan(asked)).any() else {})
    codes = ((1, "female"), (0, "male"))
    table = [[name, f"{int((wanted == code).sum()):,}", f"{int((sex == code).sum()):,}"] for code, name in codes]
    if unsaid := int(np.isnan(wanted).sum()):
        table.append(["any", f"{unsaid:,}", ""])
    agrees = (sex == wanted)[~np.isnan(wanted)]
    off = np.abs(age - asked)[~np.isnan(age - asked)]
    facts = [("Age of the donors", span(age, "years"))]
    if len(off):
        facts.append(("Age asked", f"{span(asked, 'years')}; half of the donors are within {np.median(off):.0f} years of it"))
    if len(agrees):
        facts.append(("Sex as asked", f"{100 * agrees.mean():.1f} % of the records that ask for one"))
    sexes = Table("Sex", ["sex", "records that ask for it", "of the donor"], table)
    whose = Words("Age and sex of a record are its donor's, whose beats it shows.")
    return Section("Ages and sexes", "people", [Facts(facts), histogram("Age, years", "years", of), sexes, whose])


def donors(rows: Rows, named: str) -> Section:
    """named: the registry of donors that have a number only, 'PTB-XL ' or ''."""
    patient, fold = rows.numbers("donor_patient_id").astype(int), rows.numbers("donor_fold").astype(int)
    names = donor_names(rows, named)
    unique, first, used = np.unique(names, return_index=True, return_counts=True)
    order = np.lexsort((unique, -used))
    codes = rows.table["scp_codes"]
    most = []
    for at in order[:MOST_USED]:
        row = int(first[at])
        most.append([str(unique[at]), f"{int(patient[row])}", f"{int(fold[row])}", statements(codes[row].as_py()),
                     Share(f"{int(used[at]):,}", used[at] / used.max())])  # fmt: skip
    facts = [("Donors", f"{number_of(len(unique), 'recording')} of {number_of(len(np.unique(patient)), 'patient')}"),
             ("Records a donor", f"{len(rows) / len(unique):.1f} on average, half have {np.median(used):g} or fewer, the most used "
                                 f"{used.max():,} ({100 * used.max() / len(rows):.1f} % of all)")]  # fmt: skip
    for column, role in ROLES.items():
        if rows.has(column):
            others = np.unique(np.asarray(flat(rows.table[column])))
            if len(others):
                new = f"{len(np.setdiff1d(others, patient)):,} of whom are donors of no record"
                facts.append((f"Others' {role}", f"of {number_of(len(others), 'patient')}, {new}"))
    folds = [[str(each), f"{int((fold == each).sum()):,}", f"{len(np.unique(names[fold == each])):,}",
              f"{len(np.unique(patient[fold == each])):,}"] for each in np.unique(fold)]  # fmt: skip
    limit = int(used.max())
    step = max(1, int(round_step(limit / 24)))
    edges = np.arange(1, limit + step + 1, step)
    reuse = Histogram("Donors by how many records they have", edges, [Series("donors", np.histogram(used, edges)[0])], "records")
    by_fold = "By fold of PTB-XL; no patient is in two" if named else "By fold"
    return Section("Donors", "donors", [
        Words("Records of one donor are not independent: whoever trains and tests splits by donor_patient_id."),
        Facts(facts),
        Table("The most used donors", ["donor", "patient", "fold", "statements", "records"], most),
        reuse,
        Table(by_fold, ["fold", "records", "donors", "patients"], folds),
    ])  # fmt: skip


def flags(rows: Rows) -> Section:
    said = rows.texts("flags")
    flagged = np.flatnonzero(said != "")
    if not len(flagged):
        passed = "each has passed the quality gate, a long one in all but a few of its minutes at most."
        return Section("Flags", "flags", [Words(f"No record is flagged: {passed}")])
    of: dict[str, list[int]] = {}
    record = rows.numbers("record").astype(int)
    for row in flagged.tolist():
        for flag in str(said[row]).split(","):
            of.setdefault(flag, []).append(int(record[row]))
    order = sorted(of, key=lambda flag: (-len(of[flag]), flag))
    table = [[flag, FLAG_MEANS.get(flag, ""), f"{len(of[flag]):,}", few(of[flag])] for flag in order]
    share = 100 * len(flagged) / len(rows)
    return Section("Flags", "flags", [
        Words(f"{len(flagged):,} of {number_of(len(rows), 'record')} ({share:.1f} %) failed the quality gate with every donor that "
              "was tried, and say so. Choose the others with where(flags=\"\")."),
        Table("By kind; a record may have several", ["flag", "meaning", "records", "which"], table)])  # fmt: skip


def noise(rows: Rows) -> Section:
    """How loud the texture is, and the noise that was asked for."""
    prd = histogram("Texture as a share of the beats' RMS (PRD), %; what is over 100 stands at the end", "%",
                    {"records": np.minimum(rows.numbers("prd_pct"), 100)})  # fmt: skip
    if not rows.has("noise_kinds"):
        none = Words("No noise was asked for beside the texture, which is what is left of an ECG without its beats.")
        return Section("Noise", "noise", [none, prd])
    kinds = Counter(kind for each in rows.table["noise_kinds"].to_pylist() for kind in each or ())
    most = max(kinds.values(), default=1)
    order = sorted(kinds, key=lambda kind: (-kinds[kind], kind))
    table = [[NOISE.get(kind, kind), of_all(kinds[kind], len(rows), most)] for kind in order]
    snr = rows.numbers("snr_db")
    masked = sum(bool(each) for each in rows.table["masked"].to_pylist())
    facts = [("Beats to added noise", span(snr, "dB")), ("Leads that do not show the heart", f"in {number_of(masked, 'record')}")]
    parts = [Facts(facts), Table("Records by kind of noise", ["kind", "records"], table)]
    if (~np.isnan(snr)).any():
        parts.append(histogram("Beats to added noise, dB", "dB", {"records": snr}))
    return Section("Noise", "noise", [*parts, prd])


# Words ----------------------------------------------------------------------------------------------------------------


def of_all(count: int, total: int, most: int) -> Share:
    """A number with its percentage, and a bar."""
    return Share(f"{count:,} ({100 * count / total:.1f} %)", count / most)


def donor_names(rows: Rows, named: str) -> np.ndarray:
    """Of each record the name of its donor."""
    if rows.has("donor_source"):
        pairs = zip(rows.table["donor_source"].to_pylist(), rows.table["donor_record"].to_pylist(), strict=True)
        return np.array([f"{source} {record}" for source, record in pairs])
    return np.array([f"{named}{number}" for number in rows.table["donor_ecg_id"].to_pylist()])


def statements(text: str) -> str:
    """'LVH 35 %, SR' of scp_codes."""
    return ", ".join(f"{code} {percent} %" if percent else code for code, percent in json.loads(text).items())


def flat(column) -> list:
    return column.combine_chunks().flatten().to_pylist()


def span(values: np.ndarray, unit: str) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "not asked"
    return f"{round(known.min()):d} to {round(known.max()):d} {unit}, mean {known.mean():.1f}"


def few(which: list[int]) -> str:
    return ", ".join(map(str, which[:MOST_NAMED])) + (f" and {len(which) - MOST_NAMED:,} more" if len(which) > MOST_NAMED else "")
