"""PTB-XL's table cell by cell, and recordings that are not what they seem: left out with a counted reason, or refused in words."""

import csv
import shutil
import struct

import numpy as np
import pytest
import wfdb
from flips import FLIPS
from ptbxl_layout import write_layout, write_record

from ecg_batch.donors import ptbxl
from ecg_batch.donors.recording import Unreadable, read_recording
from ecg_batch.errors import UserError
from ecg_batch.leads import LEADS

NAMES = [lead.upper() if lead.startswith("a") else lead for lead in LEADS]


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout") / "ptbxl"
    write_layout(folder, list(range(0, 60, 12)))
    return folder


@pytest.fixture
def release(layout, tmp_path):
    return shutil.copytree(layout, tmp_path / "ptbxl")


def change(release, change_rows) -> None:
    """Rewrites the table after change_rows(rows)."""
    rows = list(csv.DictReader(open(release / ptbxl.TABLE, encoding="utf-8")))
    change_rows(rows)
    with open(release / ptbxl.TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


CELLS = [
    *(("age", text, "age is no number") for text in ("-1", "inf", "-inf", "old", "1e999", "299", "0x10", "1_0", "5 0", "٣0")),
    *(("sex", text, "sex is no whole number from 0 to 1") for text in ("2", "male", "0.5", "-1", "nan")),
    *(("strat_fold", text, "strat_fold is no whole number from 1 to 10") for text in ("0", "11", "", "one", "3.5", "1e0")),
    *(("patient_id", text, "patient_id is no whole number") for text in ("", "nan", "x", "-5", "99999999999", "inf", "٧")),
    ("ecg_id", "", "ecg_id is no whole number"), ("ecg_id", "\x1f19", "ecg_id is no whole number"),
    ("ecg_id", "1.5", "ecg_id is no whole number"),
    ("scp_codes", "", "scp_codes is blank"), ("scp_codes", "  ", "scp_codes is blank"),
    *(("scp_codes", text, "scp_codes is no {") for text in (
        "{'NORM': 00100}", "{'NORM': ٣0.0}", "{'NORM': ７}",
        "NORM", "[]", "['NORM']", "{'NORM'}", "{'NORM': }", "{'NORM': nan}", "{'NORM': None}", "{'NORM': 100", "{'NORM': [1]}",
        "(" * 5000 + ")" * 5000, "{" * 5000 + "}" * 5000, "{'NORM': " + "-" * 9000 + "1}", "{'NORM': 9**9**9}",
        "{" + "'NORM': 1," * 9000 + "}", "{'NORM': 100.0,, 'SR': 0.0}", "{,}", "{'NORM': 100.0,,}", "{, 'NORM': 100.0}",
        "{'NORM': 100.0}; import os", "{1: 2}", "{'NORM': '100'}")),
    ("scp_codes", "{'NORM': 100.0, 'XYZ': 0.0}", "a statement that scp_statements.csv lacks"),
    ("scp_codes", "{'NORM': 200}", "likelihood outside 0 to 100"), ("scp_codes", "{'NORM': -1}", "likelihood outside 0 to 100"),
    ("scp_codes", "{'NORM': 1e300}", "likelihood outside 0 to 100"),
    ("scp_codes", "{'NORM': 1, 'NORM': 2}", "names a statement twice"),
    *(("filename_lr", text, "filename_lr is no plain path") for text in (
        "", "/etc/passwd", "../x", "a/../../x", "a//b", "s3://bucket/x", "records100/\n", "~/x", ".", "a/./b", "x" * 300, "a b")),
]  # fmt: skip


@pytest.mark.parametrize(("column", "text", "reason"), CELLS, ids=lambda value: value[:24] if isinstance(value, str) else None)
def test_a_cell_that_means_nothing_leaves_its_row_out_with_a_counted_reason(release, column, text, reason, caplog):
    change(release, lambda rows: rows[2].update({column: text}))
    read = ptbxl.read_release(release, 100)
    assert len(read.entries) == 4 and list(read.rejected.values()) == [1]
    assert reason in next(iter(read.rejected)) and reason in caplog.text and "1 of 5 rows left out" in caplog.text
    assert len(caplog.text) < 1000


@pytest.mark.parametrize(("column", "text", "field", "value"), [
    ("age", "", "age", None), ("age", "nan", "age", None), ("age", "300", "age", 90.0), ("age", "95.0", "age", 90.0),
    ("age", "8e1", "age", 80.0), ("sex", "", "sex", -1), ("sex", "1.0", "sex", 1), ("patient_id", "7.0", "patient_id", 7),
    ("scp_codes", "{}", "scp_codes", {}), ("scp_codes", '{"NORM": 15}', "scp_codes", {"NORM": 15.0}),
    ("scp_codes", "{'NORM': 80.0, 'SR': 0.0,}", "scp_codes", {"NORM": 80.0, "SR": 0.0}),
])  # fmt: skip
def test_cells_as_releases_and_pandas_write_them_are_understood(release, column, text, field, value):
    change(release, lambda rows: rows[2].update({column: text}))
    read = getattr(ptbxl.read_release(release, 100).entries[2], field)
    assert read == value or (value is None and np.isnan(read))


def text_of(release) -> str:
    return (release / ptbxl.TABLE).read_text(encoding="utf-8")


def shuffled_twice(release) -> None:
    lines = text_of(release).splitlines(keepends=True)
    (release / ptbxl.TABLE).write_text("".join([*lines, lines[2]]))


@pytest.mark.parametrize(("spoil", "says"), [
    (shuffled_twice, r"lines 3 and 7 both have the ecg_id \d+"),
    (lambda release: (release / ptbxl.TABLE).write_bytes(text_of(release).encode("utf-16")), "is not UTF-8"),
    (lambda release: (release / ptbxl.TABLE).write_bytes(b"\xe9" + text_of(release).encode()), "is not UTF-8"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release).replace(",", ";")), "separated by commas"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release).replace("age", "Age")), "no column age"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release).replace("filename_hr", "age")), "no column filename_hr"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release).replace("\n", ",age\n")), "there twice"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release) + '1,"2'), "line [67]: no row of a table"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release) + '"' + "x" * 200_000 + '"'), "no row of a table"),
    (lambda release: (release / ptbxl.TABLE).write_text(""), "no column"),
    (lambda release: (release / ptbxl.TABLE).write_bytes(b"\0" * 4096), "no column"),
    (lambda release: (release / ptbxl.TABLE).write_text(text_of(release).splitlines()[0] + "\n"), "none of the 0 records"),
    (lambda release: change(release, lambda rows: [row.update(age="x") for row in rows]), r"no row can be used: age .* \(5\)"),
    (lambda release: (release / ptbxl.STATEMENTS).write_text(""), "scp_statements.csv: no column diagnostic"),
    (lambda release: (release / ptbxl.STATEMENTS).write_text(",diagnostic,diagnostic_class\n"), "has no statement"),
    (lambda release: (release / ptbxl.STATEMENTS).write_text(",diagnostic,diagnostic_class\nNORM,yes,NORM\n"), "line 2"),
    (lambda release: (release / ptbxl.STATEMENTS).write_text(",diagnostic,diagnostic_class\nNORM,1,NORM\nNORM,1,NORM\n"), "line 3"),
    (lambda release: (release / ptbxl.STATEMENTS).write_text(",diagnostic,diagnostic_class\nNORM,1,\n"), "no diagnostic_class"),
    (lambda release: (release / ptbxl.STATEMENTS).write_text(",diagnostic,diagnostic_class\nNORM,1,NORM\nSR\n"), "as many cells"),
    (lambda release: (release / ptbxl.TABLE).write_text("\x1b[31m,a\n1,2\n"), r"2 columns: \\x1b\[31m, a\."),
])  # fmt: skip
def test_a_table_that_is_not_ptbxls_is_refused_with_its_file_and_line(release, spoil, says):
    spoil(release)
    with pytest.raises(UserError, match=says) as error:
        ptbxl.read_release(release, 100)
    assert str(release) in str(error.value) and len(str(error.value)) < 800


def test_a_byte_order_mark_and_foreign_line_ends_are_no_other_table(release):
    before = ptbxl.read_release(release, 100)
    (release / ptbxl.TABLE).write_bytes(b"\xef\xbb\xbf" + text_of(release).replace("\n", "\r\n").encode())
    assert ptbxl.read_release(release, 100) == before


# Recordings -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recording(layout, tmp_path):
    """(path without suffix, its ECG) of a recording to be spoilt."""
    source = next(iter(sorted((layout / "records100" / "00000").glob("*.hea"))))
    for suffix in (".hea", ".dat"):
        shutil.copy(source.with_suffix(suffix), tmp_path)
    return tmp_path / source.stem, read_recording(source.with_suffix(""), 100)


def header(path, old: str, new: str, count: int = -1) -> None:
    text = path.with_suffix(".hea").read_text(encoding="utf-8")
    assert old in text
    path.with_suffix(".hea").write_text(text.replace(old, new, count), encoding="utf-8")


def other_samples(path) -> None:
    data = np.fromfile(path.with_suffix(".dat"), np.int16)
    data[::13] += 1
    data.tofile(path.with_suffix(".dat"))


def lines_of(path, change_lines) -> None:
    lines = path.with_suffix(".hea").read_text().splitlines()
    path.with_suffix(".hea").write_text("\n".join(change_lines(lines)) + "\n")


def names_and_formats_alone(path) -> None:
    lines_of(path, lambda lines: [lines[0], *(" ".join(line.split()[:2]) for line in lines[1:])])


def one_step(path, bit=0) -> None:
    data = bytearray(path.with_suffix(".dat").read_bytes())
    data[777] ^= 1 << bit
    path.with_suffix(".dat").write_bytes(data)


@pytest.mark.parametrize(("spoil", "reason"), [
    (other_samples, "checksums"), (one_step, "checksums"), (lambda path: one_step(path, 7), "checksums"),
    (lambda path: header(path, "1000.0(0)/mV", "0(0)/mV"), "gain 0 or absent"),
    (lambda path: header(path, "1000.0(0)/mV", "0", 1), "gain 0 or absent"),
    (lambda path: header(path, "1000.0(0)/mV", "1e999/mV"), "gain 0 or absent"),
    (lambda path: header(path, "1000.0(0)/mV", "-1000/mV"), "gain 0 or absent"),
    (names_and_formats_alone, "gain 0 or absent"),
    (lambda path: header(path, "/mV", "/mmHg"), "not calibrated in mV, uV or V"),
    (lambda path: header(path, "/mV", "/nV", 1), "not calibrated in mV, uV or V"),
    (lambda path: lines_of(path, lambda lines: [lines[0], *(line.rsplit(None, 1)[0] for line in lines[1:])]), "no lead names"),
    (lambda path: header(path, "V6", "V7"), "no lead V6"), (lambda path: header(path, " V6", " V5"), "no lead V6"),
    (lambda path: header(path, ".dat 16", ".dat 17"), "unreadable"),
    (lambda path: header(path, ".dat 16", ".dat 999"), "unreadable"),
    (lambda path: lines_of(path, lambda lines: lines[:-1]), "no lead V6"),
    (lambda path: lines_of(path, lambda lines: [*lines, lines[-1].replace("V6", "V1")]), "two leads of one name"),
    (lambda path: header(path, " 12 100 1000", " 12 250 1000"), "250 Hz, not 100"),
    (lambda path: header(path, " 12 100 1000", " 12 100 999"), "not 10 s long"),
    (lambda path: header(path, " 12 100 1000", " 12 100 99999999999"), "not 10 s long"),
    (lambda path: header(path, " 12 100 1000", " 11 100 1000"), "unreadable"),
    (lambda path: header(path, " 12 100 1000", "/2 12 100 1000"), ""),
    (lambda path: header(path, f"{path.name}.dat", "../secret.dat"), "no file of samples beside"),
    (lambda path: header(path, f"{path.name}.dat", "/dev/zero"), "no file of samples beside"),
    (lambda path: path.with_suffix(".dat").unlink(), "no file of samples beside"),
    (lambda path: path.with_suffix(".dat").write_bytes(b"short"), "unreadable"),
    (lambda path: path.with_suffix(".hea").unlink(), "no header"),
    (lambda path: path.with_suffix(".hea").write_bytes(b""), "unreadable"),
    (lambda path: path.with_suffix(".hea").write_bytes(b"\xff\xfe\0" * 99), "unreadable"),
    (lambda path: path.with_suffix(".hea").write_bytes(b"x" * 10**6), "over 100 kB"),
    (lambda path: path.with_suffix(".hea").write_text(f"{path.name}\n"), "unreadable"),
])  # fmt: skip
def test_a_recording_that_is_not_what_it_says_has_a_reason_and_no_samples(recording, spoil, reason):
    path, _ = recording
    spoil(path)
    with pytest.raises(Unreadable) as error:
        read_recording(path, 100)
    assert reason in str(error.value) and len(str(error.value)) < 140 and str(path.parent) not in str(error.value)


def test_the_samples_of_another_record_under_this_name_are_refused(layout, recording):
    path, _ = recording
    other = sorted((layout / "records100" / "00000").glob("*.dat"))[1]
    shutil.copy(other, path.with_suffix(".dat"))
    with pytest.raises(Unreadable, match="checksums"):
        read_recording(path, 100)


@pytest.mark.parametrize(("unit", "gain"), [("mV", 1000.0), ("uV", 1.0), ("µV", 1.0), ("V", 1e6), ("mV", 500.0)])
def test_units_and_gains_are_used(tmp_path, recording, unit, gain):
    """The same ECG written by other scales is the same ECG, to the step of the scale."""
    path, ecg = recording
    steps_a_uv = gain / {"mV": 1e3, "V": 1e6}.get(unit, 1.0)
    written = np.rint(ecg.T * steps_a_uv).astype(np.int64)
    wfdb.wrsamp("scaled", 100, ["mV"] * 12, NAMES, d_signal=written, fmt=["16"] * 12, adc_gain=[gain] * 12, baseline=[0] * 12,
                write_dir=str(tmp_path))  # fmt: skip
    header(tmp_path / "scaled", "/mV", f"/{unit}")
    np.testing.assert_allclose(read_recording(tmp_path / "scaled", 100), ecg, atol=0.5 / steps_a_uv + 0.5)


@pytest.mark.slow
def test_no_flipped_bit_of_the_samples_is_read_as_another_ecg(recording):
    path, ecg = recording
    data, rng = path.with_suffix(".dat").read_bytes(), np.random.default_rng(0)
    assert len(data) == ecg.size * struct.calcsize("h")
    for at in rng.integers(len(data), size=2 * FLIPS):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        path.with_suffix(".dat").write_bytes(changed)
        with pytest.raises(Unreadable):
            read_recording(path, 100)


def test_leads_come_in_our_order_whatever_the_files(tmp_path, recording):
    _, ecg = recording
    order = np.random.default_rng(1).permutation(12)
    write_record(tmp_path, "plain", ecg)
    wfdb.wrsamp("mixed", 100, ["mV"] * 12, [NAMES[at] for at in order], d_signal=ecg[order].T.astype(np.int64), fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path))  # fmt: skip
    for name in ("plain", "mixed"):
        np.testing.assert_array_equal(read_recording(tmp_path / name, 100), ecg)
