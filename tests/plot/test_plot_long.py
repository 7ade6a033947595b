"""The page of a long record: drawn from beats, reads only the strip, marks the asked place."""

from dataclasses import asdict

import numpy as np
import pytest
from matplotlib.image import imread

from ecg_batch.errors import UserError
from ecg_batch.plot.long import plot_long
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.signal.hrv import measure_hrv
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm

DONORS = {"sinus": DonorRhythm(70.0), "ectopic": DonorRhythm(70.0, ectopic={"V": 0.05}), "fibrillation": DonorRhythm(70.0, True)}


class Reader:
    """A record of zeros that remembers what was read of it."""

    def __init__(self):
        self.spans = []

    def __call__(self, start_s, stop_s):
        self.spans.append((start_s, stop_s))
        return np.zeros((12, round(100 * (stop_s - start_s))))


def beats(name, duration_s):
    return make_rhythm(RhythmParameters(), DONORS[name], 70.0, duration_s, np.random.default_rng(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", DONORS)
@pytest.mark.parametrize("duration_s", [120, 3600, 86_400])
def test_a_page_is_drawn_and_only_its_strip_is_read(tmp_path, name, duration_s):
    rhythm, read, path = beats(name, duration_s), Reader(), tmp_path / "page.png"
    arguments = (rhythm.r_s, rhythm.symbol, read, None, path, rhythm.start_hour, rhythm.changes)
    measured = plot_long("A record", 100, *arguments)
    np.testing.assert_equal(asdict(measured), asdict(measure_hrv(rhythm.r_s, rhythm.symbol)))
    height, width = imread(path).shape[:2]
    assert height > width > 1000
    ((start_s, stop_s),) = read.spans
    assert stop_s - start_s == 10 and 0 <= start_s <= duration_s - 10
    if name == "ectopic":
        assert "V" in rhythm.symbol[(rhythm.r_s >= start_s) & (rhythm.r_s < stop_s)]


@pytest.mark.slow
def test_the_strip_is_where_it_was_asked(tmp_path):
    rhythm, read = beats("sinus", 3600), Reader()
    plot_long("A record", 100, rhythm.r_s, rhythm.symbol, read, 1234.0, tmp_path / "page.png")
    assert read.spans == [(1234.0, 1244.0)]


@pytest.mark.parametrize("at_s", [-1.0, 4000.0])
def test_a_strip_outside_the_record_is_refused(tmp_path, at_s):
    rhythm = beats("sinus", 3600)
    with pytest.raises(UserError, match="no strip at"):
        plot_long("A record", 100, rhythm.r_s, rhythm.symbol, Reader(), at_s, tmp_path / "page.png")
