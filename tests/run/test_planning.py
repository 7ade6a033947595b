"""Planning is pure until the folder is opened, quick, and refuses before anything runs."""

import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from fakes import write_fake_bank, write_fake_models
from safetensors import safe_open
from safetensors.numpy import save_file

from ecg_batch.bundled import BUNDLED
from ecg_batch.dataset.layout import PLAN, cut_shards, final_name, partial_of
from ecg_batch.dataset.plan import read_plan, refuse_other_software
from ecg_batch.dataset.run import find_folder
from ecg_batch.errors import UserError
from ecg_batch.files import sha256_file
from ecg_batch.kernels import build
from ecg_batch.kernels.build import CAPS, GPU_KERNELS
from ecg_batch.request.parse import load_request
from ecg_batch.run.folder import open_run
from ecg_batch.run.planning import make_plan


def plan_of(path, *overrides):
    return make_plan(load_request(path, overrides))


def refusal(path, *overrides) -> str:
    with pytest.raises(UserError) as caught:
        plan_of(path, *overrides)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize(("records", "size"), [(1, 64), (64, 64), (65, 64), (1000, 128), (128, 128)])
def test_shards_cover_each_record_once(records, size):
    shards = cut_shards(records, size)
    assert [record for shard in shards for record in range(shard.start, shard.stop)] == list(range(records))
    assert [shard.index for shard in shards] == list(range(len(shards)))


@pytest.mark.slow
def test_the_run_id_knows_contents_not_places(write_request, inputs, tmp_path):
    write_fake_models(tmp_path / "elsewhere")
    asked = {"texture": "decoded"}
    here, moved = plan_of(write_request(**asked))[0], plan_of(write_request(**asked, models="elsewhere"))[0]
    assert here.run_id == moved.run_id
    changes = [
        "seed=8",
        "alpha=0.5",
        "batch=128",
        "records=541",
        "k=3",
        "mix.hr_bpm=60",
        "mix.labels.NORM=0.4999",
        "device=cuda",
    ]
    others = {plan_of(write_request(**asked), change)[0].run_id for change in changes}
    assert len(others) == len(changes) and here.run_id not in others


def test_a_label_needs_donors_in_the_allowed_folds(write_request):
    message = refusal(write_request(mix={"labels": {"WPW": 0.5, "XYZ": 0.5}}))
    assert "no donor for WPW, XYZ in folds 1, 2, 3" in message and "AFIB (2)" in message and "MI (2)" in message
    plan_of(write_request(mix={"labels": {"WPW": 1}}, donor_folds=[9]))


def test_models_without_one_of_rhythm_make_long_records_by_rules(write_request, tmp_path):
    """As folders of models that were made before there was one."""
    write_fake_models(tmp_path / "older")
    (tmp_path / "older" / "rhythm.safetensors").unlink()
    asked = {"models": "older", "texture": "decoded", "duration_s": 60, "bank": "bundled", "mix": {"labels": {"NORM": 1}}}
    message = refusal(write_request(**asked))
    assert "rhythm.safetensors" in message and message.endswith("say rhythm: {order: rules}")
    assert "rhythm" not in plan_of(write_request(**asked, rhythm={"order": "rules"}))[0].inputs


def test_inputs_that_do_not_fit_are_refused(write_request, tmp_path):
    assert "no bank here" in refusal(write_request(bank="nowhere"))
    assert "cannot read the models" in refusal(write_request(texture="decoded", models="nowhere"))
    write_fake_models(tmp_path / "fast", fs_hz=500)
    assert "vqvae.safetensors was trained at 500 Hz" in refusal(write_request(texture="decoded", models="fast"))
    write_fake_models(tmp_path / "mixed", vqvae_sha256="0" * 64)
    assert "trained on the tokens of another vqvae.safetensors" in refusal(write_request(texture="decoded", models="mixed"))
    write_fake_bank(tmp_path / "fastbank", fs_hz=500)
    assert "holds 500 Hz" in refusal(write_request(bank="fastbank"))
    (tmp_path / "fastbank" / "donors.zarr" / "fold" / "zarr.json").write_text("{")
    assert "bank" in refusal(write_request(bank="fastbank"))
    (tmp_path / "fast" / "mamba.safetensors").write_bytes(b"\xff" * 20)
    assert "not a safetensors file" in refusal(write_request(texture="decoded", models="fast"))


def sized(**changes):
    return lambda tensors, stated: stated.update(config=json.dumps({**json.loads(stated["config"]), **changes}))


def stating(key, text):
    return lambda tensors, stated: stated.update({key: text})


def without(key):
    return lambda tensors, stated: stated.pop(key)


def shorter(tensors, stated):
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name] = tensors[name][:-1]


def whole_numbers(tensors, stated):
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name] = tensors[name].astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vqvae", "mamba", "judge"])
@pytest.mark.parametrize("change", [
    lambda tensors, stated: tensors.pop(min(tensors)), lambda tensors, stated: tensors.update(more=np.zeros(3, np.float32)),
    shorter, whole_numbers, without("config"), stating("config", "[]"), stating("config", '{"colour": 3}'),
])  # fmt: skip
def test_weights_whose_tensors_are_not_those_that_they_state_are_refused(write_request, tmp_path, name, change):
    assert_refused(write_request, tmp_path, name, change)


@pytest.mark.parametrize(("name", "change"), [
    *(("vqvae", sized(**{key: value})) for key, value in (("codes", 256), ("dim", 65), ("channels", 32), ("dilations", [1, 3]))),
    *(("vqvae", sized(**{key: value})) for key, value in (("noise_channels", 8), ("codes", -1), ("leads", 4))),
    *(("mamba", sized(**{key: value})) for key, value in (("d_model", 32), ("n_layer", 3), ("d_conv", 5), ("d_state", 0))),
    *(("mamba", sized(**{key: value})) for key, value in (("texture_tokens", 511), ("condition_tokens", 1), ("expand", 4))),
    *(("judge", sized(**{key: value})) for key, value in (("widths", [32]), ("blocks", 3), ("kernel", 5), ("outputs", 4))),
    ("mamba", without("conditions")), ("mamba", stating("superclass_of", "3")), ("judge", stating("thresholds", "[1]")),
    ("judge", without("patients")), ("judge", without("classes")), ("judge", stating("classes", '["MI"]')),
])  # fmt: skip
def test_weights_of_other_sizes_than_they_state_are_refused(write_request, tmp_path, name, change):
    assert_refused(write_request, tmp_path, name, change)


def assert_refused(write_request, tmp_path, name, change):
    """Before anything is written, in words that name the file. The rest of the folder is the bundled one."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for other in ("vqvae", "mamba", "judge"):
        shutil.copy(BUNDLED / f"{other}.safetensors", folder)
    path = folder / f"{name}.safetensors"
    rewrite(path, change)
    if name == "vqvae":  # so that it is the sizes that are refused
        rewrite(folder / "mamba.safetensors", stating("vqvae_sha256", sha256_file(path)))
    message = refusal(write_request(texture="decoded", models="weights", judge={"steps": 1}))
    assert f"models: {path}: " in message and len(message) < 800 and "again" in message


def rewrite(path, change):
    with safe_open(path, framework="numpy") as file:
        tensors, stated = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118, no mapping
    change(tensors, stated)
    save_file(tensors, path, stated)


def test_records_and_table_must_agree(write_request, tmp_path):
    (tmp_path / "t.csv").write_text("label\nNORM\nNORM\n")
    assert "records is 540 but the table has 2 rows" in refusal(write_request(mix=None, table="t.csv"))


def test_a_rate_in_a_table_that_leaves_long_records_no_room_is_refused_by_row(write_request, tmp_path):
    (tmp_path / "t.csv").write_text("label,hr_bpm\nNORM,70\nNORM,240\nMI,\nMI,22\n")
    said = refusal(write_request(mix=None, table="t.csv", records=None, shard=None, batch=None, duration_s=3600))
    assert "2 of 4 rows cannot be made: row 2: hr_bpm is 240, outside 25.26 to 228.6, within which" in said and "row 4" in said
    plan, _ = plan_of(write_request(mix=None, table="t.csv", records=None))  # as 10 s records they can
    assert plan.request.records == 4


@pytest.mark.parametrize("changes", [
    {}, {"mix": None, "cohort": {}}, {"mix": None, "cohort": {"hr_spread": 0, "labels": {"NORM": 0.5, "AFIB": 0.5}}},
])  # fmt: skip
def test_plans_come_back_from_disk(make_run, changes):
    run = make_run(**changes)
    assert read_plan(run.folder).run_id == run.plan.run_id
    assert read_plan(run.folder).request.resolved() == run.request.resolved()
    assert read_plan(run.folder).request.cohort == run.request.cohort
    assert read_plan(run.folder).shards == run.shards
    assert find_folder(run.out) == find_folder(run.folder) == run.folder


def test_a_run_is_found_from_inside_and_by_either_name(make_run, monkeypatch):
    run = make_run()
    monkeypatch.chdir(run.folder)
    assert find_folder(Path(".")) == find_folder(Path("receipts/..")) == run.folder
    assert final_name(run.folder) == final_name(run.out) == run.out


def test_another_request_on_the_same_folder_is_refused_naming_the_keys(make_run, write_request):
    run = make_run()
    before = (run.folder / PLAN).read_bytes()
    with pytest.raises(UserError) as caught:
        open_run(*plan_of(write_request(), "seed=8", "mix.hr_bpm=60"), run.out)
    for words in (
        "seed is 7 there and 8 here",
        "mix.hr_bpm.low is 50.0 there and 60.0 here",
        "another --out",
        f"delete {run.folder}",
    ):
        assert words in str(caught.value)
    assert (run.folder / PLAN).read_bytes() == before


def test_other_software_does_not_go_on_with_a_run(make_run):
    run = make_run()
    raw = json.loads((run.folder / PLAN).read_bytes())
    raw["versions"]["numpy"] = "1.0"
    (run.folder / PLAN).write_text(json.dumps(raw))
    with pytest.raises(UserError, match="begun with other software .numpy 1.0 there"):
        open_run(run.plan, None, run.out)


@pytest.mark.parametrize(("changes", "built", "counts"), [
    ({}, "compiled 5 by GCC", False), ({}, "plain", True),
    ({"texture": "decoded", "judge": {"steps": 1}}, "compiled 5 by GCC", True),
])  # fmt: skip
def test_instructions_count_where_torch_itself_computes(write_request, tmp_path, monkeypatch, changes, built, counts):
    """The compiled kernels give the same bits at every width; torch does not, and one run made at two of them is no dataset."""
    monkeypatch.setattr("ecg_batch.dataset.plan.kernels", lambda: built)
    for name in CAPS:  # a machine may set some of them
        monkeypatch.delenv(name, raising=False)
    plan, _ = plan_of(write_request(**changes, models="bundled"))
    run = open_run(plan, None, tmp_path / "run")
    assert ("instructions" in plan.versions) == counts
    for name in ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "AVX2")
            if not counts:
                refuse_other_software(read_plan(run.folder))
                continue
            with pytest.raises(UserError, match=f"begun with other software .instructions .*{name}=AVX2 here"):
                refuse_other_software(read_plan(run.folder))
    raw = json.loads((run.folder / PLAN).read_bytes())  # begun before instructions counted
    raw["versions"].pop("instructions", None)
    (run.folder / PLAN).write_text(json.dumps(raw))
    refuse_other_software(read_plan(run.folder))


def test_kernels_of_a_gpu_count_where_one_makes_the_tokens(write_request, tmp_path, monkeypatch):
    """Triton's loop and the CUDA graph round otherwise, so a node with Triton does not go on with what one without began."""
    installed, version = {"mamba-ssm": "2.2.6"}, metadata.version

    def version_here(name: str) -> str:
        if name in GPU_KERNELS and name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed.get(name) or version(name)

    monkeypatch.setattr(metadata, "version", version_here)
    monkeypatch.setattr(build, "find_spec", lambda name: name in installed)
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(build.sysconfig, "get_path", lambda *words: str(tmp_path))
    path = write_request(texture="decoded", models="bundled")
    on_cpu, _ = plan_of(path)
    on_gpu, _ = plan_of(path, "device=cuda")
    assert "GPU kernels" not in on_cpu.versions and on_gpu.versions["GPU kernels"] == "mamba-ssm 2.2.6"
    installed["triton"] = "3.7.1"
    refuse_other_software(on_gpu)  # Python's headers are absent: Triton cannot compile its launcher
    (tmp_path / "Python.h").touch()
    refuse_other_software(on_cpu)
    with pytest.raises(UserError, match="GPU kernels mamba-ssm 2.2.6 there, triton 3.7.1, mamba-ssm 2.2.6 here"):
        refuse_other_software(on_gpu)
    installed.clear()
    assert plan_of(path, "device=cuda")[0].versions["GPU kernels"] == "those of torch"


@pytest.mark.parametrize(("changes", "built", "counts"), [
    ({}, "compiled 5 by GCC", False), ({}, "plain", True), ({"texture": "decoded"}, "compiled 5 by GCC", True),
])  # fmt: skip
def test_another_torch_counts_where_it_computes(write_request, tmp_path, monkeypatch, changes, built, counts):
    monkeypatch.setattr("ecg_batch.dataset.plan.kernels", lambda: built)
    plan, _ = plan_of(write_request(**changes, models="bundled"))
    refuse_other_software(plan)
    without = replace(plan, versions=plan.versions | {"torch": "absent"})
    with pytest.raises(UserError, match="torch absent there") if counts else nullcontext():
        refuse_other_software(without)


def test_a_run_that_others_go_on_with_keeps_the_versions_it_was_begun_with(write_request, tmp_path, monkeypatch):
    """By whom it was begun stands in plan.json, and dataset.json must say the same."""
    monkeypatch.setattr("ecg_batch.dataset.plan.kernels", lambda: "compiled 5 by GCC")
    plan, table = plan_of(write_request(models="bundled"))
    begun = replace(plan, versions=plan.versions | {"torch": "absent"})
    run = open_run(begun, table, tmp_path / "run")
    again = open_run(plan, table, tmp_path / "run")
    assert again.folder == run.folder and again.plan.versions == begun.versions == read_plan(run.folder).versions


def test_a_folder_that_cannot_be_made_is_told_in_words(write_request):
    with pytest.raises(UserError, match="/proc/.*cannot be made: .*Give an --out that you may write to"):
        open_run(*plan_of(write_request()), Path("/proc/run"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 1}'])
def test_a_damaged_plan_is_named(make_run, damage):
    run = make_run()
    (run.folder / PLAN).write_bytes(damage)
    with pytest.raises(UserError, match="plan.json: damaged"):
        read_plan(run.folder)


@pytest.mark.parametrize("version", [0.6, 1.0, 0, -1, True, "1", None, [1]])
def test_a_format_that_is_no_whole_number_from_1_is_damage(make_run, version):
    run = make_run()
    raw = json.loads((run.folder / PLAN).read_bytes()) | {"format": version}
    (run.folder / PLAN).write_text(json.dumps(raw))
    with pytest.raises(UserError, match="plan.json: damaged"):
        read_plan(run.folder)


def test_a_newer_plan_is_named(make_run):
    run = make_run()
    (run.folder / PLAN).write_text('{"format": 2}')
    with pytest.raises(UserError, match="format 2; this ecg-batch reads up to 1"):
        read_plan(run.folder)


def test_what_is_no_dataset_is_left_alone(make_run, tmp_path):
    run = make_run()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(UserError, match="exists and is no dataset"):
        open_run(run.plan, None, tmp_path / "thesis")
    assert not partial_of(tmp_path / "thesis").exists()
    with pytest.raises(UserError, match="no dataset here"):
        find_folder(tmp_path / "thesis")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mix", "csv", "parquet"])
def test_a_million_records_are_planned_in_under_5_s(write_request, tmp_path, kind):
    size = {"records": 1_000_000, "batch": 256, "shard": 4096}
    if kind != "mix":
        index = np.arange(1_000_000)
        table = pa.table({"label": np.array(["NORM", "AFIB", "IMI"])[index % 3], "hr_bpm": 60 + index % 40, "age": index % 90})
        csv.write_csv(table, tmp_path / "t.csv") if kind == "csv" else pq.write_table(table, tmp_path / "t.parquet")
        size |= {"mix": None, "table": f"t.{kind}"}
    path = write_request(**size)
    start = time.process_time()  # of our own: a busy machine is no fault of ours
    plan, table = plan_of(path)
    run = open_run(plan, table, tmp_path / "run")
    assert time.process_time() - start < 5
    assert len(read_plan(run.folder).shards) == 245
