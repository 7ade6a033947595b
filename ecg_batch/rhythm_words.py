"""Words for beats and rhythms, in one table each: WFDB's symbols and strings, the classes of ANSI/AAMI EC57, SCP-ECG's statements.

Symbols and codes: https://physionet.org/physiobank/annotations.shtml and wfdb's ecgcodes. Classes: ANSI/AAMI EC57 as
de Chazal 2004 (doi:10.1109/TBME.2004.827359), table 1, takes it, which most of the literature follows: escape beats of atrium and
node count as N, where the letter of EC57 has them with S, and every paced beat is Q. B, n, r and ? are not in that table; they go
where their like are. Statements: PTB-XL's scp_statements.csv, column `rhythm` (doi:10.1038/s41597-020-0495-6).
"""

from dataclasses import dataclass

BEAT_CLASSES = ("N", "S", "V", "F", "Q")  # not ectopic, supraventricular ectopic, ventricular ectopic, fusion, unknown


@dataclass(frozen=True)
class BeatWord:
    """code: of WFDB's annotation files; aami: one of BEAT_CLASSES."""

    code: int
    aami: str
    meaning: str


BEATS = {
    "N": BeatWord(1, "N", "normal"),
    "L": BeatWord(2, "N", "left bundle branch block"),
    "R": BeatWord(3, "N", "right bundle branch block"),
    "B": BeatWord(25, "N", "bundle branch block, not said which"),
    "e": BeatWord(34, "N", "atrial escape"),
    "j": BeatWord(11, "N", "nodal (junctional) escape"),
    "n": BeatWord(35, "N", "supraventricular escape"),
    "A": BeatWord(8, "S", "atrial premature"),
    "a": BeatWord(4, "S", "atrial premature, aberrated"),
    "J": BeatWord(7, "S", "nodal (junctional) premature"),
    "S": BeatWord(9, "S", "supraventricular premature or ectopic"),
    "V": BeatWord(5, "V", "ventricular premature"),
    "r": BeatWord(41, "V", "ventricular premature, R on T"),
    "E": BeatWord(10, "V", "ventricular escape"),
    "F": BeatWord(6, "F", "fusion of a ventricular and a normal beat"),
    "/": BeatWord(12, "Q", "paced"),
    "f": BeatWord(38, "Q", "fusion of a paced and a normal beat"),
    "Q": BeatWord(13, "Q", "not classifiable"),
    "?": BeatWord(30, "Q", "not classified"),
}
AAMI = {symbol: word.aami for symbol, word in BEATS.items()}

# WFDB's strings in the aux of a rhythm's beginning
RHYTHMS = {
    "(N": "normal sinus rhythm",
    "(SBR": "sinus bradycardia",
    "(AB": "atrial bigeminy",
    "(AFIB": "atrial fibrillation",
    "(AFL": "atrial flutter",
    "(SVTA": "supraventricular tachyarrhythmia",
    "(NOD": "nodal (junctional) rhythm",
    "(PREX": "pre-excitation",
    "(B": "ventricular bigeminy",
    "(T": "ventricular trigeminy",
    "(IVR": "idioventricular rhythm",
    "(VT": "ventricular tachycardia",
    "(VFL": "ventricular flutter",
    "(BI": "first degree block",
    "(BII": "second degree block",
    "(BIII": "third degree block",
    "(P": "paced rhythm",
}
FIBRILLATION, FLUTTER = "(AFIB", "(AFL"

# SCP-ECG's rhythm statements in WFDB's words; of several that a recording holds the first counts. Without a word of WFDB's:
# SVARR (supraventricular arrhythmia), which says of no rhythm which one it is.
RHYTHM_OF_STATEMENT = {
    "AFIB": "(AFIB", "AFLT": "(AFL", "SVTAC": "(SVTA", "PSVT": "(SVTA", "BIGU": "(B", "TRIGU": "(T", "PACE": "(P",
    "SBRAD": "(SBR", "STACH": "(N", "SARRH": "(N", "SR": "(N",
}  # fmt: skip
NO_P = frozenset({"AFIB", "AFLT"})  # statements of rhythms that have no P wave, although flutter waves can repeat with the beats
