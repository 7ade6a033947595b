"""The page about a dataset: its numbers are those of the tables, what is from files is escaped, equal datasets have equal pages."""

import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pandas
import pyarrow as pa
import pytest
from fakes import make_fake_shard

import ecg_batch
from ecg_batch.errors import UserError
from ecg_batch.plot.course import Lane
from ecg_batch.plot.paper import Sheet
from ecg_batch.report import beats, gallery, rows
from ecg_batch.report.glance import course_of
from ecg_batch.report.page import render, write_report
from ecg_batch.report.parts import Drawn, histogram
from ecg_batch.report.sheet import columns_of, path_of
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.synthesis.check import FLAGS

ALONE = {"meta", "link", "br", "img", "hr", "input"}  # without an end
HOSTILE = "<script>alert('1')</script>&\"'"


class Page(HTMLParser):
    """Elements with their attributes, in order; text by element. An end that no beginning has is an error."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in ALONE)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] != ["style"] else ""

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(made_once) -> str:
    return render(ecg_batch.open_dataset(made_once))


# What it says ---------------------------------------------------------------------------------------------------------


def numbers_of(caption: str, html: str) -> dict[str, list[str]]:
    """Head of each row of a table -> the texts of its other cells."""
    inside = re.search(rf"<caption>{caption}.*?</table>", html, re.DOTALL)[0]
    found = {}
    for row in re.findall(r"<tr><th scope=\"row\".*?</tr>", inside, re.DOTALL):
        first, *others = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL)]
        found[first] = others
    return found


def test_its_numbers_are_those_of_the_tables(page, made_once):
    table = pandas.read_parquet(made_once / "records.parquet")
    said = numbers_of("Asked for", page)
    for label, count in table["label"].value_counts().items():
        held = table["NORM"] if label == "NORM" else np.array([label in json.loads(codes) for codes in table["scp_codes"]])
        share = {"NORM": "50 %", "AFIB": "30 %", "SBRAD": "20 %"}[label]
        of_these = int(held[table["label"] == label].sum())
        assert said[label] == [share, f"{count} ({100 * count / 540:.1f} %)", str(of_these), str(int(held.sum()))]
    folds = numbers_of("By fold", page)
    for fold, count in table["donor_fold"].value_counts().items():
        patients = table[table["donor_fold"] == fold]["donor_patient_id"].nunique()
        assert folds[str(fold)] == [str(count), str(count), str(patients)]
    manifest = json.loads((made_once / "dataset.json").read_text())
    for words in ("540 synthetic 12-lead ECGs of 10 s at 100 Hz", "not measured", "seed 7", "mix:\n  labels: {AFIB: 0.3"):
        assert words in page
    assert manifest["run_id"] in page and manifest["content_root"] in page


def test_beats_are_counted_by_symbol_and_note(made_once):
    table = pandas.read_parquet(made_once / "beats.parquet")
    assert beats.count(made_once) == Counter(zip(table["symbol"], table["aux"], strict=True))
    notes = [*[("~", "noise muscle")] * 3, ("~", "noise muscle+baseline"), ("~", "noise baseline+muscle"), ("~", "noise ends"),
             ("s", "(ST1-"), ("s", "AST1-210"), ("s", "ST1-)"), ('"', "activity"), ('"', "activity ends")]  # fmt: skip
    said = {"episodes of noise: muscle": 3, "episodes of noise: baseline and muscle": 2, "ST episodes": 1, "activity": 1}
    assert dict(beats._others(Counter(notes))) == said


def test_every_flag_has_its_meaning_on_the_page():
    assert set(rows.FLAG_MEANS) == set(FLAGS)


def test_flags_are_counted_by_kind_and_records_named(make_dataset, monkeypatch):
    folder = make_dataset(records=130, shard=64)
    dataset = ecg_batch.open_dataset(folder)
    flagged = [""] * 130
    flagged[3], flagged[64], flagged[90] = "beats", "beats,heart_rate", "flat"
    at = dataset.records.schema.get_field_index("flags")
    table = dataset.records.set_column(at, "flags", pa.array(flagged))
    section = rows.flags(rows.Rows(dataset, table))
    assert [row[0::2] for row in section.parts[1].rows] == [["beats", "2"], ["flat", "1"], ["heart_rate", "1"]]
    assert section.parts[1].rows[0][3] == "3, 64" and section.parts[0].text.startswith("3 of 130 records (2.3 %)")


def test_a_histogram_holds_every_value_once_between_round_edges():
    values = np.append(np.random.default_rng(0).normal(75, 15, 999), np.nan)
    made = histogram("x", "bpm", {"one": values, "other": values[:10]})
    assert [int(one.counts.sum()) for one in made.series] == [999, 10] and (np.diff(made.edges) == 5).all()
    assert made.edges[0] % 5 == 0 and "one: 999 values" in made.says
    assert histogram("x", "bpm", {"none": np.array([np.nan])}).says == "no values"
    assert histogram("x", "bpm", {"same": np.full(3, 60.0)}).series[0].counts.sum() == 3


# What it is -----------------------------------------------------------------------------------------------------------


def test_it_is_well_formed_and_says_in_words_what_its_pictures_show(page):
    read = Page(page)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and {link["href"].removeprefix("#") for link in read.of("a")} <= set(ids)
    assert all(attributes.get("aria-label") for _, attributes in read.elements if attributes.get("role") == "img")
    assert all(attributes.get("aria-hidden") == "true" for attributes in read.of("svg"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in read.of("th")) and len(read.of("th")) > 20
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) == 1
    assert not read.of("script") and not read.of("img") and read.of("html")[0]["lang"] == "en"
    assert not [attributes for _, attributes in read.elements if any(name.startswith("on") for name in attributes)]
    assert "src=" not in page and "@import" not in page and not re.search(r"url\((?!#mm\))", page)


def test_equal_datasets_give_equal_pages_wherever_they_lie(page, small_dataset, made_once):
    assert small_dataset.parent != made_once.parent and render(ecg_batch.open_dataset(small_dataset)) == page


@pytest.mark.slow
def test_what_comes_from_files_is_text_and_nothing_else(write_request, tmp_path, monkeypatch):
    """Labels, flags and statements of a sound dataset, its folder's name, and columns that only some datasets have."""
    read_rows_of = rows.read_rows_of

    def with_hostile_columns(dataset):
        table, count = read_rows_of(dataset).table, len(dataset)
        lists = pa.array([[HOSTILE]] * count, pa.list_(pa.string()))
        texts, ratios = pa.array([HOSTILE] * count), pa.array([1.0] * count)
        more = {"snr_db": ratios, "noise_kinds": lists, "masked": lists, "donor_source": texts, "donor_record": texts}
        for name, column in more.items():
            table = table.append_column(name, column)
        return rows.Rows(dataset, table)

    def open_hostile(plan):
        def make_hostile(shard, *given):
            ecg, table, annotations = make_fake_shard(plan, shard, *given)
            hostile = pa.array([HOSTILE] * len(table))
            for name in ("label", "flags"):
                table = table.set_column(table.schema.get_field_index(name), name, hostile)
            codes = pa.array([json.dumps({HOSTILE: 100})] * len(table))
            table = table.set_column(table.schema.get_field_index("scp_codes"), "scp_codes", codes)
            return ecg, table, annotations

        return make_hostile

    folder = tmp_path / "<script>alert(2)<&script>"
    synthesize(load_request(write_request(records=64, batch=64, shard=64)), folder, 1, open_hostile)
    monkeypatch.setattr(rows, "read_rows_of", with_hostile_columns)
    read = Page(render(ecg_batch.open_dataset(folder)))
    assert not read.of("script") and read.text.count(HOSTILE) > 20
    assert not [attributes for tag, attributes in read.elements if any(name.startswith("on") for name in attributes)]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"format": "hdf5"}, {"mix": None, "cohort": {}}, {"records": 1}, {"noise": None}])
def test_other_kinds_of_datasets_have_their_page(make_dataset, changes):
    folder = make_dataset(**{"records": 70, **changes})
    if "noise" in changes:  # as before 0.5
        (folder / "SHA256SUMS").unlink()
        (folder / "beats.parquet").unlink()
    html = render(ecg_batch.open_dataset(folder))
    Page(html)
    words = {"format": "a file a shard in ecg.hdf5", "mix": "cohort:\n  hr_spread: 0.1", "noise": "has no annotations of beats"}
    assert words.get(next(iter(changes)), "1 synthetic 12-lead ECG of 10 s") in html


def test_types_of_beats_are_text_too():
    sheet = Sheet(np.zeros((12, 1000)), 100, "", "")
    assert "&lt;" in columns_of(sheet, [(0.5, "<")])[0] and "<<" not in columns_of(sheet, [(0.5, "<")])[0]


# What it refuses ------------------------------------------------------------------------------------------------------


def test_what_is_unfinished_or_none_is_refused(make_run, small_dataset, tmp_path):
    run = make_run("begun")
    for folder in (run.folder, run.out):
        with pytest.raises(UserError, match="not finished yet: ecg-batch status says how far it is"):
            write_report(folder, tmp_path / "page.html")
    with pytest.raises(UserError, match="no dataset"):
        write_report(tmp_path, tmp_path / "page.html")
    with pytest.raises(UserError, match="cannot be written.*another --out"):
        write_report(small_dataset, tmp_path / "absent/page.html")
    assert not (tmp_path / "page.html").exists()


# ECG paper ------------------------------------------------------------------------------------------------------------


def points_of(path: str) -> np.ndarray:
    """Corners (corner, 2) of a path that path_of wrote."""
    start, steps = re.fullmatch(r"M0 (-?\d+)l(.*)", path).groups()
    pairs = np.array([int(number) for number in re.findall(r"-?\d+", steps)]).reshape(-1, 2)
    return np.vstack([[0, int(start)], pairs]).cumsum(axis=0)


def test_at_100_hz_every_sample_is_drawn_to_a_twentieth_of_a_millimetre():
    height = 40 * np.random.default_rng(1).standard_normal(251).cumsum()
    height[50:90] = 7.2
    corners = points_of(path_of(height))
    assert np.abs(np.interp(np.arange(251), *corners.T) - height).max() <= 0.5 and len(corners) < 251 - 30


def test_at_500_hz_the_least_and_the_most_of_each_ten_milliseconds_are_drawn():
    height = 90 * np.random.default_rng(2).standard_normal(1251)
    corners = points_of(path_of(height, 5))
    for start in range(0, 1251, 5):
        inside = corners[(corners[:, 0] >= start) & (corners[:, 0] < start + 5), 1]
        part = np.rint(height[start : start + 5])
        assert inside.min() == part.min() and inside.max() == part.max()


def test_a_sheet_is_drawn_to_scale_with_twelve_leads_and_pulses():
    """A wave of 1 mV and 1 Hz: 10 mm high, 25 mm long, in each lead's place."""
    time = np.arange(1000) / 100
    sheet = Sheet(np.tile(0.5 * np.sin(2 * np.pi * time), (12, 1)), 100, "", "")
    columns = columns_of(sheet)
    names = [re.findall(r'<text x="[\d.]+" y="[\d.]+">(\w+)</text>', column) for column in columns]
    assert names == [["I", "II", "III", "II"], ["aVR", "aVL", "aVF"], ["V1", "V2", "V3"], ["V4", "V5", "V6"]]
    boxes = [[float(number) for number in re.search(r'viewBox="([^"]+)"', column)[1].split()] for column in columns]
    assert [box[0] for box in boxes] == [0, 70.5, 133, 195.5] and [box[2] for box in boxes] == [70.5, 62.5, 62.5, 62.5]
    for column in columns:
        traces = re.findall(r'translate\([^)]+\)scale\(([\d.]+) ([\d.]+)\)" d="(M0 [^"]+)"', column)
        assert len(traces) == 4
        for along, up, path in traces:
            corners = points_of(path) * [float(along), float(up)]
            assert np.ptp(corners[:, 1]) == pytest.approx(10, abs=0.1) and corners[-1, 0] in (62.25, 62.5)
            above = corners[corners[:, 1] < -4.9, 0]
            assert above[above > above[0] + 5][0] - above[0] == pytest.approx(25, abs=1)
    assert 'd="M1 ' in columns[0] and columns[0].count("v-10h5v10") == 4  # 1 mV for 200 ms, for each row


def test_an_hour_at_a_glance_has_its_rates_and_its_lanes():
    r_s = np.arange(0.5, 3600, 0.75)
    course = course_of(r_s, [Lane("V tachycardia", "#f00", [(1800, 1810), (3000, 3000.5)])], 3600.0, 900.0)
    assert (course.low, course.high, course.at) == (80, 90, 0.25) and course.ticks[-1] == (1.0, "01:00")
    (name, facts, _, path) = course.lanes[0]
    assert (name, facts) == ("V tachycardia", "2, 10 s") and path.startswith("M500.0 0h2.8")
    assert "mean of each minute from 80 to 80 bpm" in course.says


# Which records --------------------------------------------------------------------------------------------------------


def test_records_without_a_flag_and_of_new_patients_come_first(small_dataset):
    dataset = ecg_batch.open_dataset(small_dataset)
    table = dataset.records
    chosen = gallery.choose(rows.Rows(dataset, table), "AFIB")
    patient, label = table["donor_patient_id"].to_pylist(), table["label"].to_pylist()
    assert len(chosen) == 12 == len({patient[row] for row in chosen}) and {label[row] for row in chosen} == {"AFIB"}
    flagged = pa.array(["beats" if row in chosen else "" for row in range(len(table))])
    spoiled = table.set_column(table.schema.get_field_index("flags"), "flags", flagged)
    assert not set(chosen) & set(gallery.choose(rows.Rows(dataset, spoiled), "AFIB"))


def test_there_are_as_many_pictures_as_there_is_room_for_and_what_is_left_out_is_said(small_dataset):
    big = Drawn("", "", "", ["x" * 100_000], 108.0)
    chosen = {f"L{label}": list(range(12)) for label in range(10)}
    drawn = gallery.draw_in_turns(chosen, lambda row: big)
    counts = [len(sheets) for sheets in drawn.values()]
    assert sum(counts) * big.bytes <= gallery.MOST_BYTES < (sum(counts) + 1) * big.bytes and max(counts) - min(counts) <= 1
    said = gallery.words(ecg_batch.open_dataset(small_dataset), chosen, drawn, 71)
    assert "Of 71 labels the 10 most frequent are shown; 61 are left out" in said
    assert "room for fewer than 12 records of each" in said
    drawn["L3"] = [big] * 12
    assert "of L0, L1, L2, L4, " in gallery.words(ecg_batch.open_dataset(small_dataset), chosen, drawn, 10)


def test_the_command_says_where_it_wrote(small_dataset, capsys):
    from ecg_batch.cli.main import main

    assert main(["report", str(small_dataset)]) == 0
    page = small_dataset.with_name("dataset.report.html")
    assert capsys.readouterr().out == f"{page}: {page.stat().st_size / 1e6:.2f} MB\n"
