"""Files of runs and datasets, as they are and signed anew by one who knows how: a sentence, or the same data as before."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from fakes import fake
from fuzzing import Refused, answer, changed_bytes, changed_text, changed_value, examples, instead, odd_values, plain_values
from hypothesis import given
from hypothesis import strategies as st

import ecg_batch
from ecg_batch.dataset.layout import MANIFEST, PLAN, RECORDS, SUMS
from ecg_batch.dataset.manifest import read_manifest
from ecg_batch.dataset.plan import plan_to_json, read_plan, run_id_of
from ecg_batch.dataset.receipts import read_receipt
from ecg_batch.dataset.sums import SUMS_OF_SUMS, parse_sums
from ecg_batch.dataset.verify import verify
from ecg_batch.export.formats import export
from ecg_batch.run.local import run_missing
from ecg_batch.run.status import describe

pytestmark = pytest.mark.slow

ZARR = "ecg.zarr/ecg/zarr.json"


def read_all(folder) -> str:
    """A digest of what a reader takes of a dataset: its rows, some samples of two shards, rate, duration and leads."""
    dataset = ecg_batch.open_dataset(folder)
    said = (dataset.records.to_pydict(), dataset.fs_hz, dataset.duration_s, len(dataset), dataset.leads)
    return hashlib.sha256(repr(said).encode() + dataset.raw[120:135].tobytes()).hexdigest()


@pytest.fixture(scope="module")
def dataset(made_once, tmp_path_factory):
    """A finished dataset of its own, and what is read of it."""
    folder = shutil.copytree(made_once, tmp_path_factory.mktemp("finished") / "dataset")
    return folder, read_all(folder)


@st.composite
def json_of(draw, value, sign=lambda value: value) -> str:
    """The value with other values in it, or its text with anything changed."""
    if draw(st.integers(0, 3)) == 0:
        return draw(changed_text(json.dumps(value), 2))
    value = draw(changed_value(value, st.one_of(odd_values, plain_values)))
    return json.dumps(sign(value))


def parsed(text: str):
    """JSON as it is read from a file: behind a byte order mark, where there is one."""
    return json.loads(text.removeprefix("\ufeff"))


def sign(folder) -> None:
    """SHA256SUMS anew for the files as they are."""
    names = [line.split("  ", 1)[1] for line in (folder / SUMS).read_text().splitlines()[:-1]]
    body = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / SUMS).write_text(f"{body}{SUMS_OF_SUMS}{hashlib.sha256(body.encode()).hexdigest()}\n")


def lines(found) -> str:
    """Problems that verify names, each a line of bounded length."""
    found = list(found)
    assert all(line.isprintable() and len(line) < 1000 for line in found), found
    return "\n".join(found)


# plan.json --------------------------------------------------------------------------------------------------------------


def signed(plan):
    try:
        return {**plan, "run_id": run_id_of(plan["request"], plan["inputs_sha256"])}
    except (KeyError, TypeError, ValueError, OverflowError):
        return plan


@pytest.fixture
def half_made(make_run):
    run = make_run()
    run_missing(run, 1, fake(), frozenset({0, 1}))
    return run


@examples(2)
@given(st.data())
def test_a_plan_is_refused_in_words_or_says_what_it_said(half_made, data):
    """Signed with its own run id too, as a newer or another program could."""
    path = half_made.folder / PLAN
    text = data.draw(json_of(json.loads(path.read_bytes()), signed))
    with instead(path, text):
        plan = answer(lambda: read_plan(half_made.folder), str(path), folder=half_made.folder)
        said = answer(lambda: describe(half_made.folder), str(path), folder=half_made.folder)
        problems = lines(answer(lambda: list(verify(half_made.folder)), folder=half_made.folder))
    if isinstance(plan, Refused):
        assert isinstance(said, Refused) and PLAN in problems
        return
    stated = parsed(text)
    again = json.loads(json.dumps(plan_to_json(plan)))
    for key in ("run_id", "inputs_sha256", "versions", "found_at", "shards"):
        assert again[key] == stated[key], key
    assert holds(again["request"], {key: value for key, value in stated["request"].items() if key in again["request"]})
    assert all(line.isprintable() for line in said[0].splitlines()) and len(said[0]) < 5000


def holds(value, said) -> bool:
    """Whether the value has all that is said; parameters that came later are not said."""
    if isinstance(said, dict):
        return isinstance(value, dict) and all(key in value and holds(value[key], one) for key, one in said.items())
    return value == said and type(value) is type(said)


# Receipts ---------------------------------------------------------------------------------------------------------------


@examples(2)
@given(st.data())
def test_a_receipt_counts_as_none_or_as_it_says(half_made, data):
    path = half_made.receipt(1)
    text = data.draw(json_of(json.loads(path.read_bytes())))
    with instead(path, text):
        receipt = answer(lambda: read_receipt(half_made, 1), folder=half_made.folder)
        said, _ = answer(lambda: describe(half_made.folder), folder=half_made.folder)
        if data.draw(st.integers(0, 9)) == 0:
            lines(answer(lambda: list(verify(half_made.folder)), folder=half_made.folder))
    assert receipt is None or receipt == parsed(text)
    assert ("1 of 5 shards done" if receipt is None else "2 of 5 shards done") in said
    assert all(line.isprintable() for line in said.splitlines()) and len(said) < 3000


# dataset.json and zarr.json ---------------------------------------------------------------------------------------------


@examples(0.6)
@given(st.data(), st.sampled_from((MANIFEST, ZARR, "receipts/2.json", PLAN)), st.booleans())
def test_a_dataset_of_other_words_is_refused_or_reads_as_before_or_verify_tells(dataset, data, name, anew):
    folder, before = dataset
    path = folder / name
    text = data.draw(json_of(json.loads(path.read_bytes()), signed if name == PLAN else lambda value: value))
    with instead(folder / SUMS, (folder / SUMS).read_bytes()), instead(path, text):
        if anew:
            sign(folder)
        found = answer(lambda: read_all(folder), str(folder), folder=folder)
        problems = lines(answer(lambda: list(verify(folder)), folder=folder))
        said = answer(lambda: describe(folder), str(folder), folder=folder)
    assert isinstance(found, Refused) or found == before, "other data"
    assert isinstance(said, Refused) or len(said[0]) < 3000 and said[0].isprintable()
    if not problems:
        assert same_json(parsed(text), json.loads(path.read_bytes()), name), "verify says that all is well"


def same_json(one, two, name: str) -> bool:
    """Where verify finds nothing, only words may differ that nobody reads: of time, energy, place and software."""
    free = {MANIFEST: {"seconds", "joules", "joules_of", "joules_shards", "bytes", "flagged", "flags"},
            "receipts/2.json": {"seconds", "joules", "joules_of", "host", "job", "attempt", "finished_unix_s", "bytes", "flagged",
                                "flags", "batch"},
            PLAN: {"found_at"}, ZARR: {"attributes"}}[name]  # fmt: skip
    known = set(two) - free
    return all(one.get(key) == two[key] for key in known)


@examples(0.3)
@given(st.data(), st.sampled_from((MANIFEST, ZARR)))
def test_an_export_of_a_dataset_of_other_words_is_refused_or_the_same(dataset, tmp_path, data, name):
    folder, _ = dataset
    path, out = folder / name, tmp_path / "out"
    text = data.draw(json_of(json.loads(path.read_bytes())))

    def exported() -> bytes:
        for stale in (out, tmp_path / "out.partial"):
            shutil.rmtree(stale, ignore_errors=True)
        export(ecg_batch.open_dataset(folder).select(slice(0, 20)), out, "npy", 1)
        return np.load(out / "ecg.npy").tobytes()

    whole = exported()
    with instead(folder / SUMS, (folder / SUMS).read_bytes()), instead(path, text):
        sign(folder)
        found = answer(exported, str(folder), folder=folder)
    assert isinstance(found, Refused) or found == whole


# SHA256SUMS -------------------------------------------------------------------------------------------------------------


@examples(1)
@given(st.data())
def test_sums_are_refused_or_say_what_plain_lines_say(dataset, data):
    folder, before = dataset
    path = folder / SUMS
    body = path.read_bytes().rpartition(SUMS_OF_SUMS.encode())[0]
    as_text = changed_text(body.decode()).map(lambda text: text.encode("utf-8", "surrogatepass"))
    text = data.draw(as_text | changed_bytes(body))
    if data.draw(st.booleans()):
        text += f"{SUMS_OF_SUMS}{hashlib.sha256(text).hexdigest()}\n".encode()
    sums, problems = answer(lambda: parse_sums(text))
    assert all(line.isprintable() and len(line) < 500 for line in problems)
    with instead(path, text):
        found = answer(lambda: read_all(folder), str(folder), folder=folder)
        told = lines(answer(lambda: list(verify(folder)), folder=folder)) if data.draw(st.integers(0, 9)) == 0 else "not asked"
    if problems:
        assert isinstance(found, Refused) and told
    else:
        body = text.rpartition(SUMS_OF_SUMS.encode())[0].decode(errors="backslashreplace")
        plain = dict(reversed(line.split("  ", 1)) for line in body.split("\n") if line)
        assert sums == plain
        asked = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (MANIFEST, RECORDS, ZARR)}
        assert isinstance(found, Refused) == any(plain.get(name, sum) != sum for name, sum in asked.items())
    assert isinstance(found, Refused) or found == before


@examples(2)
@given(st.data())
def test_a_manifest_is_refused_or_holds_what_it_says(dataset, data):
    """Without a look at sums: what a newer program, or none, signed."""
    folder, _ = dataset
    path = folder / MANIFEST
    text = data.draw(json_of(json.loads(path.read_bytes())))
    with instead(path, text):
        manifest = answer(lambda: read_manifest(folder), str(path))
    assert isinstance(manifest, Refused) or manifest == parsed(text)
