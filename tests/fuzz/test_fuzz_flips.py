"""A flipped bit in what is read beside datasets is an error in words, or no difference, and nothing is made of other values."""

import json

import numpy as np
import pytest
from fakes import fake, write_fake_bank
from flips import FLIPS, flipped, same, survey
from ptbxl_layout import write_layout

from ecg_batch.dataset.plan import plan_to_json, read_plan
from ecg_batch.donors import bank
from ecg_batch.models.corpus import load_corpus
from ecg_batch.reading.real import open_ptbxl
from ecg_batch.request.query_table import NAME, read_rows
from ecg_batch.run.local import run_missing

pytestmark = pytest.mark.slow


def test_every_file_of_a_bank(tmp_path):
    write_fake_bank(tmp_path / "bank")

    def read():
        found = bank.read_bank(tmp_path / "bank")
        return [np.asarray(value) for one in (found, found.table) for value in vars(one).values() if isinstance(value, np.ndarray)]

    for path in sorted(path for path in (tmp_path / "bank").rglob("*") if path.is_file()):
        assert survey(path, read, max(2, FLIPS // 20), "ecg-batch prepare") == (max(2, FLIPS // 20), 0), path


def test_every_file_of_a_corpus(tmp_path):
    write_fake_bank(tmp_path / "bank")
    source = bank._open(tmp_path / "bank")
    arrays = {name: source[name][...] for name in ("texture", *bank.TABLE_COLUMNS)}
    arrays["fold"] = np.array([1 + i % 9 for i in range(len(arrays["fold"]))], np.int32)
    bank.write_group(tmp_path / "bank" / "textures.zarr", arrays, dict(source.attrs))

    def read():
        corpus = load_corpus(tmp_path / "bank")
        return [np.asarray(value) for value in vars(corpus).values() if hasattr(value, "shape")]

    for path in sorted(path for path in (tmp_path / "bank" / "textures.zarr").rglob("*") if path.is_file()):
        survey(path, read, max(2, FLIPS // 20), "ecg-batch prepare")


def test_the_kept_table_of_queries(make_run, tmp_path):
    (tmp_path / "t.csv").write_text("label,age\n" + "NORM,50\nAFIB,60\n" * 100)
    run = make_run(mix=None, records=None, table="t.csv")

    def read():
        return [np.nan_to_num(np.asarray(values, float)) if name != "label" else values.tolist()
                for shard in range(2) for name, values in read_rows(run.folder, shard).items()]  # fmt: skip

    survey(run.folder / NAME, read, 4 * FLIPS, "it is made anew")


def test_a_plan_and_a_receipt(make_run):
    run = make_run()
    run_missing(run, 1, fake(), frozenset({1}))
    survey(run.folder / "plan.json", lambda: json.dumps(plan_to_json(read_plan(run.folder))["request"]), 2 * FLIPS, "damaged")


def test_the_cache_of_ptbxl_is_made_anew(tmp_path):
    """Behind a flipped bit the cache holds other samples: they are read from their records again."""
    write_layout(tmp_path / "ptbxl", list(range(0, 36, 12)))

    def read():
        return open_ptbxl(tmp_path / "ptbxl", cache=tmp_path / "cache").raw[:]

    read()
    (path,) = (tmp_path / "cache").glob("*.npy")
    assert survey(path, read, FLIPS // 2) == (0, FLIPS // 2)
    right = read()
    for byte in range(128):  # the header, which numpy reads as Python
        with flipped(path, 8 * byte + byte % 8):
            assert same(read(), right), f"byte {byte}"
