"""Tables of queries: each cell is refused with its row or asks for what it says; what is kept of a table gives it back."""

import csv
import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import Refused, answer, changed_bytes, changed_text, examples, instead, pieces
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ecg_batch.request.query_table import NAME, QueryTable, copy_digest, read_query_table, read_rows, write_copy

pytestmark = pytest.mark.slow

SHARD = 4
ROWS = 'label,hr_bpm,age,sex\nNORM,70,50,male\nAFIB,,60.5,female\nSBRAD,50.5,,1\n"STACH",120,89,\nNORM,60,33,0\n'
SEXES = {"male": 0, "female": 1, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "nan": -1, "": -1, "-1": -1, "-1.0": -1}

ODD_CELLS = ("NORM", "AFIB", "70", "1", "male", "Female ", " 60 ", "nan", "NaN", "inf", "1e2", "0x10", "1_0", "٣", "١٢٠")
cells = st.sampled_from(ODD_CELLS) | pieces


def read(path):
    return read_query_table(str(path), "my.yaml")


@st.composite
def tables(draw) -> str:
    """A table with some cells replaced, or the text of one with anything changed."""
    if draw(st.booleans()):
        return draw(changed_text(ROWS))
    rows = [line.split(",") for line in ROWS.replace('"', "").splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        row[draw(st.integers(0, 3))] = draw(cells)
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def same_number(found: float, text: str) -> bool:
    if not text.strip() or text.strip().lower() == "nan":
        return math.isnan(found)
    return found == np.float32(float(text))


def assert_as_said(table: QueryTable, rows: list[dict]) -> None:
    """Each row of the table against the texts of its cells."""
    assert len(table) == len(rows)
    for at, row in enumerate(rows):
        label = table.labels[table.label_index[at]]
        assert label == row["label"].strip() or float(label) == float(row["label"])  # of a column of numbers
        assert same_number(table.hr_bpm[at], row.get("hr_bpm", "")) and same_number(table.age[at], row.get("age", ""))
        assert table.sex[at] == SEXES[row.get("sex", "").strip().lower()]


@examples(3)
@given(tables())
@example("label\nNORM\n")
@example("label\n\x00\n")
def test_a_csv_is_refused_in_words_or_asks_for_what_its_cells_say(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(data := text.encode("utf-8", errors="surrogatepass"))
    table = answer(lambda: read(path), str(path), folder=tmp_path)
    if not isinstance(table, Refused):
        assert_as_said(table, list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))))
        kept = tmp_path / NAME
        write_copy(table, kept, SHARD)
        assert copy_digest(kept, SHARD) == table.sha256()
        rows = [read_rows(tmp_path, shard) for shard in range(-(-len(table) // SHARD))]
        assert [label for part in rows for label in part["label"]] == [table.labels[at] for at in table.label_index]
        for name in ("hr_bpm", "age", "sex"):
            assert np.array_equal(np.concatenate([part[name] for part in rows]), getattr(table, name), equal_nan=True)
        kept.unlink()


TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(),
         pa.float64(), pa.bool_(), pa.null(), pa.decimal128(9, 2), pa.dictionary(pa.int8(), pa.string()), pa.binary(), pa.date32(),
         pa.dictionary(pa.int32(), pa.int64()), pa.list_(pa.int8()), pa.timestamp("s"), pa.struct([("a", pa.int8())]),
         pa.duration("s"))  # fmt: skip
VALUES = st.sampled_from((None, "NORM", "70", " male", "", 0, 1, 70, 50, 2**62, 70.5, 0.0, 1.0, float("nan"), float("inf"), True,
                          False, b"x", [1], {"a": 1}))  # fmt: skip


@st.composite
def columns(draw) -> pa.Table:
    """A few rows of any types that Parquet has; the label mostly text."""
    names = draw(st.lists(st.sampled_from(("hr_bpm", "age", "sex", "label", "note")), max_size=3))
    count, made = draw(st.integers(0, 4)), []
    for name in ["label", *names]:
        kind = draw(st.sampled_from(TYPES)) if name != "label" or draw(st.integers(0, 4)) == 0 else pa.string()
        sound = kind == pa.string() and name == "label"
        values = ["NORM", "AFIB", "MI", "SR"][:count] if sound else [draw(VALUES) for _ in range(count)]
        try:
            made.append(pa.array(values, kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            assume(False)
    return pa.Table.from_arrays(made, ["label", *names])


@examples(3)
@given(columns())
def test_a_parquet_file_is_refused_in_words_or_asks_for_what_its_cells_say(tmp_path, rows):
    path = tmp_path / "t.parquet"
    try:
        pq.write_table(rows, path)
    except (pa.ArrowException, ValueError):
        assume(False)
    table = answer(lambda: read(path), str(path), folder=tmp_path)
    if not isinstance(table, Refused):
        assert_as_said(table, [{name: text_of(value) for name, value in row.items()} for row in rows.to_pylist()])


def text_of(value) -> str:
    return "" if value is None else str(value)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "t.parquet"
    pq.write_table(pa.table({"label": ["NORM", "AFIB"] * 50, "age": np.arange(100.0)}), path, write_page_checksum=True)
    return path


@examples(3)
@given(st.data())
def test_a_damaged_parquet_file_is_refused_in_words(stored, data):
    """A file of others has no sum. Where a page's checksum holds, what is left is pyarrow's to tell."""
    with instead(stored, data.draw(changed_bytes(stored.read_bytes()))):
        answer(lambda: read(stored), str(stored))
