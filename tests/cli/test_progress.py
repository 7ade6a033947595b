"""Progress: a bar on a terminal; elsewhere a line after ten seconds, then now and then; nothing where it was asked to be quiet."""

import logging
import os
import pty
import re
import subprocess
import sys
import termios
import time
from itertools import accumulate, islice

import pytest
from places import ROOT

from ecg_batch import progress as module
from ecg_batch.progress import FIRST_S, LONGEST_S, SECOND_S, amount, duration, growing, progress, timed, track

WORK = """
import logging, sys, time
from ecg_batch.cli.logs import log_from
from ecg_batch.progress import track
log_from(getattr(logging, sys.argv[1]))
for item in track(range(4), "work", "pieces"):
    time.sleep(0.05)
    logging.getLogger("ecg_batch.work").info("did %s", item)
"""


@pytest.fixture
def quick(monkeypatch, caplog):
    """Lines come ten times as often as a second; they are read from caplog."""
    monkeypatch.setattr(module, "FIRST_S", 0.1)
    monkeypatch.setattr(module, "SECOND_S", 0.1)
    caplog.set_level(logging.INFO, "ecg_batch")
    return caplog


def test_lines_come_after_ten_seconds_then_every_thirty_then_every_five_minutes():
    at_s = list(accumulate(islice(growing(FIRST_S, SECOND_S), 40)))
    assert at_s[:3] == [10, 40, 85] and at_s[-1] - at_s[-2] == LONGEST_S == 300
    assert len([at for at in at_s if at < 3600]) < 25


def test_track_gives_every_item_and_says_how_far_it_is(quick):
    assert list(track((time.sleep(0.06) or item for item in range(5)), "work", "pieces", 5)) == [0, 1, 2, 3, 4]
    first = quick.messages[0]
    assert re.fullmatch(r"work: 1 of 5 pieces \(20%\), [\d.]+ pieces/s, [\d.]+ s left", first), first


def test_what_a_former_run_made_does_not_count_for_the_speed(quick):
    with progress(1000, "", "records", done=900) as shown:
        time.sleep(0.05)
        shown.update(50)
        share, speed, left = shown.line().split(", ")
        assert share == "950 of 1,000 records (95%)" and float(speed.split()[0].replace(",", "")) <= 1000 and left.endswith("left")


def test_slow_work_is_told_by_the_time_of_each(monkeypatch):
    with progress(7, "evaluation", "sections") as shown:
        shown.note, shown.started = "fidelity", shown.started - 120
        shown.update()
        assert shown.line() == "evaluation: 1 of 7 sections (14%), fidelity, 2 min 0 s each, 12 min 0 s left"


def test_work_done_elsewhere_is_looked_at(quick):
    looks = []
    with progress(3, "", "records", look=lambda shown: looks.append(setattr(shown, "done", len(looks)))):
        time.sleep(0.35)
    assert "2 of 3 records" in quick.text


def test_nothing_is_said_where_logging_is_not_set_up(monkeypatch, capsys):
    monkeypatch.setattr(module, "FIRST_S", 0.01)
    list(track([time.sleep(0.1)] * 2, "work", "pieces"))
    assert capsys.readouterr() == ("", "")


def test_an_error_in_the_work_is_the_works_own(quick):
    with pytest.raises(ZeroDivisionError), progress(3, "work", "pieces"):
        1 / 0  # noqa: B018


def test_times_of_steps_are_for_those_who_ask(caplog):
    caplog.set_level(logging.DEBUG, "ecg_batch")
    with timed("plan"):
        pass
    assert re.fullmatch(r"plan: 0.\d\d\d s", caplog.messages[0])


@pytest.mark.parametrize(("level", "bar"), [("INFO", True), ("WARNING", False)])
def test_a_terminal_gets_a_bar_with_narration_above_it_unless_quiet(level, bar):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen([sys.executable, "-c", WORK, level], stderr=theirs, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait() == 0
    assert (b"4/4" in said and b" pieces/s" in said and said.count(b"did 3") == 1) if bar else said == b"", said


def test_amounts_and_durations():
    assert [amount(number) for number in (1024, 3.27)] == ["1,024", "3.27"]
    assert [duration(s) for s in (0.25, 42.4, 200, 18_720)] == ["0.2 s", "42 s", "3 min 20 s", "5 h 12 min"]
