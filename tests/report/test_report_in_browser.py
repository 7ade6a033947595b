"""The page in a real browser: it opens without a word in the log, asks for nothing, fits a phone, and prints on A4."""

import re
from pathlib import Path

import pytest
import yaml
from browser import look, needs_browser, print_pdf
from fakes import fake, small_request
from places import ROOT

from ecg_batch.report.page import write_report
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import synthesize
from ecg_batch.synthesis.generate import open_generator

pytestmark = [pytest.mark.slow, needs_browser]
MOST_BYTES = 3_000_000
HOURS = {"records": 2, "duration_s": 3600, "seed": 1, "mix": {"labels": {"AFIB": 0.5, "NORM": 0.5}, "hr_bpm": 75}, "noise": {},
         "events": {}}  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory, inputs) -> dict[str, Path]:
    """Of each dataset its page: a part of the demo, one of rare diagnoses, hours with all events, and a toy."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "hours.yaml").write_text(yaml.safe_dump(HOURS))
    requests = {
        "demo": load_request(ROOT / "configs/demo.yaml", ["records=512"]),
        "rare": load_request(ROOT / "configs/rare.yaml", ["records=256", "batch=64", "shard=256", "noise={}"]),
        "hours": load_request(folder / "hours.yaml"),
    }
    for name, request in requests.items():
        synthesize(request, folder / name, 1, open_generator)
    synthesize(load_request(small_request(inputs, folder / "toy.yaml")), folder / "toy", 1, fake())
    for name in (*requests, "toy"):
        write_report(folder / name, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in (*requests, "toy")}


@pytest.mark.parametrize("name", ["demo", "rare", "hours", "toy"])
def test_it_opens_on_a_phone_without_a_word_a_request_or_scrolling_sideways(pages, name):
    assert pages[name].stat().st_size < MOST_BYTES
    seen = look(pages[name], 400, opened=True)
    assert seen.log == [] and seen.asked == []
    assert seen.facts["width"] == 400 and seen.facts["beyond"] == [] and seen.facts["scrolled"] == []
    assert seen.facts["smallest"] >= 12 and seen.facts["smallest_on_paper"] > 9  # px
    assert seen.facts["open_sheets"] == seen.facts["sheets"] > 1 and seen.facts["across"] == 2


def test_on_a_screen_four_columns_lie_side_by_side_and_most_sheets_are_folded_away(pages):
    facts = look(pages["demo"], 1200).facts
    assert facts["width"] == 1200 and facts["across"] == 4
    assert (facts["sheets"], facts["open_sheets"]) == (60, 10)


def test_it_prints_on_a4_with_ecgs_across(pages, tmp_path):
    pdf = print_pdf(pages["demo"], tmp_path / "demo.pdf")
    boxes = [tuple(round(float(value)) for value in box.split()) for box in re.findall(rb"/MediaBox \[([\d. ]+)\]", pdf)]
    assert set(boxes) == {(0, 0, 595, 842), (0, 0, 842, 595)}
    assert boxes.count((0, 0, 842, 595)) == 10 and len(boxes) < 25  # the sheets that are not folded away


def test_what_is_wrong_with_a_page_is_seen(tmp_path):
    """Or the tests above would pass by looking away."""
    page = tmp_path / "bad.html"
    page.write_text('<!doctype html><link rel="icon" href="data:,"><p style="width:500px">wide</p><img src="/absent.png">'
                    '<img src="https://example.org/a.png"><link rel="stylesheet" href="https://example.org/style.css">'
                    '<script>throw new Error("here")</script>', "utf-8")  # fmt: skip
    seen = look(page, 400)
    assert seen.facts["width"] > 400 and "P. wide" in seen.facts["beyond"]
    asked = [address.removeprefix("http://127.0.0.1").split("/")[-1] for address in seen.asked]
    assert asked == ["absent.png", "a.png", "style.css"] and any("Error: here" in line for line in seen.log)
