"""Source: the function that gives the queries of any records of a run, whatever the request asks with: a mix, a cohort, a table."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecg_batch.request import query_table
from ecg_batch.request.model import Request
from ecg_batch.synthesis.ask import cohort_queries, mix_queries
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.retrieve import donors_for


def query_source(request: Request, folder: Path) -> Callable[[int, int], Queries]:
    """The function (start, stop) -> Queries of a run, with a table's rows read shard by shard from the run's folder."""
    if request.mix is not None:
        return lambda start, stop: mix_queries(request, start, stop)
    if request.cohort is not None:
        donors = lru_cache(maxsize=1)(lambda: donors_for(request))
        return lambda start, stop: cohort_queries(request, donors(), start, stop)

    rows_of = lru_cache(maxsize=1)(lambda shard: query_table.read_rows(folder, shard))

    def table_queries(start: int, stop: int) -> Queries:
        shard = start // request.shard
        begin = shard * request.shard
        rows = {name: column[start - begin : stop - begin] for name, column in rows_of(shard).items()}
        return Queries(record=np.arange(start, stop), **rows)

    return table_queries
