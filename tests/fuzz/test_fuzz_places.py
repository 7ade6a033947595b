"""Tables of places: each is refused in words, or is read as another reader reads its cells, and read back from the request so."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from fuzzing import Refused, answer, changed_text, examples, pieces
from hypothesis import example, given
from hypothesis import strategies as st

from ecg_batch.request.events import KINDS
from ecg_batch.request.parse import load_request
from ecg_batch.request.places import all_places, read_places

pytestmark = pytest.mark.slow

ROWS = "record,event,start_s,length\n0,v_beat,10,\n,fibrillation,60.5,30\n1,pause,20,2.5\n1,posture,20,\n3,v_run,500,7\n"
ODD_CELLS = ("0", "1", "v_beat", "V_BEAT", " v_run ", "nan", "inf", "-1", "1e2", "1_0", "٣", "0.5", "597", "597.1", "0x1")
cells = st.sampled_from(ODD_CELLS) | pieces


@st.composite
def tables(draw) -> str:
    """A table with some cells replaced, or the text of one with anything changed."""
    if draw(st.booleans()):
        return draw(changed_text(ROWS))
    rows = [line.split(",") for line in ROWS.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        rows[draw(st.integers(0, len(rows) - 1))][draw(st.integers(0, 3))] = draw(cells)
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


@pytest.fixture(scope="module")
def request_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    asked = {"records": 4, "duration_s": 600, "mix": {"labels": {"NORM": 1.0}}, "events": {"table": "p.csv"}}
    (folder / "r.yaml").write_text(json.dumps(asked))
    return load_request(folder / "r.yaml")


@examples(3)
@given(tables())
@example("event,start_s\nv_beat,5\n")
@example("event,start_s\n\x00,5\n")
def test_a_table_is_refused_in_words_or_asks_for_what_its_cells_say(request_of, text):
    Path(request_of.places_table).write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    found = answer(lambda: read_places(request_of))
    if isinstance(found, Refused):
        return
    rows = list(csv.DictReader(io.StringIO(text)))
    places = all_places(replace(request_of, places=found))
    assert len(places) == len(rows) and {one.event for one in places} <= set(KINDS)
    assert sorted(one.start_s for one in places) == sorted(float(row["start_s"]) for row in rows)
    assert sorted(one.event for one in places) == sorted(row["event"].strip() for row in rows)
