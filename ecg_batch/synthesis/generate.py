"""One shard, end to end. Read this file first, then batch.py: each stage of the system is a line of _try there."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from ecg_batch.dataset.layout import Shard
from ecg_batch.dataset.plan import Plan
from ecg_batch.dataset.rows import rows_table
from ecg_batch.synthesis.annotate import batch_beats
from ecg_batch.synthesis.batch import Batch, make_batch
from ecg_batch.synthesis.queries import Queries
from ecg_batch.synthesis.synthesizer import Synthesizer, open_synthesizer


def open_generator(plan: Plan) -> Callable:
    """What a worker calls once; it gives make_shard with bank and models loaded."""
    return partial(make_shard, open_synthesizer(plan))


def make_shard(synthesizer: Synthesizer, shard: Shard, batch: int, queries_of: Callable[[int, int], Queries], on_batch: Callable):
    """Makes one shard: (ecg int16 (record, 12, time), pyarrow Table of its rows, Tables of its beats). Batches of so many records
    never cross a shard.

    Records over 10 s are made in long/batch.py, see there.
    """
    synthesizer = synthesizer.asked(batch=batch)
    if synthesizer.request.is_long:
        from ecg_batch.synthesis.long.batch import make_long_shard

        return make_long_shard(synthesizer, shard, queries_of, on_batch)
    ecg, rows, beats = np.empty((shard.records, 12, synthesizer.request.samples), np.int16), [], []
    asked = (queries_of(start, min(start + batch, shard.stop)) for start in range(shard.start, shard.stop, batch))
    done = 0
    for made in make_batches(synthesizer, asked):
        ecg[done : done + len(made.ecg)] = made.ecg
        rows.append(rows_table(synthesizer.bank.table, made, shard.index))
        beats.append(batch_beats(synthesizer, made))
        done += len(made.ecg)
        on_batch(done)
    return ecg, pa.concat_tables(rows), beats


def make_batches(synthesizer: Synthesizer, asked: Iterable[Queries]) -> Iterator[Batch]:
    """The batch of each of these queries, with the noise that is asked for. Noise comes last: it is not what the gate judges."""
    batches = make_clean_batches(synthesizer, asked)
    if synthesizer.request.noise is None:
        return batches
    from ecg_batch.synthesis.noise import with_noise

    return (with_noise(synthesizer, batch) for batch in batches)


def make_clean_batches(synthesizer: Synthesizer, asked: Iterable[Queries]) -> Iterator[Batch]:
    """The same without noise. On a GPU the next is begun before the last is finished; refining goes batch by batch."""
    if synthesizer.request.judge:
        from ecg_batch.synthesis.refine import make_refined_batch

        return (make_refined_batch(synthesizer, queries) for queries in asked)
    if synthesizer.request.device == "cuda":
        from ecg_batch.synthesis.cuda import make_batches_on_device

        return make_batches_on_device(synthesizer, asked)
    return (make_batch(synthesizer, queries) for queries in asked)
