"""The stream for training: exactly once over ranks and workers, exact resume, filters, weights, mixing with real records."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import TESTS
from ptbxl_layout import fold_10, write_layout

import ecg_batch
from ecg_batch import ECGDataset, ECGIterable, ECGLoader
from ecg_batch.errors import UserError

RANKS = 2


@pytest.fixture
def dataset(small_dataset):
    return ecg_batch.open_dataset(small_dataset)


def ids(batches) -> list[list[int]]:
    return [batch["record_id"].tolist() for batch in batches]


def flat(batches) -> list[int]:
    return [record for batch in ids(batches) for record in batch]


def test_items_are_what_ecg_people_expect(dataset):
    loader = ECGLoader(ECGIterable(dataset, batch=32, columns=("hr_bpm_requested", "label"), labels=("NORM", "AFIB")))
    assert len(loader) == 17
    batch = next(iter(loader))
    record = int(batch["record_id"][3])
    assert batch["signal"].shape == (32, 12, 1000) and batch["signal"].dtype == torch.float32
    np.testing.assert_allclose(batch["signal"][3].numpy(), dataset[record], rtol=1e-6)
    assert batch["labels"].dtype == torch.float32 and loader.dataset.label_names == ("NORM", "AFIB")
    row = dataset.records.slice(record, 1).to_pylist()[0]
    assert batch["hr_bpm_requested"][3] == pytest.approx(row["hr_bpm_requested"]) and batch["label"][3] == row["label"]
    item = next(iter(ECGIterable(dataset, batch=None)))
    assert item["signal"].shape == (12, 1000) and item["labels"].shape == (5,) and item["record_id"].ndim == 0


def test_raw_batches_are_the_stored_integers_and_are_scaled_last(dataset):
    batch = next(iter(ECGLoader(ECGIterable(dataset, raw=True))))
    np.testing.assert_array_equal(batch["signal"].numpy(), dataset.raw[batch["record_id"].numpy()])
    scaled = ecg_batch.to_mv(batch, "cpu")["signal"]
    assert scaled.dtype == torch.float32
    np.testing.assert_allclose(scaled.numpy(), dataset[batch["record_id"].numpy()], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_epochs_differ_and_hold_every_record_once(dataset, context):
    dataset[0]  # the parent has read already, which a forked child must not suffer from
    loader = ECGLoader(ECGIterable(dataset, batch=50), 2, persistent_workers=True, multiprocessing_context=context)
    epochs = [flat(loader) for _ in range(3)]
    assert all(sorted(epoch) == list(range(540)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = ECGLoader(ECGIterable(dataset, batch=50), 2)
    assert [flat(again) for _ in range(3)] == epochs


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_in_mid_epoch_goes_on_exactly(dataset, workers):
    def loader():
        return ECGLoader(ECGIterable(dataset, batch=32, window=64), workers)

    uninterrupted = loader()
    whole = ids(uninterrupted) + ids(uninterrupted)
    for stopped_after in (1, 6, 17, 20):
        first, taken, state = loader(), [], None
        while state is None:
            for batch in first:
                taken.append(batch["record_id"].tolist())
                if len(taken) == stopped_after:
                    state = first.state_dict()
                    break
        resumed = loader()
        resumed.load_state_dict(state)
        taken += ids(resumed)
        if len(taken) < len(whole):
            taken += ids(resumed)
        assert taken == whole, stopped_after


def test_a_state_of_another_loader_is_refused(dataset):
    state = ECGLoader(ECGIterable(dataset, batch=32)).state_dict()
    with pytest.raises(UserError, match="batch was 32, is 64; workers was 1, is 2.*Make the loader as it was"):
        ECGLoader(ECGIterable(dataset, batch=64), 2).load_state_dict(state)
    with pytest.raises(UserError, match="data was .*, is "):
        ECGLoader(ECGIterable(dataset.select(slice(0, 539)), batch=32)).load_state_dict(state)


def test_a_loop_that_was_left_begins_the_next_epoch(dataset):
    loader = ECGLoader(ECGIterable(dataset, batch=32))
    first = next(iter(loader))["record_id"].tolist()
    assert sorted(flat(loader)) == list(range(540)) and loader.state_dict()["epoch"] == 2
    assert next(iter(loader))["record_id"].tolist() != first


def test_filters_by_label_quality_and_range(dataset):
    chosen = dataset.where(label=["NORM", "AFIB"], hr_bpm_requested=(60, 70), prd_pct=(None, 5))
    rows = chosen.records.to_pylist()
    assert 0 < len(rows) < 200 and {row["label"] for row in rows} == {"NORM", "AFIB"}
    assert all(60 <= row["hr_bpm_requested"] <= 70 for row in rows)
    assert sorted(flat(ECGLoader(ECGIterable(chosen, batch=16)))) == [row["record"] for row in rows]
    with pytest.raises(UserError, match="no records to train on.*where"):
        ECGIterable(dataset.where(label="none"))


def test_a_mistyped_label_is_refused(dataset):
    with pytest.raises(UserError, match="no record holds the label 'AFBI'.*did you mean .*AFIB"):
        ECGIterable(dataset, labels=("NORM", "AFBI"))
    assert not ECGDataset(dataset, labels=("WPW",)).labels.any(), "a statement that is only rare is no error"


def test_classes_are_balanced(dataset):
    loader = ECGLoader(ECGIterable(dataset, batch=60, balance="label", columns=("label",)))
    labels = [label for _ in range(4) for batch in loader for label in batch["label"]]
    counts = {label: labels.count(label) / len(labels) for label in set(labels)}
    assert len(labels) == 4 * 540 and counts == {label: pytest.approx(1 / 3, abs=0.02) for label in ("NORM", "AFIB", "SBRAD")}


@pytest.fixture(scope="module")
def ptbxl(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ptbxl")
    write_layout(folder, list(range(40)))
    return folder


@pytest.mark.slow
def test_real_records_are_mixed_in_at_a_ratio(dataset, ptbxl, tmp_path):
    real = ecg_batch.open_ptbxl(ptbxl, folds=range(1, 9), cache=tmp_path / "cache")
    loader = ECGLoader(ECGIterable(dataset, real, batch=50, shares=(0.7, 0.3), records=500), 2)
    batches = list(loader)
    source = torch.cat([batch["source"] for batch in batches])
    assert len(source) == 500 and abs(int(source.sum()) - 150) <= 1
    for batch in batches:
        for signal, record, source in zip(batch["signal"], batch["record_id"].tolist(), batch["source"].tolist(), strict=True):
            np.testing.assert_allclose(signal.numpy(), (dataset, real)[source][record], rtol=1e-6)


@pytest.mark.slow
def test_real_records_are_read_once_and_shared(ptbxl, tmp_path):
    real = ecg_batch.open_ptbxl(ptbxl, cache=tmp_path)
    np.testing.assert_array_equal(real.raw[:], ecg_batch.open_ptbxl(ptbxl).raw[:])
    (cached,) = tmp_path.iterdir()
    before = cached.stat().st_mtime_ns
    assert ecg_batch.open_ptbxl(ptbxl, cache=tmp_path).raw[5].shape == (12, 1000) and cached.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="no record in folds 11"):
        ecg_batch.open_ptbxl(ptbxl, folds=[11])
    with pytest.raises(UserError, match="no ptbxl_database.csv"):
        ecg_batch.open_ptbxl(tmp_path)


@pytest.mark.slow
def test_the_sample_is_read_as_it_is(real_ptbxl):
    real = ecg_batch.open_ptbxl(real_ptbxl, folds=[10])
    assert len(real) == fold_10(real_ptbxl) > 200 and set(real.columns(["fold"])["fold"].to_pylist()) == {10}
    assert len(ECGDataset(real)) == len(real) and 0.1 < np.abs(real[0]).max() < 10


@pytest.mark.slow
def test_records_of_other_lengths_are_not_mixed(dataset, ptbxl):
    real = ecg_batch.open_ptbxl(ptbxl)
    real.fs_hz = 500
    with pytest.raises(UserError, match="one rate and length"):
        ECGIterable(dataset, real)


RANK = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import ecg_batch
rank, path, store = int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
loader = ecg_batch.ECGLoader(ecg_batch.ECGIterable(ecg_batch.open_dataset(path), batch=32), 2)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(12, 5))
seen = []
for epoch in range(2):
    for batch in loader:  # every backward pass waits for the other rank: it would hang if that had no batch left
        torch.nn.functional.mse_loss(model(batch["signal"].mean(dim=2)), batch["labels"]).backward()
        seen.append([epoch, batch["record_id"].tolist()])
torch.distributed.destroy_process_group()
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_two_ranks_with_two_workers_each_see_every_record_once(dataset, tmp_path):
    import json

    command = [sys.executable, "-c", RANK, str(TESTS.parent)]
    ranks = [subprocess.Popen([*command, str(rank), str(dataset.path), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
             for rank in range(RANKS)]  # fmt: skip
    try:
        seen = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert len(seen[0]) == len(seen[1])
    for epoch in range(2):
        assert sorted(i for part in seen for number, batch in part if number == epoch for i in batch) == list(range(540))


@pytest.mark.slow
def test_the_example_trains_and_tests_on_real_patients(make_dataset, real_ptbxl, tmp_path):
    example = TESTS.parent / "examples/train_classifier.py"
    command = [sys.executable, example, make_dataset(), "--ptbxl", real_ptbxl, "--epochs", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(TESTS.parent)}
    )
    assert f"AUROC on {fold_10(real_ptbxl)} real records of fold 10: 0." in done.stdout, done.stderr


@pytest.mark.parametrize("held", [[[1, 0, 1], [0, 1, 1], [0, 0, 1]], [[0, 0, 1], [0, 0, 1]], [[1, 0, 1], [0, 0, 0]]])
def test_the_example_gives_no_auroc_of_a_class_that_all_or_none_hold(held, monkeypatch):
    example = runpy.run_path(str(TESTS.parent / "examples" / "train_classifier.py"))
    labels = torch.tensor(held, dtype=torch.float32)
    monkeypatch.setattr(ecg_batch, "ECGIterable", lambda *_, **__: [{"signal": torch.rand(labels.shape), "labels": labels}])
    found = example["auroc"](torch.nn.Identity(), None)
    assert [score is None for score in found] == [len(set(column)) == 1 for column in zip(*held, strict=True)]
    assert all(score is None or 0 <= score <= 1 for score in found)
