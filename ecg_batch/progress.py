"""Progress of long work: a bar on a terminal, elsewhere a line in the log now and then, so that a batch job says how far it is.

Lines go through `logging`, so nothing but the bar shows where logging is not set up; ecg_batch.cli sets it up.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext

FIRST_S, SECOND_S, GROWTH, LONGEST_S = 10.0, 30.0, 1.5, 300.0  # pauses before lines: the first, the second, then longer ones
BAR_S = 0.5  # between looks of a bar at work that is done elsewhere
QUIET = logging.WARNING  # a level of the logger ecg_batch from which on no bar is shown

log = logging.getLogger(__name__)


class Progress:
    """How much of `total` is done. look(progress) is called before each showing, where the work is done by others."""

    def __init__(self, total: float, what: str, unit: str, done: float, look: Callable | None):
        self.total, self.what, self.unit, self.look = total, what, unit, look
        self.done, self.note = done, ""
        self.draw = lambda: None
        self.refresh()
        self.before, self.started = self.done, time.monotonic()  # what a former run made does not count for the speed

    def update(self, more: float = 1) -> None:
        self.done += more
        self.draw()

    def refresh(self) -> None:
        if self.look:
            self.look(self)

    def line(self) -> str:
        """'measure: 1,200 of 1,732 records (69 %), 85.3 records/s, 6.2 s left'."""
        name, share = f"{self.what}: " if self.what else "", self.done / self.total if self.total else 1.0
        parts = [f"{name}{amount(self.done)} of {amount(self.total)} {self.unit} ({share:.0%})", self.note]
        if (fresh := self.done - self.before) > 0:
            each_s = (time.monotonic() - self.started) / fresh
            parts.append(f"{1 / each_s:,.1f} {self.unit}/s" if each_s < 1 else f"{duration(each_s)} each")
            parts.append(f"{duration(each_s * (self.total - self.done))} left")
        return ", ".join(filter(None, parts))


@contextmanager
def progress(total: float, what: str, unit: str, done: float = 0, look: Callable | None = None) -> Iterator[Progress]:
    """Show how far the work in the block is; it calls update(), or look sets done. done: of a former run. unit: a plural."""
    state = Progress(total, what, unit, done, look)
    if not sys.stderr.isatty():
        showing = _lines(state) if log.isEnabledFor(logging.INFO) else nullcontext()
    else:
        showing = _bar(state) if logging.getLogger("ecg_batch").level < QUIET else nullcontext()
    with showing:
        yield state


def track(items: Iterable, what: str, unit: str, total: int | None = None, done: int = 0) -> Iterator:
    """The items, one after another, with progress."""
    if total is None:
        total = len(items) if isinstance(items, Sized) else 0
    with progress(total, what, unit, done) as state:
        for item in items:
            yield item
            state.update()


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long the block took, to those who asked for every detail (--verbose)."""
    start = time.perf_counter()
    yield
    log.debug("%s: %.3f s", what, time.perf_counter() - start)


@contextmanager
def beside_a_bar() -> Iterator[None]:
    """Print results in here while a bar may be on the terminal: it steps aside."""
    if "tqdm" not in sys.modules:
        yield
        return
    with sys.modules["tqdm"].tqdm.external_write_mode():
        yield


@contextmanager
def _bar(state: Progress) -> Iterator[None]:
    from tqdm import tqdm

    with tqdm(total=state.total, desc=state.what or None, unit=f" {state.unit}", initial=state.done, smoothing=0.1) as bar:

        def draw() -> None:
            bar.set_postfix_str(state.note, refresh=False)
            bar.update(state.done - bar.n)

        def look() -> None:
            state.refresh()
            draw()

        state.draw = draw
        draw()
        with _again(look, _same(BAR_S)) if state.look else nullcontext():
            yield
        look()


@contextmanager
def _lines(state: Progress) -> Iterator[None]:
    def say() -> None:
        state.refresh()
        log.info("%s", state.line())

    with _again(say, growing(FIRST_S, SECOND_S)):
        yield


def growing(first_s: float, second_s: float) -> Iterator[float]:
    """Pauses between lines: a short job speaks soon, a long one does not fill its log."""
    yield first_s
    pause_s = second_s
    while True:
        yield pause_s
        pause_s = min(GROWTH * pause_s, LONGEST_S)


def _same(pause_s: float) -> Iterator[float]:
    while True:
        yield pause_s


@contextmanager
def _again(show: Callable[[], None], pauses_s: Iterator[float]) -> Iterator[None]:
    """Call `show` in a thread, after each of the pauses, while the block runs."""
    over = threading.Event()

    def keep_showing() -> None:
        while not over.wait(next(pauses_s)):
            show()

    thread = threading.Thread(target=keep_showing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# Words ----------------------------------------------------------------------------------------------------------------


def amount(number: float) -> str:
    """'1,024', or '3.27' where a part of a long record is done."""
    return f"{number:,.2f}" if isinstance(number, float) else f"{number:,}"


def duration(seconds: float) -> str:
    """'42 s', '3 min 20 s', '5 h 12 min'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
