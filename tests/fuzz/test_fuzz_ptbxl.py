"""PTB-XL's tables and WFDB's headers: a row or a recording is left out with a reason, or is what other readers say that it is."""

import ast
import csv
import io
import math
import shutil

import numpy as np
import pytest
import wfdb
from fuzzing import Refused, answer, changed_text, examples, instead, pieces
from hypothesis import given
from hypothesis import strategies as st
from ptbxl_layout import write_layout

from ecg_batch.donors.ptbxl import STATEMENTS, TABLE, Entry, read_release, statement_codes
from ecg_batch.donors.recording import Unreadable, read_recording
from ecg_batch.leads import LEADS

pytestmark = pytest.mark.slow

ODD_CELLS = ("15709.0", "nan", "300.0", "90", "89.5", "1", "10.0", "3.5", "{}", "{'NORM': 100.0, 'SR': 0.0}", "{'NORM': 100,}",
             "{'NORM': 1e2}", "{'NORM': 100.0}", "records100/00000/00009_lr", "records100\\00000", "٣", "1_0")  # fmt: skip
CELLS = st.sampled_from(ODD_CELLS) | pieces


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout") / "ptbxl"
    write_layout(folder, list(range(0, 60, 12)))
    return folder


@st.composite
def csvs(draw, text: str, cells=CELLS) -> str:
    """The table with one to three cells replaced, or its text with anything changed."""
    if draw(st.integers(0, 2)) == 0:
        return draw(changed_text(text))
    rows = list(csv.reader(io.StringIO(text)))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        at = draw(st.integers(0, len(row) - 1))
        if draw(st.integers(0, 5)) == 0:
            del row[at + 1 :]
        row[at] = draw(cells | changed_text(row[at], 1))
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


def rows_of(data: bytes) -> list[dict]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))


# ptbxl_database.csv -----------------------------------------------------------------------------------------------------


def year(text: str) -> float:
    return math.nan if text.strip().lower() in ("", "nan") else min(float(text), 90.0)


def same(one: float, two: float) -> bool:
    return one == two or (math.isnan(one) and math.isnan(two))


def is_said(entry: Entry, row: dict) -> bool:
    """Whether an entry is what Python reads in the cells of a row."""
    try:
        sex = float(row["sex"]) if row["sex"].strip() else -1
        whole = tuple(float(row[name]) for name in ("ecg_id", "patient_id", "strat_fold"))
        codes = ast.literal_eval(row["scp_codes"].strip())
        return (entry.ecg_id, entry.patient_id, entry.fold, entry.sex, entry.path, entry.scp_codes) == (
            *whole, sex, row["filename_lr"], codes) and same(entry.age, year(row["age"]))  # fmt: skip
    except (ValueError, SyntaxError, AttributeError, TypeError):
        return False


@examples(3)
@given(st.data())
def test_a_row_of_ptbxl_is_counted_as_left_out_or_is_what_its_cells_say(layout, data):
    path = layout / TABLE
    with instead(path, data.draw(csvs(path.read_bytes().decode()))):
        release = answer(lambda: read_release(layout, 100), str(path), f"{layout}: none of", folder=layout)
        if isinstance(release, Refused):
            return
        rows = rows_of(path.read_bytes())
    assert len(release.entries) + sum(release.rejected.values()) <= len(rows)
    for entry in release.entries:
        assert any(is_said(entry, row) for row in rows), entry


# scp_statements.csv -----------------------------------------------------------------------------------------------------


@examples(3)
@given(st.data())
def test_statements_are_refused_in_words_or_are_what_the_table_says(layout, data):
    path = layout / STATEMENTS
    with instead(path, data.draw(csvs(path.read_bytes().decode()))):
        release = answer(lambda: read_release(layout, 100), str(path), str(layout / TABLE), folder=layout)
        if isinstance(release, Refused):
            return
        rows = rows_of(path.read_bytes())
    first = next(iter(rows[0]))
    assert release.codes == tuple(row[first] for row in rows)
    said = {row[first]: row["diagnostic_class"] for row in rows if row["diagnostic"].strip() and float(row["diagnostic"]) == 1}
    assert release.superclass_of == said


def test_the_bundled_statements_are_all_of_ptbxl():
    assert len(statement_codes()) == 71


# Headers ----------------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(("uV", "µV", "V", "mmHg", "500", "2000.0", "1000.0(5)", "1.0/uV", "16x2", "212", "80", "16+24", "V1", "II",
                         "aVR", "12", "100", "1000", "99", "0", "-1"))  # fmt: skip
MV = {"mV": 1.0, "uV": 1e-3, "µV": 1e-3, "μV": 1e-3, "V": 1e3}


@st.composite
def headers(draw, text: str) -> str:
    """The header with another word in a line or two, another scale of a signal, or anything changed."""
    lines = [line.split(" ") for line in text.splitlines()]
    what = draw(st.sampled_from(("text", "words", "scale")))
    if what == "text":
        return draw(changed_text(text, words=WORDS | pieces))
    for _ in range(draw(st.integers(1, 2))):
        line = draw(st.sampled_from(lines[1:] if what == "scale" else lines))
        if what == "scale":
            gains, bases = ("1", "500.0", "1e3", "1000000", "0.5"), ("", "(0)", "(100)", "(-7)")
            line[2] = "".join(map(draw, map(st.sampled_from, (gains, bases, ("/mV", "/uV", "/µV", "/V", "/nV", "/", "")))))
        else:
            line[draw(st.integers(0, len(line) - 1))] = draw(WORDS | pieces)
    return "\n".join(map(" ".join, lines)) + "\n"


@pytest.fixture(scope="module")
def recording(layout, tmp_path_factory):
    """(path without suffix, its ECG) of a recording, and another's samples beside it."""
    folder = tmp_path_factory.mktemp("recording")
    one, other = sorted((layout / "records100" / "00000").glob("*.hea"))[:2]
    for suffix in (".hea", ".dat"):
        shutil.copy(one.with_suffix(suffix), folder)
    shutil.copy(other.with_suffix(".dat"), folder)
    return folder / one.stem, read_recording(folder / one.stem, 100)


def by_wfdb(path, text: str) -> np.ndarray:
    """The recording in uV by wfdb's own scaling, with the units of the header's text, and leads by name."""
    record = wfdb.rdrecord(str(path), physical=True)
    lines = [line.split() for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")][1:]
    unit = [line[2].partition("/")[2] or "mV" for line in lines]
    names = [name.lower() for name in record.sig_name]
    at = [names.index(lead.lower()) for lead in LEADS]
    return np.stack([np.clip(record.p_signal[:, lead] * MV[unit[lead]] * 1000, -32768, 32767) for lead in at])


@examples(4)
@given(st.data())
def test_a_header_gives_a_reason_or_the_signals_that_wfdb_reads_by_it(recording, data):
    path, ecg = recording
    header = path.with_suffix(".hea")
    text = data.draw(headers(header.read_text(encoding="utf-8")))
    with instead(header, text):

        def read():
            try:
                return read_recording(path, 100)
            except Unreadable as error:
                return str(error)

        found = answer(read, folder=path.parent)
        if isinstance(found, str):
            assert found and len(found) < 140 and str(path.parent) not in found and found.isprintable(), found
        elif not np.array_equal(found, ecg):
            exact = by_wfdb(path, header.read_bytes().decode("utf-8", errors="replace"))
            np.testing.assert_allclose(found, exact, rtol=0, atol=0.5 + 1e-6)  # halves may be rounded either way
