"""Source: the function that gives the queries of any records of a run, whatever the request asks with: a mix, a cohort, a table."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from ecg_batch.request import query_table
from ecg_batch.request.model import Request
from ecg_batch.synthesis.ask import cohort_queries, mix_queries
from ecg_batch.synthesis.queries import Queries, QueriesOf, in_sets
from ecg_batch.synthesis.retrieve import donors_for


def query_source(request: Request, folder: Path) -> QueriesOf:
    """The function (start, stop) -> Queries of the records of a run."""
    source = _source(request, folder)
    return source if request.vary is None else in_sets(request, source)


def _source(request: Request, folder: Path) -> QueriesOf:
    """The same of what is asked: of records, or of sets of them. A table's rows are read group by group from the run's folder."""
    if request.mix is not None:
        return lambda start, stop: mix_queries(request, start, stop)
    if request.cohort is not None:
        donors = lru_cache(maxsize=1)(lambda: donors_for(request))
        return lambda start, stop: cohort_queries(request, donors(), start, stop)

    rows_of, size = lru_cache(maxsize=1)(lambda group: query_table.read_rows(folder, group)), request.shard

    def table_queries(start: int, stop: int) -> Queries:
        groups = range(start // size, -(-stop // size))  # one of records; sets of a shard may reach into the next
        rows = [{name: column[max(start - group * size, 0) : stop - group * size] for name, column in rows_of(group).items()}
                for group in groups]  # fmt: skip
        columns = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
        return Queries(record=np.arange(start, stop), **columns)

    return table_queries
