"""A table of queries, one row per record: read from CSV or Parquet, checked, and kept in the run's folder in normal
form.

The kept copy has one row group per shard, so a task reads its own rows only, whatever the length of the table.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_batch.errors import UserError, clipped, shown
from ecg_batch.request.model import AGE_LIMITS, HR_LIMITS_BPM, Vary
from ecg_batch.request.table_file import DAMAGE, numbers, read_columns, refuse_bad_rows, text_of
from ecg_batch.request.vary import rate_against
from ecg_batch.statements import RATE_RANGE_BPM, rate_rule

COLUMNS = ("label", "hr_bpm", "age", "sex")
# PTB-XL: 0 = male, 1 = female; -1 = not asked, as the copy that a run keeps has it
SEX_CODES = {"male": 0, "female": 1, "0": 0, "1": 1, "0.0": 0, "1.0": 1, "-1": -1, "-1.0": -1}
NAME = "queries.parquet"
ROWS_SHA256 = "rows_sha256"  # in the footer of the kept copy, for each shard


@dataclass(frozen=True)
class QueryTable:
    """A checked table in normal form. label_index points into labels; NaN and -1 = not asked."""

    labels: tuple[str, ...]  # sorted
    label_index: np.ndarray  # int32 (record,)
    hr_bpm: np.ndarray  # float32 (record,)
    age: np.ndarray  # float32 (record,)
    sex: np.ndarray  # int8 (record,)

    def __len__(self) -> int:
        return len(self.sex)

    def sha256(self) -> str:
        """Digest of the content in normal form: the same rows as CSV and as Parquet are the same request."""
        digest = hashlib.sha256("\n".join(self.labels).encode())
        for column in (self.label_index, self.hr_bpm, self.age, self.sex):
            digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


def read_query_table(
    path: str, source: str, hr_limits_bpm: tuple[float, float] = HR_LIMITS_BPM, vary: Vary | None = None
) -> QueryTable:
    """Read and check a CSV or Parquet table with the columns label and, where asked, hr_bpm, age, sex; a blank cell =
    not asked.

    source: the request file, for messages. hr_limits_bpm: the rates that can be made, closer for long records. vary: what a row
    cannot ask for as well. Raises UserError with the first bad rows, counted from 1 without the header.
    """
    columns = read_columns(path, source, COLUMNS, ("label",), "label and, where asked, hr_bpm, age, sex, each once", "record")
    bad: dict[int, str] = {}
    labels, label_index = _labels(columns["label"], bad)
    hint = "" if hr_limits_bpm == HR_LIMITS_BPM else ", within which the beats of a long record can vary"
    hr_bpm = numbers(columns.get("hr_bpm"), len(label_index), "hr_bpm", hr_limits_bpm, bad, lambda value: hint).astype(np.float32)
    age = numbers(columns.get("age"), len(label_index), "age", AGE_LIMITS, bad, _age_hint).astype(np.float32)
    table = QueryTable(labels, label_index, hr_bpm, age, _sexes(columns.get("sex"), len(label_index), bad))
    _check_rates(table, bad)
    if vary and vary.of("hr_bpm"):
        _check_varied_rates(table, vary, bad)
    refuse_bad_rows(bad, len(table), path, source)
    return table


def _age_hint(value: float) -> str:
    return "; PTB-XL codes ages over 89 as 300: write 90" if value == 300 else ""


def _labels(column, bad: dict[int, str]) -> tuple[tuple[str, ...], np.ndarray]:
    encoded = text_of(column).dictionary_encode()
    found = encoded.dictionary.to_pylist()
    index = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(index < 0):
        bad[int(row)] = "label is blank"
    for at, label in enumerate(found):  # numpy drops NULs at the end of a text, and digests join labels by ends of lines
        if not label.isprintable():
            bad |= {int(row): f"label is {shown(label)}, with control characters" for row in np.flatnonzero(index == at)}
    labels = sorted(found)
    position = {label: place for place, label in enumerate(labels)}
    place = np.array([position[label] for label in found] + [0], np.int32)  # the last entry serves index -1
    return tuple(labels), place[index]


def _sexes(column, rows: int, bad: dict[int, str]) -> np.ndarray:
    """int8 (record,): 0 male, 1 female, -1 where blank."""
    import pyarrow.compute as pc

    if column is None:
        return np.full(rows, -1, np.int8)
    encoded = pc.utf8_lower(text_of(column)).dictionary_encode()
    found = encoded.dictionary.to_pylist()
    index = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    codes = np.array([SEX_CODES.get(word, -2) if word != "nan" else -1 for word in found] + [-1], np.int8)[index]
    for row in np.flatnonzero(codes == -2):
        bad.setdefault(int(row), f"sex is {shown(found[index[row]])}; needed male, female, or 0 and 1 as in PTB-XL")
    return codes


def _check_rates(table: QueryTable, bad: dict[int, str]) -> None:
    for label in set(table.labels) & set(RATE_RANGE_BPM):
        low, high = RATE_RANGE_BPM[label]
        wrong = (table.label_index == table.labels.index(label)) & ((table.hr_bpm < low) | (table.hr_bpm > high))
        for row in np.flatnonzero(wrong):
            bad.setdefault(int(row), f"hr_bpm is {table.hr_bpm[row]:g} but {rate_rule(label)}")


def _check_varied_rates(table: QueryTable, vary: Vary, bad: dict[int, str]) -> None:
    for row in np.flatnonzero(~np.isnan(table.hr_bpm)):
        bad.setdefault(int(row), f"hr_bpm is {table.hr_bpm[row]:g}, and vary.hr_bpm is given as well; leave the cells blank")
    for at, label in enumerate(table.labels):
        if odd := rate_against(vary, label):
            said = f"vary.hr_bpm has {odd:g} but {rate_rule(label)}"
            for row in np.flatnonzero(table.label_index == at):
                bad.setdefault(int(row), said)


def write_copy(table: QueryTable, path: Path, shard_records: int) -> None:
    """The normal form as Parquet, one row group per shard, with digests of all and of each shard's rows in the footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "label": pa.DictionaryArray.from_arrays(pa.array(table.label_index), pa.array(table.labels)),
        "hr_bpm": table.hr_bpm,
        "age": table.age,
        "sex": table.sex,
    }
    stated = {"table_sha256": table.sha256(), ROWS_SHA256: " ".join(_shard_digests(table, shard_records))}
    rows = pa.table(columns).replace_schema_metadata(stated)
    pq.write_table(rows, path, row_group_size=shard_records, compression="zstd", write_page_checksum=True)


def copy_digest(path: Path, shard_records: int) -> str:
    """The digest of the content of the kept copy, whatever it says of itself; "" where there is none that tasks could read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            stated, rows = _stated_digests(file), file.read()
        if sizes != [min(shard_records, len(rows) - start) for start in range(0, len(rows), shard_records)]:
            return ""
        label = rows["label"].cast(pa.string()).combine_chunks().dictionary_encode()
        names = tuple(sorted(label.dictionary.to_pylist()))
        index = np.array([names.index(name) for name in label.dictionary.to_pylist()], np.int32)[label.indices.to_numpy()]
        columns = (rows[name].to_numpy().astype(kind) for name, kind in (("hr_bpm", "f4"), ("age", "f4"), ("sex", "i1")))
        table = QueryTable(names, index, *columns)
        return table.sha256() if stated == _shard_digests(table, shard_records) else ""
    except (*DAMAGE, pa.ArrowException):
        return ""


def read_rows(folder: Path, shard: int) -> dict[str, np.ndarray]:
    """The rows of one shard from the kept copy, as the arrays of Queries. UserError where they are not those that were written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(folder / NAME, page_checksum_verification=True) as file:
            rows, stated = file.read_row_group(shard), _stated_digests(file)[shard]
        columns = {name: rows[name].to_numpy() for name in ("hr_bpm", "age", "sex")}
        label = rows["label"].to_pylist()
        if stated != _digest_of_rows(label, *columns.values()):
            raise ValueError("these are not the rows that were written")
    except (*DAMAGE, pa.ArrowException) as error:
        raise UserError(
            f"{folder / NAME}: damaged ({clipped(str(error))}). Delete it and run the same command again; it is made anew from the "
            "table"
        ) from error
    return {"label": np.array(label), **columns}


def _shard_digests(table: QueryTable, shard_records: int) -> list[str]:
    """Of the rows of each shard: a page's checksum says nothing of the footer, where a flipped bit makes other columns of it."""
    cuts = (slice(start, start + shard_records) for start in range(0, len(table), shard_records))
    return [_digest_of_rows([table.labels[at] for at in table.label_index[cut]], table.hr_bpm[cut], table.age[cut], table.sex[cut])
            for cut in cuts]  # fmt: skip


def _digest_of_rows(label: list[str], *columns: np.ndarray) -> str:
    digest = hashlib.sha256("\n".join(label).encode())
    for column in columns:
        digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _stated_digests(file) -> list[str]:
    return file.schema_arrow.metadata[ROWS_SHA256.encode()].decode().split()
