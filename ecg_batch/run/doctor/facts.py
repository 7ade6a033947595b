"""A fact and what is wrong with it, how facts are found side by side within a time, and how they are shown."""

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ecg_batch.errors import clipped, printable

WIDTH = 14  # of the column of topics
LONGEST = 400  # characters of one fact


class Worth(StrEnum):
    """What a fact means for a run."""

    WELL = "well"
    ODD = "odd"  # a run works, but slower, with other bytes, or not with all options
    WRONG = "wrong"  # a run cannot work


MARKS = {Worth.WELL: " ", Worth.ODD: "?", Worth.WRONG: "!"}


@dataclass(frozen=True)
class Fact:
    """One line. todo: what to do about it, where it is not well."""

    topic: str
    text: str
    worth: Worth = Worth.WELL
    todo: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.worth]} {self.topic:<{WIDTH}} {clipped(self.text, LONGEST)}"


Question = Callable[[], Iterable[Fact]]


def odd(topic: str, text: str, todo: str) -> Fact:
    return Fact(topic, text, Worth.ODD, todo)


def wrong(topic: str, text: str, todo: str) -> Fact:
    return Fact(topic, text, Worth.WRONG, todo)


def found(questions: dict[str, Question], limit_s: float) -> Iterator[Fact]:
    """The answers in the order of the questions, asked all at once. A question that fails, or has not answered in time, is a fact
    itself: a file system or a device that hangs must not keep the others' answers back.
    """
    answers: dict[str, list[Fact]] = {}

    def answer(topic: str, question: Question) -> None:
        try:
            answers[topic] = list(question())
        except Exception as error:  # shown as a fact: whatever is odd here is what is being looked for
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{at.filename.rpartition('/')[2]}, line {at.lineno}"
            answers[topic] = [odd(topic, f"could not be found out: {type(error).__name__}: {error} ({place})",
                                  "Please report this line with the others")]  # fmt: skip

    threads = {topic: threading.Thread(target=answer, args=(topic, ask), daemon=True) for topic, ask in questions.items()}
    for thread in threads.values():
        thread.start()
    until = time.monotonic() + limit_s
    for topic, thread in threads.items():
        thread.join(max(until - time.monotonic(), 0))
        yield from answers.get(topic, [odd(topic, f"no answer within {limit_s:g} s", "It hangs here; ask the site")])


def lines(facts: list[Fact]) -> list[str]:
    """All facts, then what is wrong or odd with what to do, numbered."""
    told = [str(fact) for fact in facts]
    for worth, title in ((Worth.WRONG, "would keep a run from working"), (Worth.ODD, "worth a look")):
        if those := [fact for fact in facts if fact.worth == worth]:
            told += ["", f"{MARKS[worth]} {title}:"]
            told += [printable(f"  {number}. {_because(fact)}") for number, fact in enumerate(those, 1)]
    return told if any(fact.worth == Worth.WRONG for fact in facts) else [*told, "", "nothing would keep a run from working"]


def _because(fact: Fact) -> str:
    return f"{fact.topic}: {clipped(fact.text, LONGEST)}. {fact.todo}"
