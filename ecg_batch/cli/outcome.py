"""The one place where errors become words on stderr and an exit status."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecg_batch.errors import ShardsFailed, UserError, in_words

FAILED, MENDABLE, INTERRUPTED, CLOSED_PIPE = 1, 2, 130, 141  # the last two as shells count: 128 and the signal's number


def exit_status(run: Callable[[], int]) -> int:
    """What `run` returns, or the status for what it raises. Anything but these is a fault of the program: a traceback, 1."""
    try:
        try:
            with _interrupted_once():
                return run()
        finally:
            sys.stdout.flush()  # so that a reader who has gone away shows here, and not when the interpreter ends
    except UserError as error:
        print_error(str(error))
        return MENDABLE
    except ModuleNotFoundError as error:
        if not isinstance(missing := in_words(error), UserError):
            raise
        print_error(str(missing))
        return MENDABLE
    except ShardsFailed as error:
        print_error(str(error))
        return FAILED
    except KeyboardInterrupt as error:
        print(f"\ninterrupted: {error.args[0] if error.args else 'run the same command again'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the interpreter still has to write
        return CLOSED_PIPE


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """The first Ctrl-C is a KeyboardInterrupt, the others are nothing: they would end what ends the work, and the interpreter by a
    signal. Where somebody else has a hand on it, it stays theirs.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(*_) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def print_error(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader is gone, as under `| head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
