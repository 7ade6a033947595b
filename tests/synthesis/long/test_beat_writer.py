"""Beats that the model of rhythm writes, in long records: as those of such donors are, whatever the neighbours."""

import numpy as np
import pytest
from making import plan_of

from ecg_batch.synthesis.long.beat_writer import WrittenBeats, beats_for, taken
from ecg_batch.synthesis.long.donor import long_donor
from ecg_batch.synthesis.long.rhythm import DonorRhythm, RhythmParameters, make_rhythm
from ecg_batch.synthesis.synthesizer import open_synthesizer

WRITTEN = WrittenBeats(np.array(list("NNVNNANNVVN")), np.array([1.02, 0.97, 0.6, 1.4, 1.0, 0.7, 1.2, 1.3, 0.5, 0.5, 1.6]))
ALL = frozenset("VA")


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return open_synthesizer(plan_of(tmp_path_factory.mktemp("written"), duration_s=60, records=64, rhythm={"order": "mamba"}))


def rows_of(synthesizer, code, count):
    table = synthesizer.bank.table
    others = {"AFIB", "AFLT", "PVC", "PAC", "BIGU", "TRIGU", "PACE"} - {code}
    alone = table.holds(code) & ~np.any([table.holds(other) for other in sorted(others)], axis=0)
    return np.flatnonzero(alone)[:count]


def test_outside_fibrillation_only_ectopic_beats_and_what_follows_them_are_taken():
    found = taken(WRITTEN, False, ALL, ALL, 1.0, np.zeros(11))
    assert "".join(found.symbol) == "NNVNNANNVVN"
    assert found.cycle.tolist() == [1, 1, 0.6, 1.4, 1, 0.7, 1.2, 1, 0.5, 0.5, 1.6]


def test_what_a_donor_of_single_ectopic_beats_cannot_show_does_not_come():
    """An early narrow beat that is called normal, an escape after a pause, three in a row, a beat on top of the T wave before."""
    beats = WrittenBeats(np.array(list("NNNVNVVVN")), np.array([1, 0.4, 1.8, 1.3, 1.0, 0.6, 0.5, 0.5, 0.3]))
    found = taken(beats, False, ALL, ALL, 1.0, np.zeros(9))
    assert "".join(found.symbol) == "NNNNNVVNN" and found.cycle.tolist() == [1, 1, 1, 1, 1, 0.6, 0.5, 1, 1]


def test_ectopic_beats_that_the_donor_lacks_become_normal_ones_in_their_time():
    found = taken(WRITTEN, False, frozenset("V"), ALL, 1.0, np.zeros(11))
    assert "".join(found.symbol) == "NNVNNNNNVVN" and found.cycle[5:7].tolist() == [1, 1]
    assert set(taken(WRITTEN, False, ALL, ALL, 0.0, np.zeros(11)).symbol) == {"N"}


def test_bigeminy_stays_with_the_rules(synthesizer):
    writer, table = synthesizer.beat_writer, synthesizer.bank.table
    others = ~np.any([table.holds(code) for code in ("AFIB", "PVC", "PAC")], axis=0)
    left = np.flatnonzero(table.holds("BIGU") | table.holds("TRIGU") | others)
    assert len(left) > 1000 and all(writer.sequences(int(row), 0, 70.0, 60) is None for row in left)
    assert all(writer.sequences(int(row), 0, 70.0, 60) for row in rows_of(synthesizer, "PVC", 5))


def test_two_in_a_row_come_only_to_donors_that_have_two():
    found = taken(WRITTEN, False, ALL, frozenset("A"), 1.0, np.zeros(11))
    assert "".join(found.symbol) == "NNVNNANNVNN" and found.cycle[9:].tolist() == [1, 1]


def test_in_fibrillation_all_cycles_are_as_written():
    found = taken(WRITTEN, True, frozenset("V"), ALL, 1.0, np.zeros(11))
    assert np.array_equal(found.cycle, WRITTEN.cycle) and "".join(found.symbol) == "NNVNNNNNVVN"


def test_a_sequence_is_the_same_alone_and_among_others(synthesizer):
    writer, rows = synthesizer.beat_writer, rows_of(synthesizer, "AFIB", 5)
    keys, rates = np.arange(5), np.linspace(60.0, 120.0, 5)
    each = list(zip(rows.tolist(), keys.tolist(), rates.tolist(), strict=True))
    alone = [next(writer.sequences(*asked, 600)) for asked in each]
    writer.prepare(rows, keys, rates, 600)
    for one, (row, key, rate) in zip(alone, each, strict=True):
        again = next(writer.sequences(row, key, rate, 600))
        assert len(one.cycle) == beats_for(600, rate)
        assert np.array_equal(again.cycle, one.cycle) and np.array_equal(again.symbol, one.symbol)


@pytest.mark.parametrize("fibrillation", [False, True], ids=["sinus", "fibrillation"])
def test_a_sequence_without_what_the_donor_states_is_not_taken(fibrillation):
    donor = DonorRhythm(60.0, fibrillation, {"V": 0.1}, couplets=ALL)
    none, one = (WrittenBeats(np.array(symbol), np.ones(40)) for symbol in (["N"] * 40, [*"NNV", *"N" * 37]))
    for written, shows in ((iter([none, one]), 1), (iter([none] * 4), 0)):
        rhythm = make_rhythm(RhythmParameters(), donor, 60.0, 20, np.random.default_rng(0), 12.0, written=written)
        assert "V" in rhythm.symbol, "by the rules, if by no sequence"
        assert not shows or "".join(rhythm.symbol[:4]) == "NNVN"


@pytest.mark.slow
def test_fibrillation_is_as_irregular_as_the_recordings_of_those_who_have_it(synthesizer):
    """CV of RR within 10 s: the mean over records within a tenth of what the donors in fibrillation show."""
    rows, bank = rows_of(synthesizer, "AFIB", 60), synthesizer.bank
    shown = np.mean([np.diff(bank.beats(row)).std() / np.diff(bank.beats(row)).mean() for row in rows])
    found = []
    for key, row in enumerate(rows.tolist()):
        rate = float(bank.table.hr_bpm[row])
        written = synthesizer.beat_writer.sequences(row, key, rate, 600)
        allowed = DonorRhythm(rate, fibrillation=True)
        rhythm = make_rhythm(RhythmParameters(), allowed, rate, 600, np.random.default_rng(key), 12.0, written=written)
        rr = np.diff(rhythm.r_s)
        assert 60 / rr.mean() == pytest.approx(rate, abs=0.3)
        count = round(10 / rr.mean())
        found += [part.std() / part.mean() for part in np.array_split(rr, len(rr) // count)]
    assert np.mean(found) == pytest.approx(shown, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "symbol"), [("PVC", "V"), ("PAC", "A")])
def test_donors_of_ectopic_beats_show_them_with_their_pauses(synthesizer, code, symbol):
    pauses, shares = [], []
    for key, row in enumerate(rows_of(synthesizer, code, 25).tolist()):
        donor = long_donor(synthesizer.bank, row)
        if symbol not in donor.ectopic:
            continue
        rate = float(synthesizer.bank.table.hr_bpm[row])
        written = synthesizer.beat_writer.sequences(row, key, rate, 600)
        allowed = DonorRhythm(rate, ectopic=donor.ectopic, couplets=ALL)
        rhythm = make_rhythm(RhythmParameters(), allowed, rate, 600, np.random.default_rng(key), 12.0, written=written)
        assert symbol in rhythm.symbol and set(rhythm.symbol) <= {"N", *donor.ectopic}
        rr, at = np.diff(rhythm.r_s), np.flatnonzero(rhythm.symbol[1:-1] == symbol) + 1
        single = at[(rhythm.symbol[at - 1] == "N") & (rhythm.symbol[at + 1] == "N")]
        pauses += (rr[single] / rr[single - 1]).tolist()
        shares.append((rhythm.symbol == symbol).mean())
    assert np.percentile(pauses, 20) > 1.15, "what follows is longer than the coupling"
    assert 0.02 < np.mean(shares) < 0.3 and np.std(shares) > 0.02, "patients differ"
