"""What is asked of a record depends on the record alone, and keeps to the request."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from places import ROOT

from ecg_batch.errors import UserError
from ecg_batch.request.model import Distribution, request_from_resolved
from ecg_batch.request.parse import load_request
from ecg_batch.request.query_table import read_query_table
from ecg_batch.run.planning import make_plan
from ecg_batch.synthesis.ask import cohort_queries, mix_queries, quantile
from ecg_batch.synthesis.retrieve import donors_for, retrieve
from ecg_batch.synthesis.source import query_source

FIELDS = ("record", "label", "hr_bpm", "age", "sex")


@pytest.fixture
def request_of_mix(write_request):
    return load_request(write_request(), ["mix.age={normal: [60, 15], within: [18, 95]}"])


def test_a_record_is_asked_the_same_whoever_asks(request_of_mix):
    whole = mix_queries(request_of_mix, 0, 500)
    for start, stop in ((0, 1), (130, 257), (499, 500)):
        part = mix_queries(request_of_mix, start, stop)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[start:stop])


def test_counts_of_labels_keep_to_the_shares_from_the_first_record_on(request_of_mix):
    label = mix_queries(request_of_mix, 0, 20_000).label
    for name, share in request_of_mix.mix.labels:
        counts = np.cumsum(label == name)
        assert np.abs(counts - share * np.arange(1, 20_001)).max() < 3


def test_numbers_keep_to_their_distributions(request_of_mix):
    queries = mix_queries(request_of_mix, 0, 4000)
    slow = queries.label == "SBRAD"
    assert queries.hr_bpm[slow].min() >= 50 and queries.hr_bpm[slow].max() <= 65
    assert queries.hr_bpm[~slow].min() >= 50 and 85 < queries.hr_bpm[~slow].max() <= 90
    assert queries.age.min() >= 18 and queries.age.max() <= 95
    assert abs(np.mean(queries.sex) - 0.6) < 0.03
    assert {str(getattr(queries, field).dtype) for field in ("hr_bpm", "age")} == {"float32"}


def test_what_is_not_asked_is_marked(write_request):
    queries = mix_queries(load_request(write_request(mix={"labels": {"MI": 1}})), 0, 10)
    assert np.isnan(queries.hr_bpm).all() and np.isnan(queries.age).all() and (queries.sex == -1).all()


def test_truncated_normal_by_hand():
    # half of normal(60, 10) cut to 60 .. 300 lies below the 75 % point of the whole: 60 + 0.6745 * 10
    assert quantile(Distribution(60, 300, 60, 10), np.array([0.5]))[0] == pytest.approx(66.745, abs=1e-3)
    assert quantile(Distribution(70, 70), np.array([0.3]))[0] == 70


@pytest.fixture
def cohort(write_request):
    def make(**keys):
        request = load_request(write_request(mix=None, cohort=keys, donor_folds=[1, 2, 3], seed=5, bank="bundled"))
        return request, donors_for(request)

    return make


def test_a_cohort_asks_for_what_the_donors_are(cohort):
    request, donors = cohort(hr_spread=0.0)
    table, rows = donors.table, donors.rows
    queries = cohort_queries(request, donors, 0, 10 * len(rows))
    asked = Counter(zip(queries.label, queries.age, queries.sex, queries.hr_bpm.round(2), strict=True))
    there = Counter(zip(table.rarest_labels()[rows], table.age[rows], table.sex[rows], table.hr_bpm[rows].round(2), strict=True))
    assert set(asked) == set(there) and all(abs(asked[one] - 10 * count) <= 2 * count for one, count in there.items())
    part = cohort_queries(request, donors, 130, 257)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(part, field), getattr(queries, field)[130:257])


def test_a_cohort_of_labels_keeps_to_the_shares_and_spreads_the_rate(cohort):
    request, donors = cohort(labels={"AFIB": 0.25, "SBRAD": 0.75}, hr_spread=0.2)
    queries = cohort_queries(request, donors, 0, 400)
    assert abs((queries.label == "AFIB").sum() - 100) <= 2
    slow = queries.hr_bpm[queries.label == "SBRAD"]
    assert slow.max() <= 65 and slow.std() > 3
    held = donors.table.hr_bpm[donors.table.holds("AFIB")]
    assert set(queries.hr_bpm[queries.label == "AFIB"].tolist()).isdisjoint(held.tolist())


def test_the_rarest_statement_with_a_superclass_is_the_label(cohort):
    _, donors = cohort()
    table, labels = donors.table, donors.table.rarest_labels()
    holders = {code: table.holds(code).sum() for code in table.codes}
    for donor in range(0, len(table), 37):
        held = table.scp_codes(donor)
        assert labels[donor] in held
        diagnostic = [code for code in held if code in table.superclass_of]
        assert holders[labels[donor]] == min(holders[code] for code in diagnostic or held)


def rows(count=300):
    index = np.arange(count)
    return pa.table(
        {
            "label": pa.array(np.array(["NORM", "AFIB", "IMI"])[index % 3]),
            "hr_bpm": pa.array(np.where(index % 2, 60.5 + index % 30, np.nan), from_pandas=True),
            "age": pa.array(30 + index % 50),
            "sex": pa.array([["male", "female", None][i % 3] for i in index]),
        }
    )


def test_csv_and_parquet_tables_are_the_same_request(make_run, tmp_path):
    csv.write_csv(rows(), tmp_path / "t.csv")
    pq.write_table(
        rows().drop("sex").append_column("sex", pa.array([[0, 1, None][i % 3] for i in range(300)])),
        tmp_path / "t.parquet",
    )
    from_csv = make_run("csv", mix=None, records=None, table="t.csv")
    from_parquet = make_run("parquet", mix=None, records=300, table="t.parquet")
    assert from_csv.plan.run_id == from_parquet.plan.run_id
    assert from_csv.request.records == 300
    queries = query_source(from_csv.request, from_csv.folder)(130, 200)
    assert queries.record.tolist() == list(range(130, 200))
    assert queries.label[:3].tolist() == ["AFIB", "IMI", "NORM"]
    assert queries.hr_bpm[1] == np.float32(60.5 + 131 % 30) and np.isnan(queries.hr_bpm[0])
    assert queries.sex[:3].tolist() == [1, -1, 0]
    assert queries.age.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "label,hr_bpm\nNORM,70\nNORM,400\n,70\n",
            ["2 of 3 rows", "row 2: hr_bpm is 400, outside 20 to 300", "row 3: label is blank"],
        ),
        ("label,hr_bpm\nSBRAD,90\n", ["row 1: hr_bpm is 90 but SBRAD means a rate up to 65 bpm"]),
        ("label,hr_bpm\nNORM,fast\n", ["row 1: hr_bpm is 'fast', not a number"]),
        ("label,age\nNORM,300\n", ["row 1: age is 300", "over 89 as 300: write 90"]),
        ("label,sex\nNORM,x\n", ["row 1: sex is 'x'; needed male, female, or 0 and 1"]),
        ("label,rate\nNORM,70\n", ["has the columns label, rate; needed label"]),
        ("label\n" + "X,1\n", ["cannot read table"]),
        ("label\n", ["has no rows"]),
        ("label,hr_bpm\n" + "NORM,1\n" * 9, ["9 of 9 rows", "row 3", "and 6 more"]),
    ],
)
def test_bad_tables_are_refused_by_row(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        read_query_table(str(tmp_path / "t.csv"), "request.yaml")
    for words in ["request.yaml", "t.csv", *said]:
        assert words in str(caught.value)


def test_each_row_of_a_table_is_a_set_where_something_is_varied(make_run, tmp_path):
    """128 rows in a shard's group; sets of shards reach over the ends of groups."""
    csv.write_csv(rows(), tmp_path / "t.csv")
    asked = {"mix": None, "records": None, "table": "t.csv"}
    run, bare = make_run("varied", **asked, vary={"alpha": [0, 0.5, 1]}), make_run("bare", **asked)
    assert run.request.records == 900 and len(run.plan.shards) == 8
    of_rows = query_source(bare.request, bare.folder)
    for start, stop in ((0, 128), (128, 256), (256, 400), (383, 386), (768, 900)):
        found = query_source(run.request, run.folder)(start, stop)
        expected = [of_rows(record // 3, record // 3 + 1) for record in range(start, stop)]
        for name in ("label", "hr_bpm", "age", "sex"):
            np.testing.assert_array_equal(getattr(found, name), np.concatenate([getattr(one, name) for one in expected]))
        assert found.record.tolist() == list(range(start, stop))


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("label,hr_bpm\nNORM,\nNORM,70\n", {}, ["1 of 2 rows", "row 2: hr_bpm is 70, and vary.hr_bpm is given as well"]),
        ("label\nNORM\nSTACH\n", {}, ["1 of 2 rows", "row 2: vary.hr_bpm has 60 but STACH means a rate from 95 bpm"]),
        ("label\nNORM\nNORM\n", {"records": 3}, ["records is 3, but vary makes sets of 2 records", "Ask for 2 or 4"]),
        ("label\nNORM\nNORM\n", {"records": 2}, ["records is 2 but the table has 2 rows; a table makes a set of 2"]),
    ],
)
def test_a_table_that_contradicts_what_is_varied_is_refused(write_request, tmp_path, text, changes, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        asked = {"mix": None, "records": None, "table": "t.csv", "vary": {"hr_bpm": [60, 99]}}
        make_plan(load_request(write_request(**asked | changes)))
    for words in said:
        assert words in str(caught.value)


# The least likelihood ---------------------------------------------------------------------------------------------------


@pytest.fixture
def at_least(write_request):
    """at_least(likelihood, key=value, ...) -> (request, donors) with the bundled bank."""

    def make(likelihood: int, **changes):
        request = load_request(write_request(**{"bank": "bundled", "models": "bundled", "min_likelihood": likelihood} | changes))
        return request, donors_for(request)

    return make


def likelihood_of(table, label: str) -> np.ndarray:
    """The highest likelihood of a statement of the label by donor, percent; -1 where none is held."""
    codes = [label] if label in table.codes else [code for code, parent in table.superclass_of.items() if parent == label]
    return table.likelihood[:, [table.codes.index(code) for code in codes if code in table.codes]].max(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("least", [1, 15, 16, 50, 80, 100])
@pytest.mark.parametrize("changes", [{}, {"duration_s": 3600, "batch": 4, "shard": 4}], ids=["ten seconds", "an hour"])
def test_donors_hold_the_label_with_the_least_likelihood_and_all_such_are_used(at_least, least, changes):
    changes = {"mix": {"labels": {"IMI": 0.5, "CD": 0.5}}, "donor_folds": [1, 2], **changes}
    request, donors = at_least(least, **changes)
    _, whole = at_least(0, **changes)
    queries = mix_queries(request, 0, 1200)
    chosen = retrieve(donors, queries, np.random.default_rng(3).random((1200, 8)))
    for label in ("IMI", "CD"):
        found, stated = np.unique(chosen[queries.label == label]), likelihood_of(whole.table, label)
        assert found.tolist() == whole.rows[stated[whole.rows] >= least].tolist()


@pytest.mark.parametrize("labels", [None, {"IMI": 0.5, "LVH": 0.5}])
def test_a_cohort_asks_for_donors_with_the_least_likelihood(at_least, labels):
    request, donors = at_least(80, mix=None, cohort={} if labels is None else {"labels": labels})
    _, whole = at_least(0)
    queries = cohort_queries(request, donors, 0, 2 * len(whole.rows))
    ages = {label: set(whole.table.age[likelihood_of(whole.table, label) >= 80].tolist()) for label in np.unique(queries.label)}
    assert len(ages) >= 2 and all(age in ages[label] for label, age in zip(queries.label, queries.age.tolist(), strict=True))


def test_a_rate_statement_stays_true_below_the_least_likelihood(at_least):
    """SBRAD has likelihood 0 in PTB-XL; its holders must not become records at 90 bpm that still say so."""
    _, donors = at_least(50, mix={"labels": {"NORM": 1}})
    _, whole = at_least(0)
    np.testing.assert_array_equal(donors.fastest_bpm, whole.fastest_bpm[np.isin(whole.rows, donors.rows)])
    assert (donors.fastest_bpm < 70).any()


@pytest.mark.parametrize("asked", ["mix", "cohort", "table"])
def test_a_label_that_nobody_holds_so_surely_is_refused_at_the_plan(at_least, write_request, tmp_path, asked):
    (tmp_path / "t.csv").write_text("label\nNORM\nSBRAD\n")
    labels = {"labels": {"NORM": 0.5, "SBRAD": 0.5}}
    forms = {"mix": {"mix": labels}, "cohort": {"mix": None, "cohort": labels},
             "table": {"mix": None, "table": "t.csv", "records": None}}  # fmt: skip
    request, _ = at_least(1, **forms[asked])
    with pytest.raises(UserError, match="no donor for SBRAD at a likelihood of 1 % or more .min_likelihood; .* in folds"):
        make_plan(request)


def test_without_it_a_request_is_the_run_that_it_was(at_least, write_request):
    """A golden run id: another one means that all runs begun before are lost. It is of the bundled bank and model of 0.4.0."""
    request, _ = at_least(0)
    assert "min_likelihood" not in request.resolved()
    assert at_least(15)[0].resolved()["min_likelihood"] == 15
    demo = make_plan(load_request(ROOT / "configs" / "demo.yaml"))[0]
    assert demo.run_id.startswith("728417cd65929c63")
    back = request_from_resolved(json.loads(json.dumps(at_least(15)[0].resolved())), request.bank, request.models)
    assert back.min_likelihood == 15
