"""What the page of a long record says of its course: by its annotations alone, and measured between normal beats only."""

import numpy as np
import pytest

from ecg_batch.plot.course import in_own_rhythm, lanes_in, rhythms_in
from ecg_batch.plot.long import plot_long
from ecg_batch.request.rhythm_parameters import RhythmParameters
from ecg_batch.signal.hrv import measure_hrv
from ecg_batch.synthesis.long.rhythm import DonorRhythm, make_rhythm

SAID = [(0, "+", "(N"), (1000, "+", "(AFIB"), (1500, "+", "(N"), (1600, "s", "(ST2+"), (1650, "s", "AST2+200"),
        (1700, "s", "ST2+)"), (2000, "+", "(VT"), (2100, "+", "(AFIB"), (2200, "+", "(N"), (2300, '"', "posture"),
        (2400, '"', "activity"),
        (2401, "~", "noise muscle 6.0 dB"), (2450, "~", "beats"), (2500, "~", "noise ends"), (2600, '"', "activity ends"),
        (2700, "~", "noise mains 3.0 dB"), (2800, "~", "noise muscle 3.0 dB")]  # fmt: skip
ROWS = tuple(np.array(column) for column in zip(*SAID, strict=True))


def test_each_stretch_has_its_lane():
    lanes = {lane.name: lane.spans for lane in lanes_in(*ROWS, 100, 30.0)}
    assert lanes == {"atrial fibrillation": [(10, 15), (21, 22)], "V tachycardia": [(20, 21)], "ST episode": [(16, 17)],
                     "activity": [(24, 26)], "noise": [(24.01, 25), (27, 28), (28, 30)]}  # fmt: skip
    assert lanes_in(*(column[:1] for column in ROWS), 100, 30.0) == []


def test_beats_of_the_own_rhythm_are_those_outside_all_others():
    r_s = np.array([0.0, 9.9, 10.0, 14.9, 15.0, 20.5, 21.5, 22.5])
    assert in_own_rhythm(r_s, rhythms_in(*ROWS, 100)).tolist() == [True, True, False, False, True, False, False, True]


def test_what_is_measured_leaves_out_fibrillation_ectopic_beats_and_pauses(tmp_path):
    rhythm = make_rhythm(RhythmParameters(), DonorRhythm(70.0), 70.0, 1200, np.random.default_rng(3))
    alone = measure_hrv(rhythm.r_s)
    r_s, symbol = rhythm.r_s.copy(), rhythm.symbol.copy()
    inside = (r_s > 300) & (r_s < 500)
    r_s[inside] += np.random.default_rng(0).uniform(-0.3, 0.3, inside.sum())
    r_s[600:] += 2.5
    symbol[[100, 700]] = "V", "B"
    course = [(0.0, "(N"), (299.0, "(AFIB"), (501.0, "(N")]
    arguments = (r_s, symbol, lambda start, stop: np.zeros((12, 1000)), None, tmp_path / "page.png", None)
    found = plot_long("A record", 100, *arguments, course)
    assert abs(found.rmssd_ms / alone.rmssd_ms - 1) < 0.1 and abs(found.sdnn_ms / alone.sdnn_ms - 1) < 0.15
    assert measure_hrv(r_s).rmssd_ms > 3 * alone.rmssd_ms


@pytest.mark.parametrize("symbol", ["N", "/"])
def test_a_record_without_a_normal_beat_is_drawn_all_the_same(tmp_path, symbol):
    r_s = np.arange(0.5, 120, 0.8)
    arguments = (r_s, np.full(len(r_s), symbol), lambda start, stop: np.zeros((12, 1000)), None, tmp_path / "page.png", None)
    assert np.isnan(plot_long("A record", 100, *arguments, [(0.0, "(N"), (0.4, "(AFIB")]).rmssd_ms)
    assert (tmp_path / "page.png").stat().st_size > 10_000
