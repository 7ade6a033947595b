"""Processes for work that is cut into many small calls: they start afresh, leave interrupts to their parent, and end with it. And
threads, for what leaves Python's lock by itself: reading, hashing, Parquet.
"""

import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ecg_batch.errors import UserError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

MOST_THREADS = 8  # on a login node, others want the rest


def usable_cores() -> int:
    """Cores that this process may use, which under a scheduler are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable, items: Iterable) -> Iterator:
    """work(item) of each item, in order, while the next few are at work. As many threads as cores, and no more than feed a disk."""
    from concurrent.futures import ThreadPoolExecutor

    threads, waiting = min(usable_cores(), MOST_THREADS), deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def pool_of(workers: int, begin: Callable | None = None, *given) -> "Iterator[ProcessPoolExecutor]":
    """A pool of processes with one thread each. UserError where one of them is killed; what is not begun is dropped on an error.

    begin(*given): in each process, first.
    """
    from concurrent.futures import ProcessPoolExecutor  # with the next two 15 ms, which --help does not need
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(begin, given))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    former = {name: os.environ.get(name) for name in names}
    try:
        os.environ.update(dict.fromkeys(names, "1"))  # for libraries that read them when they are loaded, there
        yield pool
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process ended before its work was done; mostly memory was full and the system killed it. Take fewer workers, "
            "and run it again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _begin(begin: Callable | None, given: tuple) -> None:
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(parent_process().sentinel,), daemon=True).start()
    if begin:
        begin(*given)


def _end_with(sentinel: int) -> None:
    """A parent that is killed cannot tell its workers: they would wait for the next call for ever."""
    from multiprocessing.connection import wait

    wait([sentinel])
    os._exit(1)
