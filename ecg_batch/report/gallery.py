"""Gallery: some records of each label on ECG paper; of a long one its hours at a glance, and ten seconds of it."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from ecg_batch.dataset.beats import BEAT_SYMBOLS
from ecg_batch.errors import number_of
from ecg_batch.plot.course import lanes_in, rhythms_in
from ecg_batch.plot.long import GROUP, STRIP_S, clock, rhythms_within, strip_start
from ecg_batch.plot.paper import Sheet
from ecg_batch.plot.records import waves_of
from ecg_batch.reading.synthetic import OpenDataset
from ecg_batch.report.glance import course_of
from ecg_batch.report.parts import Drawn, Gallery, Section, Words
from ecg_batch.report.rows import Rows, donor_names, statements
from ecg_batch.report.sheet import columns_of, height_mm
from ecg_batch.request.model import LOOP_S

EACH, OPEN = 12, 2  # records of a label; of these not folded away
MOST_BYTES = 2_300_000  # of all pictures, so that a page stays below 3 MB
MOST_LABELS = 24
SEXES = {0: "male", 1: "female"}


def gallery(rows: Rows, named: str) -> Section:
    """Twelve records of each label, of the most frequent labels as many as there is room for. named: as in rows.donors."""
    dataset, label = rows.dataset, rows.texts("label")
    counts = Counter(label.tolist())
    order = [name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    chosen = {name: choose(rows, name) for name in order[:MOST_LABELS]}
    drawn = draw_in_turns(chosen, drawer_of(dataset, rows, named))
    parts: list = [Words(words(dataset, chosen, drawn, len(order)))]
    for name, sheets in drawn.items():
        parts.append(Gallery(f"{name}: {len(sheets)} of {number_of(counts[name], 'record')}", sheets[:OPEN], sheets[OPEN:]))
    return Section("Records on ECG paper", "records", parts)


def words(dataset: OpenDataset, chosen: dict, drawn: dict, labels: int) -> str:
    long = dataset.duration_s > LOOP_S
    said = "Of each label the first records without a flag, each of another patient where there are so many. "
    said += "25 mm/s and 10 mm/mV: a small square is 1 mm, 40 ms and 0.1 mV, a large one 5 mm, 200 ms and 0.5 mV; the pulse at the "
    said += "left is 1 mV for 200 ms. "
    if long:
        said += "The upper picture has the heart rate of the whole record and what comes to its own rhythm, with how often and how "
        said += "long together; the green line is where the ten seconds below are from. Under lead II stands each beat's type. "
    elif any(sheet.is_marked for sheets in drawn.values() for sheet in sheets):
        said += "The strip shows where the annotations have P, QRS and T. "
    if left := labels - len(drawn):
        said += f"Of {labels} labels the {len(drawn)} most frequent are shown; {left} are left out, to keep the page small. "
    if fewer := [name for name in drawn if len(drawn[name]) < len(chosen[name])]:
        said += f"There was room for fewer than {EACH} records of {', '.join(fewer) if len(fewer) < len(drawn) else 'each'}. "
    return said


def choose(rows: Rows, label: str) -> list[int]:
    """Places in the table: without a flag first, patients that are new first, then by record."""
    of = np.flatnonzero(rows.texts("label") == label)
    patient, flagged = rows.numbers("donor_patient_id")[of], rows.texts("flags")[of] != ""
    seen = np.ones(len(of), bool)
    seen[np.unique(patient, return_index=True)[1]] = False
    return of[np.lexsort((of, seen, flagged))][:EACH].tolist()


def draw_in_turns(chosen: dict[str, list[int]], draw: Callable[[int], Drawn]) -> dict[str, list[Drawn]]:
    """The first record of each label, then the second of each, while there is room."""
    drawn: dict[str, list[Drawn]] = {}
    left = MOST_BYTES
    for turn in range(EACH):
        for name, rows in chosen.items():
            if turn < len(rows):
                sheet = draw(rows[turn])
                left -= sheet.bytes
                if left < 0:
                    return drawn
                drawn.setdefault(name, []).append(sheet)
    return drawn


def drawer_of(dataset: OpenDataset, rows: Rows, named: str) -> Callable[[int], Drawn]:
    donors = donor_names(rows, named)
    draw = _draw_long if dataset.duration_s > LOOP_S else _draw

    def of(row: int) -> Drawn:
        stated = rows.table.slice(row, 1).to_pylist()[0]
        title = f"Record {stated['record']}: {stated['label']} asked"
        return draw(dataset, int(stated["record"]), title, facts(stated, str(donors[row])))

    return of


def facts(row: dict, donor: str) -> str:
    asked, measured = row["hr_bpm_requested"], row["hr_bpm_measured"]
    rate = f"{measured:.1f} bpm" if measured is not None else "no rate measured"
    said = [
        rate + ("" if asked is None else f" ({asked:.0f} asked)"),
        f"{SEXES.get(row['sex'], 'sex unknown')}, {row['age']:.0f} years",
        f"donor {donor}, fold {row['donor_fold']}: {statements(row['scp_codes'])}",
        f"noise {row['prd_pct']:.0f} % of the beats' RMS",
    ]
    if row.get("noise_kinds"):
        said.append(f"with {' and '.join(row['noise_kinds'])}" + ("" if row["snr_db"] is None else f" at {row['snr_db']:z.1f} dB"))
    if row.get("pair_id") is not None:
        said.append(f"set {row['pair_id']}")
    return "; ".join([*said, f"flags: {row['flags']}"] if row["flags"] else said)


def _draw(dataset: OpenDataset, record: int, title: str, said: str) -> Drawn:
    waves = waves_of(dataset, [record])[0]
    sheet = Sheet(dataset[record], dataset.fs_hz, title, said, waves)
    says = f"Twelve-lead ECG of record {record}, and ten seconds of lead II"
    return Drawn(title, said, says, columns_of(sheet), height_mm(sheet), is_marked=waves is not None)


def _draw_long(dataset: OpenDataset, record: int, title: str, said: str) -> Drawn:
    """As plot/records.py has it: only the beats of the record and the samples of its strip are read."""
    table = dataset.beats(record)
    symbols = np.array(table["symbol"].to_pylist()).astype("U1")
    sample, aux = table["sample"].to_numpy(), np.array(table["aux"].to_pylist())
    is_beat, fs_hz, last_s = np.isin(symbols, BEAT_SYMBOLS), dataset.fs_hz, float(dataset.duration_s)
    r_s, types = sample[is_beat] / fs_hz, symbols[is_beat]
    at_s = min(strip_start(r_s, np.array([GROUP.get(name, name) for name in types.tolist()])), last_s - STRIP_S)
    rhythms = rhythms_in(sample, symbols, aux, fs_hz)
    inside = (r_s >= at_s) & (r_s < at_s + STRIP_S)
    strip = [(float(time - at_s), str(name)) for time, name in zip(r_s[inside], types[inside], strict=True)]
    sheet = Sheet(dataset.window(record, at_s, at_s + STRIP_S), fs_hz, title, said)
    course = course_of(r_s, lanes_in(sample, symbols, aux, fs_hz, last_s), last_s, at_s)
    here = f"en seconds from {clock(at_s)}: {rhythms_within(rhythms, at_s, at_s + STRIP_S)}"
    counts = ", ".join(f"{n:,} {name}" for name, n in sorted(Counter(types.tolist()).items()))
    says = f"Twelve-lead ECG of record {record}, t{here}"
    return Drawn(title, f"{said}; beats: {counts}. T{here}", says, columns_of(sheet, strip), height_mm(sheet), course)
