"""Table file: a table that a request names, CSV or Parquet, read strictly: every column known, every cell a text or a number."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError, clipped, shown, suggestion

# what a damaged footer leads to in pyarrow, and in what is made of its columns
DAMAGE = (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, MemoryError, NotImplementedError, RuntimeError)
LISTED = 3  # bad rows named in an error
BLANK = " \t"  # what may stand about a cell; tools differ on other spaces, and nobody sees them


def read_columns(path: str, source: str, known: Sequence[str], must: Sequence[str], needed: str, row_is: str) -> dict:
    """Columns of the file as pyarrow arrays: all text from a CSV, as they are from Parquet. source: the request file, for messages;
    known, must: columns that there may be, and those without which there is no table; needed, row_is: the same in words.
    """
    import pyarrow as pa

    try:
        if not Path(path).is_file():
            raise OSError("no such file" if not Path(path).exists() else "not a regular file")
        table = _read_parquet(path) if path.endswith((".parquet", ".pq")) else _read_csv(path, known)
    except (*DAMAGE, pa.ArrowException) as error:
        raise UserError(
            f"{source}: cannot read table {clipped(path)}: {clipped(str(error))}. Needed: CSV with a header, or Parquet"
        ) from None
    unknown = [name for name in table.column_names if name not in known]
    if unknown or not set(must) <= set(table.column_names) or len(set(table.column_names)) < table.num_columns:
        meant = suggestion(unknown[0], sorted(set(known) - set(table.column_names))) if unknown else ""
        raise UserError(
            f"{source}: table {path} has the columns {clipped(', '.join(table.column_names))}; needed {needed}. Rename or "
            "drop the others, so that none is overlooked" + (f": {clipped(unknown[0])}{meant}" if meant else "")
        )
    if not len(table):
        raise UserError(f"{source}: table {path} has no rows; needed one per {row_is}")
    return {name: _plain(table[name].combine_chunks(), f"{source}: table {path}: {name}") for name in table.column_names}


def refuse_bad_rows(bad: dict[int, str], rows: int, path: str, source: str) -> None:
    """UserError with the first bad rows, where there are any; bad: row from 0 -> what is wrong with it."""
    if bad:
        said = "; ".join(f"row {row + 1}: {bad[row]}" for row in sorted(bad)[:LISTED])
        more = f"; and {len(bad) - LISTED:,} more" if len(bad) > LISTED else ""
        raise UserError(
            f"{source}: table {path}: {len(bad):,} of {rows:,} rows cannot be made: {said}{more}. "
            "Mend or drop these rows (counted from 1, without the header)"
        )


def _plain(column, said: str):
    """The column as string or number type. UserError where it holds anything else."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_large_string(column.type) or types.is_string_view(column.type):
        column = column.cast(pa.string())
    kinds = (types.is_string, types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    if not any(is_kind(column.type) for is_kind in kinds):
        raise UserError(f"{said} holds {clipped(str(column.type))}; needed text or numbers, one in each row")
    return column


def _read_parquet(path: str):
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:  # and no read_table: that makes columns of folders' names
        return file.read()


def _read_csv(path: str, known: Sequence[str]):
    import pyarrow as pa
    from pyarrow import csv

    text = dict.fromkeys(known, pa.string())
    convert = csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
    return csv.read_csv(path, parse_options=csv.ParseOptions(ignore_empty_lines=False), convert_options=convert)


def text_of(column):
    """Trimmed text; blank is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim(column.cast(pa.string()), characters=BLANK)
    return pc.if_else(pc.equal(text, ""), None, text)


def numbers(
    column, rows: int, name: str, limits: tuple[float, float], bad: dict[int, str], hint_of: Callable[[float], str] = lambda _: ""
) -> np.ndarray:
    """float64 (row,), NaN where blank, outside the limits or no number: the latter two are told in `bad`, with a hint."""
    import pyarrow as pa

    if column is None:
        return np.full(rows, np.nan)
    try:
        if pa.types.is_string(column.type):
            column = text_of(column)
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        values = _numbers_one_by_one(column, name, bad)
    low, high = limits
    outside = ~np.isnan(values) & ~((values >= low) & (values <= high))
    for row in np.flatnonzero(outside):
        bad.setdefault(int(row), f"{name} is {values[row]:g}, outside {low:.4g} to {high:.4g}{hint_of(values[row])}")
    return np.where(outside, np.nan, values)  # 1e300 as float32 would be told as numpy's warning too


def _numbers_one_by_one(column, name: str, bad: dict[int, str]) -> np.ndarray:
    """The slow way, taken only where a cell is no number: names each such row. What is a number is pyarrow's to say here too."""
    import pyarrow as pa

    values = np.full(len(column), np.nan)
    for row, cell in enumerate(column):
        try:
            values[row] = cell.cast(pa.float64()).as_py() if cell.is_valid else np.nan
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            bad.setdefault(row, f"{name} is {shown(cell.as_py())}, not a number")
    return values
