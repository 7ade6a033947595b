"""A row of a table is a record: none is skipped, none is guessed, and what cannot be one is named by its row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecg_batch.errors import MOST_ECHO, UserError
from ecg_batch.request.query_table import read_query_table


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_query_table(str(path), "my.yaml")
    said = str(caught.value).replace(str(path), "t")
    assert said.startswith("my.yaml: ") and len(said) < 5 * MOST_ECHO
    return said


@pytest.mark.parametrize(
    ("text", "row", "rows"),
    [
        (b"label\nNORM\n\nMI\n", 2, 3),
        (b"label\n\nNORM\nMI\n", 1, 3),
        (b"label\nNORM\nMI\n\n", 3, 3),
        (b"label\r\nNORM\r\n\r\nMI\r\n", 2, 3),
        (b"label\nNORM\n  \nMI\n", 2, 3),
        (b'label\nNORM\n""\nMI\n', 2, 3),
        (b"label,hr_bpm\nNORM,70\n\nMI,60\n", 2, 3),
        (b"label,hr_bpm\nNORM,70\n,60\n", 2, 2),
        (b"hr_bpm,label\n70,NORM\n60,\n", 2, 2),
    ],
)
def test_a_blank_line_is_a_row_whose_label_is_blank(tmp_path, text, row, rows):
    (tmp_path / "t.csv").write_bytes(text)
    assert f"1 of {rows} rows cannot be made: row {row}: label is blank" in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Empty CSV file"),
        (b"\nlabel\nNORM\n", "needed label"),
        (b"label,hr_bpm\nNORM,70\nMI\n", "Expected 2 columns, got 1"),
        (b"label\n\xff\xfe\n", "invalid UTF8"),
        (b"label;hr_bpm\nNORM;70\n", "has the columns label;hr_bpm; needed label"),
        (b"label,label\nNORM,MI\n", "each once"),
        (b"label,age\nNORM," + b"9" * 5000 + b"\n", "row 1: age is inf, outside 0 to 120"),
        (b"label,age\nNORM," + b"x" * 5000 + b"\n", "(5,002 characters), not a number"),
        (b"label,hr_bpm\nNORM,1:00:00\n", "hr_bpm is '1:00:00', not a number"),
        (b"label,sex\nNORM," + b"x" * 5000 + b"\n", "(5,002 characters); needed male, female"),
        (",".join(f"column {i}" for i in range(900)).encode() + b"\n" + b"," * 899 + b"\n", "characters); needed label"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused_in_words(tmp_path, data, said):
    (tmp_path / "t.csv").write_bytes(data)
    assert said in refusal(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [["NORM"]]}, "label holds list<element: string>; needed text or numbers"),
        ({"label": ["NORM"], "age": [True]}, "age holds bool; needed text or numbers"),
        ({"label": ["NORM"], "hr_bpm": [[70.0]]}, "hr_bpm holds list<element: double>"),
        ({"label": ["NORM"], "sex": [[1]]}, "sex holds list"),
        ({"label": ["NORM"], "age": pa.array([[70, 71]], pa.list_(pa.int8(), 2))}, "age holds fixed_size_list"),
        ({"label": [{"name": "NORM"}]}, "label holds struct"),
        ({"label": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string()))}, "label holds map"),
        ({"label": [b"NORM"]}, "label holds binary"),
        ({"label": ["NORM"], "hr_bpm": pa.array([70], pa.timestamp("s"))}, "hr_bpm holds timestamp"),
        ({"label": ["NORM"], "age": pa.array([70], pa.date32())}, "age holds date32"),
        ({"label": ["NORM"], "sex": [True]}, "sex holds bool; needed text or numbers"),
        ({"label": pa.array([None], pa.string())}, "row 1: label is blank"),
    ],
)
def test_columns_of_other_things_than_text_and_numbers_are_refused(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert said in refusal(tmp_path / "t.parquet")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1xxxxPAR1", b"label\nNORM\n"])
def test_a_damaged_parquet_file_is_refused_in_words(tmp_path, damage):
    (tmp_path / "t.parquet").write_bytes(damage)
    assert "cannot read table t" in refusal(tmp_path / "t.parquet")


def test_a_table_that_is_no_file_is_refused(tmp_path):
    import os

    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "fifo.csv")
    for name in ("folder.csv", "fifo.csv", "absent.csv", f"{'x' * 400}.csv"):
        assert "cannot read table" in refusal(tmp_path / name)


def test_the_same_rows_are_the_same_table_however_they_are_stored(tmp_path):
    (tmp_path / "plain.csv").write_bytes(b"label,hr_bpm,sex\nNORM,70,female\nMI,60,\n")
    (tmp_path / "mark.csv").write_bytes(b"\xef\xbb\xbflabel,hr_bpm,sex\r\nNORM,70,female\r\nMI,60,\r\n")
    folder = tmp_path / "age=44" / "label=AFIB"  # which some readers take for columns
    folder.mkdir(parents=True)
    label, sex = pa.array(["NORM", "MI"]), pa.array(["female", None])
    columns = [
        {"label": label, "hr_bpm": [70, 60], "sex": sex},
        {"label": label.dictionary_encode(), "hr_bpm": pa.array(["70", "60"]).dictionary_encode(), "sex": sex.dictionary_encode()},
        {"label": label.cast(pa.large_string()), "hr_bpm": np.array([70, 60], np.float16), "sex": [1.0, None]},
        {"label": label, "hr_bpm": pa.array([70, 60], pa.decimal128(5, 1)), "sex": pa.array([1, None], pa.int64())},
    ]
    for index, held in enumerate(columns):
        pq.write_table(pa.table(held), folder / f"{index}.parquet")
    digests = {read_query_table(str(path), "my.yaml").sha256() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert len(digests) == 1


ODD = ["\x1f70", "\u00a070", "70\u2003", "70\v", "\uff17\uff10", "\u0667\u0660", "1_000", "0x46", "seventy"]


@pytest.mark.parametrize("cell", ODD)
def test_a_number_is_plain_digits_and_only_blanks_stand_about_it(tmp_path, cell):
    path = tmp_path / "t.csv"
    path.write_bytes(f"label,hr_bpm\nNORM,{cell}\nNORM, 65\t\n".encode())
    said = refusal(path)
    assert "1 of 2 rows cannot be made: row 1: hr_bpm is" in said and "not a number" in said


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cell", ["1e300", "-1e300", "inf", "1e39"])
def test_a_number_beyond_float32_is_told_once(tmp_path, cell):
    (tmp_path / "t.csv").write_text(f"label,hr_bpm\nNORM,{cell}\n")
    assert "row 1: hr_bpm is" in refusal(tmp_path / "t.csv")
