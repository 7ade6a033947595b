"""Columns that ordinary tools understand; tables of before are read in the same form; damage and absence are told in words."""

import json
import shutil

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fakes import fake

import ecg_batch
from ecg_batch.dataset.finalise import finalise
from ecg_batch.dataset.plan import read_plan
from ecg_batch.dataset.run import read_run
from ecg_batch.dataset.tables import DONOR_COLUMNS, read_rows, row_batches, row_columns
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.run.local import run_missing, synthesize
from ecg_batch.run.repair import repair
from ecg_batch.sums import list_of, sums_of


def test_pandas_splits_and_groups_by_donor(small_dataset):
    rows = pandas.read_parquet(small_dataset / "records.parquet")
    assert all(rows[name].dtype == "int32" for name in DONOR_COLUMNS)
    assert rows.donor_fold.isin([1, 2]).sum() == 136 == len(ecg_batch.open_dataset(small_dataset).where(donor_fold=[1, 2]))
    assert rows.groupby("donor_patient_id").size().max() == 2 and set(rows.donor_fold) == set(range(1, 9))
    assert {len(held) for held in rows.blend_patient_id} == {0, 1, 2}
    joined = rows.merge(pandas.DataFrame({"ecg_id": [3, 4]}), left_on="donor_ecg_id", right_on="ecg_id")
    assert joined.record.tolist() == [3, 4]


@pytest.fixture
def of_before(small_dataset):
    """(folder, its rows as they are now), stored as 0.3 did: donor columns are lists of all donors."""
    path = small_dataset / "records.parquet"
    now = pq.read_table(path)
    then = now.drop_columns(list(DONOR_COLUMNS.values()))
    for at, name in enumerate(then.column_names):
        if name in DONOR_COLUMNS:
            lists = [
                [host, *others] for host, others in zip(now[name].to_pylist(), now[DONOR_COLUMNS[name]].to_pylist(), strict=True)
            ]
            then = then.set_column(at, name, pa.array(lists, pa.list_(pa.int32())))
    pq.write_table(then, path, store_schema=False)
    (small_dataset / "SHA256SUMS").unlink()
    return small_dataset, now


def test_a_table_of_before_is_read_as_those_of_now(of_before):
    folder, now = of_before
    path = folder / "records.parquet"
    assert sorted(row_columns(path)) == sorted(now.column_names)
    assert read_rows(path).select(now.column_names).to_pylist() == now.to_pylist()
    assert read_rows(path, ["blend_fold", "donor_fold"]).to_pylist() == now.select(["blend_fold", "donor_fold"]).to_pylist()
    assert [row["donor_ecg_id"] for rows in row_batches(path, 100) for row in rows] == now["donor_ecg_id"].to_pylist()
    dataset = ecg_batch.open_dataset(folder)
    assert len(dataset.where(donor_fold=1)) == 68 and dataset.where(donor_fold=1).records["donor_fold"].type == pa.int32()


def test_a_table_of_before_is_exported(of_before, tmp_path):
    from ecg_batch.export.formats import export

    folder, now = of_before
    export(ecg_batch.open_dataset(folder).select(slice(0, 4)), tmp_path / "out", "ptbxl", 1)
    table = pandas.read_csv(tmp_path / "out/ptbxl_database.csv")
    assert table.patient_id.tolist() == now["donor_patient_id"].to_pylist()[:4] and table.strat_fold.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"not a table at all", b"PAR1" + bytes(100) + b"PAR1", None],
    ids=["empty", "short", "text", "zeros", "absent"],
)
def test_what_is_no_table_is_told_in_words(small_dataset, content):
    path = small_dataset / "records.parquet"
    opened = ecg_batch.open_dataset(small_dataset)
    path.unlink() if content is None else path.write_bytes(content)
    for sums in (True, False):
        if not sums:
            (small_dataset / "SHA256SUMS").unlink()
        for read in (lambda: opened.records, lambda: opened.where(sex=1), lambda: list(row_batches(path, 10))):
            with pytest.raises(UserError, match="records.parquet: damaged: .*ecg-batch verify .*--repair"):
                read()


def test_the_description_tells_donors_and_blends_apart(small_dataset):
    described = json.loads((small_dataset / "croissant.json").read_text())
    fields = {field["name"]: field for field in described["recordSet"][0]["field"]}
    assert "repeated" not in fields["donor_fold"] and fields["blend_fold"]["repeated"]
    assert all(fields[name]["description"] != name.replace("_", " ") for names in DONOR_COLUMNS.items() for name in names)


@pytest.fixture
def of_a_hospital(inputs, write_request, tmp_path):
    """A dataset of each source: PTB-XL, a hospital, and a bank that says nothing."""

    def make(attribution):
        bank = shutil.copytree(inputs / "bank", tmp_path / "bank")
        said = bank / "donors.zarr" / "zarr.json"
        attributes = json.loads(said.read_text())
        attributes["attributes"].pop("attribution", None)
        attributes["attributes"] |= {"attribution": attribution} if attribution else {}
        said.write_text(json.dumps(attributes))
        list_of(bank / "donors.zarr").write_bytes(sums_of(bank / "donors.zarr"))
        synthesize(load_request(write_request(bank=str(bank))), tmp_path / "made", 1, fake())
        return tmp_path / "made"

    return make


WORDS = {
    "Made from PTB-XL (Wagner), CC BY 4.0": ("PTB-XL", "Scientific Data 7, 154"),
    "Made from recordings of the hospital of X, with leave": ("real records", "the hospital of X, with leave"),
    None: ("real records", "unknown source"),
    "two\nlines": ("real records", "unknown source"),
    "long" * 1000: ("real records", "unknown source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("attribution", WORDS)
def test_whose_recordings_the_donors_are_is_said_as_the_bank_says_it(of_a_hospital, attribution):
    folder, (of, source) = of_a_hospital(attribution), WORDS[attribution]
    described = json.loads((folder / "croissant.json").read_text())
    title = json.loads((folder / "ecg.zarr" / "zarr.json").read_text())["attributes"]
    assert f"beats of {of}" in described["description"] and f"beats of {of}" in title["title"]
    assert source in described["citeAs"] and source in (folder / "README.md").read_text()
    stated = json.dumps(described["recordSet"]) + described["description"] + described["citeAs"] + json.dumps(title)
    assert ("PTB-XL" in stated.replace("a superclass of PTB-XL", "")) == (of == "PTB-XL") == ("license" in described)
    assert read_plan(folder).source == ("" if of == "PTB-XL" else described["citeAs"])
    assert list(verify(folder)) == []


def test_a_dataset_names_its_tables_for_those_who_load_a_folder(small_dataset):
    head = (small_dataset / "README.md").read_text().split("---\n")[1]
    configs = yaml.safe_load(head)["configs"]
    assert configs == [{"config_name": "records", "data_files": "records.parquet", "default": True},
                       {"config_name": "beats", "data_files": "beats.parquet"}]  # fmt: skip
    assert all((small_dataset / one["data_files"]).is_file() for one in configs)
    assert "  README.md\n" in (small_dataset / "SHA256SUMS").read_text()


def test_a_dataset_of_before_without_beats_is_opened_and_verified(make_run):
    """Until 0.5 records of ten seconds had none, and plans said nothing of it."""
    run = make_run()
    plan = json.loads((run.folder / "plan.json").read_text())
    assert plan.pop("annotated") is True
    (run.folder / "plan.json").write_text(json.dumps(plan))
    run = read_run(run.folder)
    assert not run.plan.has_beats
    run_missing(run, 1, fake())
    finalise(run)
    assert not (run.out / "beats.parquet").exists() and list(verify(run.out)) == []
    dataset = ecg_batch.open_dataset(run.out)
    assert len(dataset[:5]) == 5
    with pytest.raises(UserError, match="before 0.5, records of 10 s came without annotations"):
        dataset.beats(0)
    again, damaged = repair(run.out)
    assert damaged == [] and not again.plan.has_beats
    finalise(again)
    assert list(verify(run.out)) == []
