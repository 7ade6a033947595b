"""What a loader promises holds at begin, middle and end of an epoch, with each trainer; what breaks it is refused."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import TESTS
from ptbxl_layout import write_layout

import ecg_batch
from ecg_batch import ECGDataset, ECGIterable, ECGLoader
from ecg_batch.errors import UserError


@pytest.fixture
def dataset(small_dataset):
    return ecg_batch.open_dataset(small_dataset)


def ids(batches) -> list[list[int]]:
    return [batch["record_id"].tolist() for batch in batches]


# States -------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stopped_after", [0, 1, 16, 17, 18, 34, 35])
def test_a_state_goes_on_wherever_it_was_taken(dataset, stopped_after):
    """17 batches an epoch: before the first, within, after the last, in the next."""

    def loader():
        return ECGLoader(ECGIterable(dataset, batch=32))

    first, whole = loader(), loader()
    whole = ids(whole) + ids(whole) + ids(whole)
    taken, state = [], first.state_dict()
    while len(taken) < stopped_after:
        for batch in first:
            taken.append(batch["record_id"].tolist())
            if len(taken) == stopped_after:
                state = first.state_dict()
                break
    resumed = loader()
    resumed.load_state_dict(json.loads(json.dumps(state)))
    rest = ids(resumed)
    assert rest, "no empty epoch"
    while len(taken) + len(rest) < len(whole):
        rest += ids(resumed)
    assert taken + rest == whole


def test_a_state_of_an_older_version_after_the_last_batch_begins_the_next_epoch(dataset):
    loader = ECGLoader(ECGIterable(dataset, batch=32))
    ids(loader)
    second, state = ids(loader), loader.state_dict()
    older = {name: value for name, value in state["drawn_by"].items() if name != "content"}
    resumed = ECGLoader(ECGIterable(dataset, batch=32))
    resumed.load_state_dict({"epoch": 0, "batches": 17, "drawn_by": older})
    assert ids(resumed) == second


@pytest.mark.parametrize(
    "state",
    [None, {}, [], {"epoch": 1}, {"epoch": "x", "batches": 0, "drawn_by": {}},
     {"epoch": 0, "batches": 99, "drawn_by": {}},
     {"epoch": 0, "batches": -1, "drawn_by": {}}, {"epoch": -1, "batches": 0, "drawn_by": {}},
     {"epoch": 0, "batches": 0, "drawn_by": 3}],
)  # fmt: skip
def test_what_is_no_state_is_refused(dataset, state):
    with pytest.raises(UserError, match="no state of an ECGLoader|the state is of another loader"):
        ECGLoader(ECGIterable(dataset, batch=32)).load_state_dict(state)


def test_a_state_of_other_samples_is_refused(dataset, make_dataset):
    state = ECGLoader(ECGIterable(dataset, batch=32)).state_dict()
    other = make_dataset("other", seed=8)
    moved = dataset.path.rename(dataset.path.with_name("moved"))
    ECGLoader(ECGIterable(ecg_batch.open_dataset(moved), batch=32)).load_state_dict(state)
    with pytest.raises(UserError, match="content was .*Make the loader as it was"):
        ECGLoader(ECGIterable(ecg_batch.open_dataset(other), batch=32)).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"in_order": False}, "some records twice"), ({"batch_size": 8}, "batch_size is the stream's"), ({"shuffle": True}, "shuffle"),
     ({"drop_last": True}, "drop_last"), ({"sampler": [1, 2]}, "sampler"), ({"batch_sampler": [[1]]}, "batch_sampler")],
)  # fmt: skip
def test_what_breaks_the_promise_is_refused(dataset, options, named):
    with pytest.raises(UserError, match=named):
        ECGLoader(ECGIterable(dataset), 2, **options)


@pytest.mark.parametrize(("name", "value"), [
    *(("batch", value) for value in (0, -1, 2.5, "64", True, [64])), *(("window", value) for value in (0, None, "x", 1e3)),
    *(("seed", value) for value in (-1, None, 1.5, "x")), *(("records", value) for value in (0, -5, 2.5, "x")),
    *(("labels", value) for value in (3, "MI", None, [1, 2], b"MI")), *(("columns", value) for value in (3, "age", None, [None])),
])  # fmt: skip
def test_arguments_that_cannot_be_are_refused_by_name(small_dataset, name, value):
    with pytest.raises(UserError, match=f"{name} is .*needed"):
        ECGIterable(ecg_batch.open_dataset(small_dataset), **{name: value})
    with pytest.raises(UserError, match="needed what open_dataset"):
        ECGIterable(str(small_dataset))


def test_what_is_no_stream_is_refused(dataset):
    for other in (dataset, ECGDataset(dataset), [1, 2], None):
        with pytest.raises(UserError, match="needed an ECGIterable"):
            ECGLoader(other)


# Ranks --------------------------------------------------------------------------------------------------------------------


def test_ranks_can_be_given(dataset):
    parts = [sum(ids(ECGLoader(ECGIterable(dataset, batch=32, ranks=(rank, 3)))), []) for rank in range(3)]
    assert sorted(sum(parts, [])) == list(range(540)) and {len(part) for part in parts} == {180}


@pytest.mark.parametrize("ranks", [(1, 1), (-1, 2), (0, 0), (0.5, 2), ("a", "b"), 3, (1, 2, 3), ()])
def test_ranks_that_are_none_are_refused(dataset, ranks):
    with pytest.raises(UserError, match=r"ranks is .*needed \(rank, of\)"):
        ECGIterable(dataset, ranks=ranks)


RANK = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import ecg_batch
rank, path, store, context = int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
if __name__ == "__main__":
    dataset = ecg_batch.open_dataset(path)
    stream = ecg_batch.ECGIterable(dataset, batch=32)  # before the group is there
    all_of_it = ecg_batch.ECGIterable(dataset, batch=32, ranks=(0, 1))
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    seen = {}
    for name, workers in (("main", 0), ("workers", 2)):
        options = {"multiprocessing_context": context} if workers else {}
        plain = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers, **options)
        seen["plain " + name] = [len(stream), [batch["record_id"].tolist() for batch in plain]]
        ours = ecg_batch.ECGLoader(stream, workers, **options)
        seen["ours " + name] = [len(ours), [batch["record_id"].tolist() for batch in ours]]
        every = ecg_batch.ECGLoader(all_of_it, workers, **options)
        seen["every " + name] = [len(every), [batch["record_id"].tolist() for batch in every]]
    torch.distributed.destroy_process_group()
    print(json.dumps(seen))
"""


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_stream_made_before_the_group_knows_its_rank(dataset, tmp_path, context):
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, str(tmp_path / "rank.py"), str(TESTS.parent)]
    ranks = [subprocess.Popen([*command, str(rank), str(dataset.path), str(tmp_path / "store"), context], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) for rank in range(2)]  # fmt: skip
    try:
        said = [rank.communicate(timeout=180) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    seen = [json.loads(out) if out else pytest.fail(err[-2000:]) for out, err in said]
    for name in seen[0]:
        lengths, batches = zip(*(part[name] for part in seen), strict=True)
        assert [len(part) for part in batches] == list(lengths), name
        held = sorted(record for part in batches for batch in part for record in batch)
        assert held == sorted(list(range(540)) * (2 if name.startswith("every") else 1)), name


# Others' rebuilt loaders --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_made_of_our_attributes_gives_millivolts(dataset, workers):
    """As accelerate.prepare and others do: of dataset, batch_size, collate_fn and the rest, with set_epoch of the dataset."""
    ours = ECGLoader(ECGIterable(dataset, batch=32), workers)
    known = ids(ours)
    names = ("dataset", "num_workers", "batch_size", "collate_fn", "pin_memory", "timeout", "worker_init_fn",
             "multiprocessing_context", "generator", "prefetch_factor", "persistent_workers", "pin_memory_device")  # fmt: skip
    theirs = torch.utils.data.DataLoader(**{name: getattr(ours, name) for name in names if hasattr(ours, name)})
    batches = list(theirs)
    assert ids(batches) == known
    np.testing.assert_allclose(batches[3]["signal"].numpy(), dataset[batches[3]["record_id"].numpy()], rtol=1e-6)
    theirs.dataset.set_epoch(1)
    assert ids(theirs) == ids(ours) != known
    raw = ECGLoader(ECGIterable(dataset, batch=32, raw=True), workers)
    assert next(iter(raw))["signal"].dtype == torch.int16


@pytest.mark.slow
def test_two_loaders_of_one_stream_do_not_disturb_each_other(dataset):
    stream = ECGIterable(dataset, batch=32)
    whole = ids(ECGLoader(ECGIterable(dataset, batch=32), 2))
    one, two = ECGLoader(stream, 2), ECGLoader(stream, 2)
    ids(two)
    assert [list(pair) for pair in zip(ids(one), whole, strict=True)] == [[batch, batch] for batch in whole]
    mixed = [(a["record_id"].tolist(), b["record_id"].tolist()) for a, b in zip(ECGLoader(stream, 2), two, strict=True)]
    assert [a for a, _ in mixed] == whole and [b for _, b in mixed] != whole


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True])
def test_labels_can_be_kept_while_workers_run(dataset, raw):
    """Each tensor in memory that workers share is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, hard))
    try:
        loader = ECGLoader(ECGIterable(dataset, batch=4, raw=raw, columns=("sex",)), 2)
        kept = [{name: value for name, value in batch.items() if name != "signal"} for batch in loader]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(kept) == 135 and sorted(record for batch in kept for record in batch["record_id"].tolist()) == list(range(540))


# Lightning ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def train(dataset, tmp_path):
    """train(resume, loader options, trainer options) -> the batches that a model saw, trained by Lightning."""
    lightning = pytest.importorskip("pytorch_lightning")

    estimated = []

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(12, 5), []

        def training_step(self, batch, index):
            self.seen.append(batch["record_id"].tolist())
            return torch.nn.functional.mse_loss(self.layer(batch["signal"].mean(dim=2)), batch["labels"])

        def predict_step(self, batch, index):
            self.seen.append(batch["record_id"].tolist())
            assert batch["signal"].dtype == torch.float32 and batch["signal"].abs().max() < 33

        def configure_optimizers(self):
            optimizer, steps = torch.optim.SGD(self.parameters(), 0.01), self.trainer.estimated_stepping_batches
            estimated.append(steps)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=int(steps))
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def run(resume=None, act="fit", saved=None, workers=0, **limits):
        quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
        callbacks = [lightning.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, **saved)] if saved else []
        trainer = lightning.Trainer(
            default_root_dir=tmp_path, callbacks=callbacks, enable_checkpointing=bool(saved), **quiet, **limits
        )
        model = Model()
        getattr(trainer, act)(model, ECGLoader(ECGIterable(dataset, batch=32), workers), ckpt_path=resume)
        return model.seen

    run.estimated = estimated
    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_on_every_record_and_resumes_with_workers(train, tmp_path):
    whole = train(max_epochs=2, workers=2, saved={"filename": "{step}", "every_n_train_steps": 5})
    assert sorted(i for batch in whole[:17] for i in batch) == list(range(540)) == sorted(i for batch in whole[17:] for i in batch)
    assert whole[:17] != whole[17:]
    assert train(tmp_path / "step=5.ckpt", max_epochs=2, workers=2) == whole[5:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_estimates_all_steps_for_its_schedules_also_when_it_resumes(train, tmp_path):
    """OneCycleLR raises where it is stepped further than it was told."""
    train(max_epochs=3, saved={"filename": "{step}", "every_n_train_steps": 1})
    for step in (1, 16, 17, 18, 34, 50):
        train(tmp_path / f"step={step}.ckpt", max_epochs=3)
    assert train.estimated == [51] * 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_goes_on_from_each_checkpoint(train, tmp_path):
    whole = train(max_epochs=3, saved={"filename": "{step}", "every_n_train_steps": 1})
    assert len(whole) == 51 and len({str(whole[at : at + 17]) for at in (0, 17, 34)}) == 3
    for step in (1, 9, 16, 17, 18, 33, 34, 35, 50):
        assert train(tmp_path / f"step={step}.ckpt", max_epochs=3) == whole[step:], step


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved", [{"every_n_epochs": 1}, {"every_n_epochs": 1, "save_on_train_epoch_end": True}])
def test_lightning_goes_on_from_the_end_of_an_epoch(train, tmp_path, saved):
    whole = train(max_epochs=3, saved={"filename": "{epoch}", **saved})
    for epoch in (0, 1):
        assert train(tmp_path / f"epoch={epoch}.ckpt", max_epochs=3) == whole[17 * (epoch + 1) :], epoch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_overfits_the_same_batches(train):
    seen = train(max_epochs=3, overfit_batches=2)
    assert len(seen) == 6 and seen[:2] == seen[2:4] == seen[4:]
    limited = train(max_epochs=3, limit_train_batches=2)
    assert len(limited) == 6 and limited[:2] != limited[2:4] != limited[4:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_predicts_every_record_without_shuffling(train, workers):
    seen = train(act="predict", workers=workers)
    assert sorted(sum(seen, [])) == list(range(540)) and all(batch == sorted(batch) for batch in seen)
    assert workers or sum(seen, []) == list(range(540))  # workers read at several places at once


# Where it is --------------------------------------------------------------------------------------------------------------


def test_a_relative_path_stays_where_it_was(small_dataset, make_dataset, monkeypatch, tmp_path):
    other = tmp_path / "elsewhere"
    (other / "runs").mkdir(parents=True)
    make_dataset("elsewhere/runs/a", seed=9)
    (tmp_path / "runs").mkdir()
    small_dataset.rename(tmp_path / "runs/a")
    monkeypatch.chdir(tmp_path)
    dataset = ecg_batch.open_dataset("runs/a")
    whole = dataset.raw[:]
    assert (whole[:5] != ecg_batch.open_dataset(other / "runs/a").raw[:5]).any()
    fresh = ecg_batch.open_dataset("runs/a")
    monkeypatch.chdir(other)
    np.testing.assert_array_equal(fresh.raw[:], whole)
    assert fresh.records.equals(dataset.records)
    seen = {int(record): signal for batch in ECGLoader(ECGIterable(fresh, raw=True)) for record, signal in
            zip(batch["record_id"], batch["signal"].numpy(), strict=True)}  # fmt: skip
    np.testing.assert_array_equal(seen[77], whole[77])


def test_another_dataset_at_the_same_path_is_read_as_it_is(make_dataset):
    one, two = make_dataset("one", records=100), make_dataset("two", seed=9, records=130)
    expected = ecg_batch.open_dataset(two).raw[:]
    ecg_batch.open_dataset(one).raw[:]
    one.rename(one.with_name("aside"))
    two.rename(one)
    np.testing.assert_array_equal(ecg_batch.open_dataset(one).raw[:], expected)


@pytest.fixture
def ptbxl(tmp_path) -> Path:
    write_layout(tmp_path / "ptbxl", list(range(12)))
    return tmp_path / "ptbxl"


@pytest.mark.slow
def test_a_cache_knows_what_it_was_made_of(ptbxl, tmp_path):
    first = ecg_batch.open_ptbxl(ptbxl, cache=tmp_path / "cache").raw[:].copy()
    one, two = sorted(ptbxl.rglob("*.dat"))[:2]
    one.write_bytes(two.read_bytes())  # of equal size
    again = ecg_batch.open_ptbxl(ptbxl, cache=tmp_path / "cache")
    np.testing.assert_array_equal(again.raw[:], ecg_batch.open_ptbxl(ptbxl).raw[:])
    assert not np.array_equal(again.raw[:], first) and again.content() == ecg_batch.open_ptbxl(ptbxl).content()


DAMAGE = {
    "empty": lambda data: b"", "short": lambda data: data[:-5000], "a bit": lambda data: data[:5000] + b"\x55" + data[5001:],
    "a bit of the sums": lambda data: data[:-1] + bytes([data[-1] ^ 1]), "another file": lambda data: b"x" * len(data),
    "its header": lambda data: data.replace(b"1000", b"1001", 1), "of before": lambda data: data[:-4],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew(ptbxl, tmp_path, damage):
    right = ecg_batch.open_ptbxl(ptbxl, cache=tmp_path / "cache").raw[:].copy()
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[damage](whole))
    np.testing.assert_array_equal(ecg_batch.open_ptbxl(ptbxl, cache=tmp_path / "cache").raw[:], right)
    assert path.read_bytes() == whole and os.listdir(tmp_path / "cache") == [path.name]


def test_a_cache_that_cannot_be_written_says_so(ptbxl, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*another cache"):
        ecg_batch.open_ptbxl(ptbxl, cache=tmp_path / "file/cache")
