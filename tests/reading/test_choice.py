"""where(): one form has one meaning, for each kind of column; what has none is refused by column and type."""

import json

import numpy as np
import pytest
from ptbxl_layout import write_layout

import ecg_batch
from ecg_batch import ECGIterable
from ecg_batch.errors import UserError


@pytest.fixture
def dataset(small_dataset):
    return ecg_batch.open_dataset(small_dataset)


SEVERAL = [list, tuple, set, frozenset, np.array, iter, lambda names: dict.fromkeys(names).keys(), lambda names: (n for n in names)]


@pytest.mark.parametrize("form", SEVERAL)
def test_any_iterable_of_texts_is_a_set_of_values(dataset, form):
    found = dataset.where(label=form(["AFIB", "SBRAD"])).records["label"].to_pylist()
    assert set(found) == {"AFIB", "SBRAD"} and len(found) == len(dataset.where(label="AFIB")) + len(dataset.where(label="SBRAD"))


@pytest.mark.parametrize("form", [list, set, np.array, lambda folds: np.array(folds, np.int8), lambda folds: range(3, 6, 2)])
def test_any_iterable_of_numbers_but_a_tuple_is_a_set_of_values(dataset, form):
    assert set(dataset.where(donor_fold=form([3, 5])).records["donor_fold"].to_pylist()) == {3, 5}


@pytest.mark.parametrize(
    ("value", "held"),
    [((3, 5), {3, 4, 5}), ((None, 2), {1, 2}), ((7.5, None), {8}), ((np.int64(2), np.float32(3)), {2, 3}), (4, {4}), (4.0, {4}),
     (np.int16(4), {4}), (np.array(4), {4}), (4.5, set()), ([], set())],
)  # fmt: skip
def test_a_pair_of_numbers_is_a_range(dataset, value, held):
    assert set(dataset.where(donor_fold=value).records["donor_fold"].to_pylist()) == held


@pytest.mark.parametrize("value", [True, np.True_, 1, [True], {True}])
def test_truth_values(dataset, value):
    assert len(dataset.where(NORM=value)) == len(dataset.where(label="NORM"))
    assert len(dataset.where(NORM=[True, False])) == len(dataset)


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("label", ("CD", None), "a text has no range"), ("label", 3, "this is int"), ("label", None, "null is never a match"),
        ("label", ["NORM", 3], "this is int"), ("label", b"NORM", "this is bytes"), ("label", {"a": 1}, "this is dict"),
        ("sex", "1", "this is str"), ("sex", True, "this is bool"), ("sex", None, "this is NoneType"),
        ("sex", ["0", "1"], "this is str"),
        ("sex", float("nan"), "nan is equal to nothing"), ("sex", 10**400, "this is int"), ("sex", [[0, 1]], "this is list"),
        ("age", (20, 30, 40), "give a list"), ("age", (60, 50), "low is above high"), ("age", ("20", "30"), "this is str"),
        ("age", (), "give a list"), ("NORM", "yes", "this is str"), ("NORM", 2, "this is int"), ("age", object(), "this is object"),
        ("label", ["x" * 10**6, 7], "this is int"), ("age", "9" * 10**6, "this is str"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_names_column_and_type(dataset, column, value, named):
    with pytest.raises(UserError, match=rf"where\({column}=.*the column {column} holds") as caught:
        dataset.where(**{column: value})
    assert named in str(caught.value) and len(str(caught.value)) < 400


def test_a_list_column_is_none_to_choose_by(dataset):
    with pytest.raises(UserError, match="the column blend_fold holds list.*select"):
        dataset.where(blend_fold=1)


def test_where_text_reads_the_text_as_the_column_holds_it(dataset):
    assert len(dataset.where_text("donor_fold", "3")) == len(dataset.where(donor_fold=3)) > 0
    assert len(dataset.where_text("NORM", "true")) == len(dataset.where(label="NORM"))
    with pytest.raises(UserError, match="the column sex holds int8"):
        dataset.where_text("sex", "woman")
    with pytest.raises(UserError, match="no column 'x'"):
        dataset.where_text("x", "1")
    with pytest.raises(UserError, match="blend_fold"):
        dataset.where_text("blend_fold", "1")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ptbxl")
    write_layout(folder, list(range(30)))
    return ecg_batch.open_ptbxl(folder)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["AFIB", ["NORM", "SR"], {"IMI"}, ("NDT", "CD"), np.array(["AFIB"])])
def test_a_statement_is_no_label_of_real_records(real, value):
    with pytest.raises(UserError, match=r"label is the superclass of .*NORM, MI, STTC, CD, HYP.*say holding\('"):
        real.where(label=value)


@pytest.mark.slow
def test_holding_asks_synthetic_and_real_records_alike(real, dataset):
    codes = [json.loads(text) for text in real.columns(["scp_codes"])["scp_codes"].to_pylist()]
    assert real.holding("SR").indices.tolist() == [at for at, held in enumerate(codes) if "SR" in held] != []
    assert set(real.where(label=["NORM", "MI"]).columns(["label"])["label"].to_pylist()) <= {"NORM", "MI"}
    assert len(dataset.holding("AFIB")) == len(dataset.where(label="AFIB"))
    assert len(dataset.holding("AFIB", "NORM")) == len(dataset.where(label=["AFIB", "NORM"]))
    with pytest.raises(UserError, match="did you mean .*AFIB"):
        real.holding("AFBI")


@pytest.mark.slow
def test_a_label_of_two_meanings_is_none_to_balance_by(real, dataset):
    with pytest.raises(UserError, match="balance='label': label is what was asked .* superclass"):
        ECGIterable(dataset, real, balance="label")
    ECGIterable(dataset, dataset, balance="label"), ECGIterable(real, balance="label"), ECGIterable(dataset, real, balance="sex")
