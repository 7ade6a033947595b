"""What beats.parquet says of all records together: beats by type, rhythms, and what comes and goes in long records."""

from collections import Counter
from pathlib import Path

import pyarrow.compute as pc

from ecg_batch.dataset.beats import BEAT_SYMBOLS, LONE_P, QUALITY, RHYTHM
from ecg_batch.dataset.layout import BEATS
from ecg_batch.dataset.tables import beat_columns, is_there
from ecg_batch.report.parts import Section, Share, Table, Words
from ecg_batch.rhythm_words import BEATS as BEAT_WORDS
from ecg_batch.rhythm_words import RHYTHMS

NOTE, ST = '"', "s"


def beats(folder: Path) -> Section:
    if not is_there(folder, BEATS):
        none = Words("This dataset has no annotations of beats: before 0.5, records of 10 s came without.")
        return Section("Beats and rhythms", "beats", [none])
    said = count(folder)
    of_type = {symbol: sum(n for (one, _), n in said.items() if one == symbol) for symbol in BEAT_SYMBOLS}
    types = [(f"{symbol} {BEAT_WORDS[symbol].meaning}", n) for symbol, n in of_type.items() if n]
    parts: list = [_table("Beats by type", "type", types, max(1, sum(of_type.values())))]
    rhythms = [(RHYTHMS.get(aux, aux), n) for (symbol, aux), n in said.items() if symbol == RHYTHM]
    parts.append(_table("How often each rhythm begins; the first of a record is its own", "rhythm", rhythms))
    if others := _others(said):
        parts.append(_table("What else is annotated", "what", others))
    return Section("Beats and rhythms", "beats", parts)


def count(folder: Path) -> Counter:
    """(symbol, aux) -> rows. A row group is in memory at a time; numbers within a text, as of decibels, are left out."""
    said: Counter = Counter()
    for table in beat_columns(folder, ("symbol", "aux")):
        aux = pc.replace_substring_regex(table["aux"].combine_chunks(), r"-?\d+(\.\d+)? dB$", "")
        for row in table.set_column(1, "aux", aux).group_by(["symbol", "aux"]).aggregate([([], "count_all")]).to_pylist():
            said[row["symbol"], row["aux"].strip()] += row["count_all"]
    return said


def _others(said: Counter) -> list[tuple[str, int]]:
    found: Counter = Counter()
    for (symbol, aux), n in said.items():
        if symbol == LONE_P:
            found["P waves that no beat follows"] += n
        elif symbol == ST and aux.startswith("(ST"):
            found["ST episodes"] += n
        elif symbol == NOTE and not aux.endswith(" ends"):
            found[{"posture": "changes of posture"}.get(aux, aux)] += n
        elif symbol == QUALITY and aux.startswith("noise ") and aux != "noise ends":
            found["episodes of noise: " + " and ".join(sorted(aux.removeprefix("noise ").split("+")))] += n
        elif symbol == QUALITY and aux != "noise ends":
            found[f"minutes that failed the gate: {aux}"] += n
    return list(found.items())


def _table(caption: str, what: str, counts: list[tuple[str, int]], total: int = 0) -> Table:
    most = max((n for _, n in counts), default=1)
    rows = [[name, Share(f"{n:,}" + (f" ({100 * n / total:.2g} %)" if total else ""), n / most)]
            for name, n in sorted(counts, key=lambda each: (-each[1], each[0]))]  # fmt: skip
    return Table(caption, [what, "how many"], rows)
