"""The table of words says what WFDB and PTB-XL say, and whatever records have in them is in it."""

import wfdb.io.annotation as wfdb_words

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.beats import BEAT_SYMBOLS
from ecg_batch.dataset.beats import RHYTHMS as OF_RECORDS
from ecg_batch.donors.bank import read_table
from ecg_batch.rhythm_words import AAMI, BEAT_CLASSES, BEATS, RHYTHM_OF_STATEMENT, RHYTHMS

IS_BEAT = "NLRBAaJSVrFejnE/fQ?"  # https://physionet.org/physiobank/annotations.shtml, beat annotations


def test_symbols_and_codes_are_those_of_wfdb():
    of_wfdb = {label.symbol: label.label_store for label in wfdb_words.ann_labels}
    assert set(BEATS) == set(IS_BEAT)
    assert {symbol: word.code for symbol, word in BEATS.items()} == {symbol: of_wfdb[symbol] for symbol in BEATS}


def test_descriptions_agree_with_those_of_wfdb():
    """One word of each of ours stands in WFDB's, so no two lines are exchanged."""
    of_wfdb = {label.symbol: label.description.lower() for label in wfdb_words.ann_labels}
    words = {"L": "left", "R": "right", "B": "bundle", "e": "escape", "j": "escape", "n": "escape", "A": "atrial", "a": "aberrated",
             "J": "nodal", "S": "supraventricular", "V": "ventricular", "r": "r-on-t", "E": "escape", "F": "fusion", "/": "paced",
             "f": "fusion"}  # fmt: skip
    for symbol, word in words.items():
        assert word in of_wfdb[symbol], (symbol, of_wfdb[symbol])
        assert word == "r-on-t" or word in BEATS[symbol].meaning, (symbol, BEATS[symbol].meaning)


def test_classes_are_those_of_de_chazal():
    of = {name: {symbol for symbol in "NLRejAaJSVEF/fQ" if AAMI[symbol] == name} for name in BEAT_CLASSES}
    assert of == {"N": set("NLRej"), "S": set("AaJS"), "V": set("VE"), "F": set("F"), "Q": set("/fQ")}


def test_what_records_have_in_them_is_in_the_table():
    assert set(BEAT_SYMBOLS) <= set(BEATS) and set(OF_RECORDS) <= set(RHYTHMS)
    assert set(RHYTHM_OF_STATEMENT.values()) <= set(RHYTHMS)


def test_statements_are_those_of_the_bank():
    assert set(RHYTHM_OF_STATEMENT) <= set(read_table(BUNDLED).codes)
