"""A run takes up, renames and removes nothing but its own; what it cannot do in the end is refused before it begins."""

import json
import os
from pathlib import Path

import pytest
from comparing import assert_same_dataset
from fakes import fake

from ecg_batch.cli.outcome import exit_status
from ecg_batch.cli.synthesize import forecast_job, synthesize_job
from ecg_batch.dataset.layout import FOLDERS, PLAN, final_name, partial_of
from ecg_batch.dataset.run import find_folder
from ecg_batch.dataset.verify import verify
from ecg_batch.errors import UserError
from ecg_batch.request.parse import load_request
from ecg_batch.run.folder import LONGEST_NAME, open_run, place_of
from ecg_batch.run.local import run_missing, synthesize
from ecg_batch.run.planning import make_plan


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder -> its bytes, None of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


# Whose folder it is ---------------------------------------------------------------------------------------------------


def users_parts(folder: Path) -> None:
    for name in ("parts/engine.step", "staging/show.txt"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")


def users_notes(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def users_table(folder: Path) -> None:
    folder.mkdir()
    (folder / "queries.parquet").write_text("mine")


def users_link(folder: Path) -> None:
    users_notes(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def users_link_to_staging(folder: Path) -> None:
    folder.mkdir()
    (folder.with_name("elsewhere")).mkdir()
    (folder / "staging").symlink_to(folder.with_name("elsewhere"))


def users_file(folder: Path) -> None:
    folder.write_text("mine")


@pytest.mark.parametrize("theirs", [users_parts, users_notes, users_table, users_link, users_link_to_staging, users_file])
def test_a_folder_of_somebody_elses_under_the_name_of_ours_is_refused_and_not_touched(theirs, write_request, tmp_path):
    request = load_request(write_request())
    theirs(tmp_path / "run.partial")
    before = everything(tmp_path)
    with pytest.raises(UserError, match=r"run\.partial.*(nothing of it is touched|is no folder).*give another --out|Move it away"):
        synthesize(request, tmp_path / "run", 1, fake())
    assert everything(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("left", [(), ("staging",), FOLDERS, (*FOLDERS, "staging/file-0123456789abcdef0123456789abcdef")])
def test_what_a_run_killed_before_its_plan_left_is_taken_up(left, write_request, tmp_path):
    (tmp_path / "run.partial").mkdir()
    for name in left:
        path = tmp_path / "run.partial" / name
        path.write_text("half a plan") if "/" in name else path.mkdir()
    synthesize(load_request(write_request()), tmp_path / "run", 1, fake())
    assert list(verify(tmp_path / "run")) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parts/mine.csv", "staging/mine.txt", "failures/mine/notes.txt"])
def test_a_file_that_is_not_the_runs_outlives_it(name, make_run, write_request, caplog):
    run = make_run()
    (run.folder / name).parent.mkdir(exist_ok=True)
    (run.folder / name).write_text("mine")
    synthesize(load_request(write_request()), run.out, 1, fake())
    assert (run.out / name).read_text() == "mine" and "no part of the run" in caplog.text
    assert [problem for problem in verify(run.out)] == [f"{name}: stray: no part of the dataset. Remove it"]


# The last act ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_link_is_resolved_and_the_data_lie_where_it_leads(write_request, make_dataset, tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "data").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "big" / "data")
    request = load_request(write_request())
    assert place_of(tmp_path / "run") == tmp_path / "big" / "data"
    run_missing(open_run(*make_plan(request), tmp_path / "run"), 1, fake(), frozenset({0}))
    assert find_folder(tmp_path / "run") == tmp_path / "big" / "data.partial", "status finds it by the link's name too"
    synthesize(request, tmp_path / "run", 1, fake())
    assert (tmp_path / "run").is_symlink() and not (tmp_path / "big" / "data").is_symlink()
    assert_same_dataset(make_dataset(), tmp_path / "big" / "data")
    assert exit_status(lambda: synthesize_job(write_request(), [], tmp_path / "run", 1, fake())) == 0


@pytest.mark.slow
def test_a_link_to_what_is_not_there_yet_is_resolved(write_request, tmp_path):
    (tmp_path / "run").symlink_to("later")
    synthesize(load_request(write_request()), tmp_path / "run", 1, fake())
    assert list(verify(tmp_path / "later")) == [] and (tmp_path / "run").is_symlink()


def test_an_empty_folder_becomes_the_dataset(write_request, tmp_path):
    (tmp_path / "run").mkdir()
    synthesize(load_request(write_request()), tmp_path / "run", 1, fake())
    assert list(verify(tmp_path / "run")) == [] and [path.name for path in tmp_path.glob(".ecg*")] == []


@pytest.fixture(params=["tmpfs", "bind"])
def mounted(request, mount, tmp_path):
    """An empty folder that cannot be renamed onto. Of a bind mount st_dev does not tell."""
    (tmp_path / "source").mkdir()
    return mount("mounted", bind=None if request.param == "tmpfs" else tmp_path / "source")


@pytest.mark.slow
def test_a_mount_point_is_refused_before_the_first_record(mounted, write_request):
    with pytest.raises(UserError, match=r"could not be moved there: .* Give a folder in it, for example --out .*mounted/dataset"):
        synthesize(load_request(write_request()), mounted, 1, fake())
    assert not partial_of(mounted).exists() and list(mounted.parent.glob(".ecg*")) == []
    synthesize(load_request(write_request()), mounted / "dataset", 1, fake())


def test_a_mount_point_under_the_name_of_the_unfinished_run_is_refused(write_request, mount, tmp_path):
    folder = mount("run.partial")
    with pytest.raises(UserError, match="run.partial: is a mount point, which cannot be renamed to run"):
        open_run(*make_plan(load_request(write_request())), tmp_path / "run")
    assert os.listdir(folder) == []


# Names ----------------------------------------------------------------------------------------------------------------

ODD = {
    "the root": ("/", "cannot be the folder of a run"),
    "the root by another way": ("/tmp/..", "cannot be the folder of a run"),
    "the ending alone": (".partial", "cannot be the folder of a run"),
    "a newline": ("a\nrm -rf x", "control characters in a path ('\\n')"),
    "an escape": ("a\x1b[2J", "control characters in a path ('\\x1b')"),
    "a newline above": ("a\nb/c", "control characters in a path ('\\n')"),
    "Latin-1": ("caf\udce9", "bytes that are no UTF-8 in a path ('\\udce9')"),
    "a long name": ("a" * (LONGEST_NAME - 7), "the name is too long"),
    "in a file": ("file/run", "is a file, and no folder can be in it"),
    "in a file below": ("file/a/b/run", "is a file, and no folder can be in it"),
    "a link to itself": ("loop", "a symbolic link that leads nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("dry", [True, False])
def test_a_name_that_cannot_serve_is_refused_and_nothing_is_made(case, dry, write_request, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    request, (name, says) = write_request(), ODD[case]
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(os.listdir(tmp_path))
    job = (lambda: forecast_job(request, [], Path(name), None, None)) if dry else (
        lambda: synthesize_job(request, [], Path(name), 1, fake()))  # fmt: skip
    assert exit_status(job) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and len(said) < 600, said
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ümlaut und leer", "a'b\"c$(d)", "-rf", "a" * (LONGEST_NAME - 8), "日本語"])
def test_other_names_serve(name, write_request, tmp_path):
    synthesize(load_request(write_request()), tmp_path / name, 1, fake())
    assert list(verify(find_folder(tmp_path / name))) == [] and final_name(tmp_path / f"{name}.partial") == tmp_path / name


@pytest.mark.slow
def test_a_folder_that_may_not_be_written_is_refused_before_the_first_record(write_request, open_folder):
    """Its parent alone may not: all could be made, and then not renamed. Another may not even be looked into."""
    planned = make_plan(load_request(write_request()))
    (open_folder / "run.partial").mkdir()
    os.chmod(open_folder / "run.partial", 0o777)
    (open_folder / "secret").mkdir(mode=0o700)
    said = in_the_name_of_another(lambda: [refusal(planned, open_folder / name) for name in ("run", "secret/run")])
    assert said == [
        f"{open_folder}: cannot be written, and the last act of a run is to rename its folder there. Give an --out that you may "
        "write to",
        f"--out {open_folder}/secret/run: cannot be looked at: Permission denied. Give an --out that you may write to",
    ]
    assert os.listdir(open_folder / "run.partial") == []


def refusal(planned, out: Path) -> str:
    try:
        open_run(*planned, out)
    except UserError as error:
        return str(error)


def in_the_name_of_another(act):
    """What act() returns in a child process that is no longer root."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setuid(54321)
            os.write(write, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as file:
        return json.load(file)


# Refused before the first write ---------------------------------------------------------------------------------------


def open_nothing(plan):
    raise UserError("vqvae.safetensors: does not fit. Train it again")


def no_gpu(plan):
    from ecg_batch.synthesis.generate import open_generator

    return open_generator(plan)


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "open_generator", "workers", "cluster", "says"), [
    ({}, open_nothing, 1, None, "does not fit"),
    ({}, open_nothing, 2, None, "does not fit"),
    ({}, open_nothing, 1, "{}", "squeue"),
    ({}, fake(), 1, "{}", "--cluster: sbatch, srun, squeue, scontrol not found on the PATH"),
    ({"texture": "decoded", "device": "cuda"}, no_gpu, 1, None, "device is cuda but this machine shows no GPU"),
    ({"texture": "decoded", "device": "cuda"}, no_gpu, 2, None, "device is cuda but this machine shows no GPU"),
    ({}, fake(), 1, "{gpu: 1}", "unknown key"),
])  # fmt: skip
def test_a_refusal_leaves_nothing_and_the_mended_request_is_no_other_run(
    changes, open_generator, workers, cluster, says, write_request, tmp_path, monkeypatch, capsys
):
    import torch

    if changes and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    where = tmp_path / "cluster.yaml" if cluster else None
    if cluster:
        where.write_text(cluster)
        monkeypatch.setenv("PATH", "/nowhere")
    request = write_request(**changes)
    before = sorted(os.listdir(tmp_path))
    assert exit_status(lambda: synthesize_job(request, [], tmp_path / "run", workers, open_generator, where)) == 2
    assert says in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == before
    assert exit_status(lambda: synthesize_job(write_request(), ["seed=8"], tmp_path / "run", 1, fake())) == 0


def open_where_it_is_tried(plan):
    """As where a machine has the weights and its workers do not see them."""
    if (Path(plan.request.models).parent / "tried").exists():
        raise UserError("vqvae.safetensors: not there")
    (Path(plan.request.models).parent / "tried").touch()
    return fake()(plan)


@pytest.mark.slow
def test_a_run_that_ends_before_anything_is_made_gives_its_folder_back(write_request, inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ecg_batch.run.local.way_to_start", lambda plan: "spawn")  # forked ones have what was tried
    try:
        assert exit_status(lambda: synthesize_job(write_request(), [], tmp_path / "run", 2, open_where_it_is_tried)) == 2
    finally:
        (inputs / "tried").unlink(missing_ok=True)
    assert "not there" in capsys.readouterr().err and not partial_of(tmp_path / "run").exists()


@pytest.mark.parametrize("kept", ["a shard", "a note"])
def test_a_folder_that_holds_anything_is_not_given_back(kept, make_run, write_request):
    run = make_run()
    if kept == "a shard":
        run_missing(run, 1, fake(), frozenset({0}))
    else:
        (run.folder / "notes.txt").write_text("mine")
    from ecg_batch.run.folder import give_back

    give_back(run)
    assert (run.folder / PLAN).exists() if kept == "a shard" else (run.folder / "notes.txt").exists()


# Told at the beginning ------------------------------------------------------------------------------------------------


def test_a_run_without_compiled_kernels_says_so(write_request, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ecg_batch.run.local.why_plain", lambda: "none were built")
    synthesize(load_request(write_request()), tmp_path / "run", 1, fake(), only=frozenset({0}))
    assert "no compiled kernels (none were built): plain torch is used, at about a fifth of the speed" in caplog.text
