"""One command: what it is told wrongly it says in one line, what it narrates goes to stderr, what it finds to stdout."""

import ast
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from fakes import fake
from places import ROOT, TESTS

from ecg_batch.cli.configs import example_files
from ecg_batch.cli.logs import Stderr, log_from
from ecg_batch.cli.main import COMMANDS, build_parser, main
from ecg_batch.cli.outcome import CLOSED_PIPE, FAILED, INTERRUPTED, MENDABLE, exit_status
from ecg_batch.cli.synthesize import synthesize_job
from ecg_batch.cli.train import JOBS
from ecg_batch.errors import ShardsFailed, UserError, number_of

PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | {"PYTHONPATH": PATH}
COMMAND = [sys.executable, "-m", "ecg_batch"]
WITH_A_JOB = sorted(set(COMMANDS) - {"configs"})


@pytest.fixture(autouse=True)
def silent_again():
    """What a test lets be heard is not heard in the next."""
    yield
    ours = logging.getLogger("ecg_batch")
    ours.setLevel(logging.NOTSET)
    ours.handlers = [handler for handler in ours.handlers if not isinstance(handler, Stderr)]


def say(*words, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT, **options)


def status_of(words: list[str]) -> int:
    """As a shell sees it: argparse leaves by SystemExit."""
    try:
        return main(words)
    except SystemExit as end:
        return end.code


# Help -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + [["train", name] for name in JOBS])
def test_every_help_has_a_plain_first_line_and_an_example(words, capsys):
    assert status_of([*words, "--help"]) == 0
    said = capsys.readouterr().out
    usage, described, *_ = said.split("\n\n")
    assert usage.startswith(f"usage: ecg-batch {' '.join(words)} ")
    assert described.splitlines()[0].endswith(".")
    assert f"\n  ecg-batch {' '.join(words)}" in said[said.index("\nexample") :]


def test_the_help_of_the_whole_names_every_command_and_status(capsys):
    assert status_of(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n    {name} " in said for name in COMMANDS) and "130 interrupted" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_A_JOB)
def test_a_job_is_the_command(name):
    job = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), "--help"]
    assert subprocess.run(job, capture_output=True, text=True, env=ENVIRONMENT).stdout == say(name, "--help").stdout != ""


def test_every_job_has_its_command():
    assert [path.stem for path in sorted((ROOT / "jobs").glob("*.py"))] == WITH_A_JOB


# Errors ---------------------------------------------------------------------------------------------------------------

BAD = {
    "no command": ([], "COMMAND"),
    "an unknown command": (["synthesise"], "invalid choice: 'synthesise'"),
    "an unknown option": (["status", "DIR", "--wach"], "--wach"),
    "an unknown shell": (["--print-completion", "fish"], "'fish'"),
    "loud and quiet": (["-v", "-q", "status", "DIR"], "not allowed with"),
    "no request": (["synthesize", "--out", "DIR"], "REQUEST"),
    "a request that is not there": (["synthesize", "nowhere.yaml", "--out", "DIR"], "nowhere.yaml"),
    "a forecast of one": (["synthesize", "nowhere.yaml", "--out", "DIR", "--dry-run"], "nowhere.yaml"),
    "no workers": (["synthesize", "R", "--out", "DIR", "--workers", "0"], "--workers: 0; needed a whole number from 1"),
    "words for workers": (["export", "DIR", "--format", "npy", "--workers", "all"], "--workers: all; needed a whole number from 1"),
    "workers on a cluster": (["synthesize", "R", "--out", "DIR", "--cluster", "C", "--workers", "2"], "give one of them"),
    "shards by name": (["synthesize", "R", "--out", "DIR", "--only", "first"], "for example 17,31"),
    "status of nothing": (["status", "nowhere"], "nowhere: no dataset here"),
    "a watch without seconds": (["status", "nowhere", "--watch", "often"], "often; needed seconds"),
    "a check of nothing": (["verify", "nowhere"], "nowhere: no dataset here"),
    "a picture of nothing": (["plot", "nowhere"], "nowhere"),
    "a page about nothing": (["report", "nowhere"], "nowhere"),
    "records by name": (["plot", "DIR", "--records", "all"], "for example 17,31"),
    "an export of nothing": (["export", "nowhere", "--format", "npy"], "nowhere"),
    "an unknown format": (["export", "DIR", "--format", "edf"], "invalid choice: 'edf'"),
    "a condition without a value": (["export", "DIR", "--format", "npy", "--where", "label"], "for example label=AFIB"),
    "a record for a span": (["export", "DIR", "--format", "npy", "--records", "7"], "for example 0:1000"),
    "a bank from nothing": (["prepare", "--ptbxl", "nowhere", "--out", "bank"], "nowhere"),
    "training of what": (["train"], "WHAT"),
    "training on nothing": (["train", "vqvae", "--bank", "nowhere", "--out", "models"], "ecg-batch prepare"),
    "an unknown setting": (["train", "mamba", "--bank", "nowhere", "--out", "models", "--set", "epoch=1"], "unknown key 'epoch'"),
    "an evaluation of nothing": (["evaluate", "nowhere", "--ptbxl", "nowhere", "--out", "report"], "nowhere"),
    "an unknown section": (["evaluate", "DIR", "--ptbxl", "P", "--out", "R", "--skip", "all"], "invalid choice: 'all'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_the_user_can_mend_is_one_line_and_status_2(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, says = BAD[case]
    assert status_of(words) == MENDABLE == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and says in said.err and said.err.count("\n") == 1, said.err


@pytest.mark.parametrize(("error", "status", "says"), [
    (UserError("x.yaml: no"), 2, "error: x.yaml: no\n"),
    (ShardsFailed("2 of 5 shards failed"), FAILED, "error: 2 of 5 shards failed\n"),
    (KeyboardInterrupt(), INTERRUPTED, "\ninterrupted: run the same command again\n"),
    (KeyboardInterrupt("3 of 5 are kept"), 130, "\ninterrupted: 3 of 5 are kept\n"),
])  # fmt: skip
def test_one_place_turns_errors_into_words(error, status, says, capsys):
    def fail():
        raise error

    before = signal.getsignal(signal.SIGINT)
    assert exit_status(fail) == status and capsys.readouterr().err == says and signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("error", [ValueError, BrokenPipeError])  # the latter with a stdout that is well
def test_a_fault_of_the_program_keeps_its_traceback(error, capfd):
    def fail():
        raise error

    with pytest.raises(error):
        exit_status(fail)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["status", "RUN", "--watch", "0.1"], ["export", "DIR", "--format", "npy", "--workers", "1"]])
def test_however_often_ctrl_c_is_pressed_the_status_is_130(words, small_dataset, make_run):
    """From when it first means something to the program until it has ended."""
    places = {"DIR": str(small_dataset), "RUN": str(make_run().out)}
    slow = "import time, ecg_batch.export.formats as f; f.formats()['npy']; f._make = lambda *_: time.sleep(60)\n" * (
        "DIR" in words
    )
    script = f"{slow}import sys; from ecg_batch.cli.main import main; print('begun', flush=True); sys.exit(main())"
    for pause_s in (0, 0.001, 0.01, 0.05):
        command = [sys.executable, "-c", script, *(places.get(word, word) for word in words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        process.stdout.readline(), time.sleep(1.5)
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(pause_s)
        assert process.returncode == INTERRUPTED and "Traceback" not in process.communicate()[1]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0", "-3", "1e300", "0.05", "86401", "x", "", "9" * 5000, "1" + "0" * 400])
def test_a_pause_that_cannot_be_is_refused_in_words(made_once, text, capsys):
    assert status_of(["status", str(made_once), f"--watch={text}"]) == MENDABLE
    said = capsys.readouterr().err
    assert "--watch" in said and "needed seconds from 0.1 to 86,400" in said and len(said) < 500


@pytest.mark.parametrize("text", ["0", "-1", "", "1.5", "nan", "\u0663", "9" * 5000, "1" * 10, "1e3", " 3"])
def test_a_count_that_cannot_be_is_refused_in_words(made_once, text, capsys):
    for words in (
        ["export", str(made_once), "--format", "npy", f"--workers={text}"],
        ["synthesize", "x.yaml", "--out=y", f"--workers={text}"],
    ):
        assert status_of(words) == MENDABLE
        said = capsys.readouterr().err
        assert "--workers" in said and "needed a whole number from 1" in said and len(said) < 500


@pytest.mark.parametrize(("count", "words"), [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (1200, "1,200 shards")])
def test_one_is_no_plural(count, words):
    assert number_of(count, "shard") == words
    assert number_of(count, "shard", "are") == f"{words} {'is' if count == 1 else 'are'}"


def test_a_run_of_one_shard_is_spoken_of_in_the_singular(write_request, tmp_path, capsys):
    assert exit_status(lambda: synthesize_job(write_request(records=1), [], tmp_path / "run", 1, fake())) == 0
    assert main(["status", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "finished. 1 record in 1 shard, " in said.out and not re.search(r"\b1 (records|shards|files)\b", said.out + said.err)


def test_failed_shards_are_status_1(write_request, tmp_path, capsys):
    assert exit_status(lambda: synthesize_job(write_request(), [], tmp_path / "run", 1, fake(poisoned=(130,)))) == 1
    assert capsys.readouterr().err.startswith("error: 1 of 5 shards failed: shard 1: RuntimeError: record 130 is poisoned")


def test_problems_found_are_status_1_and_results(small_dataset, capsys):
    (small_dataset / "plan.json").unlink()
    assert main(["verify", str(small_dataset)]) != 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["status", "DIR"], ["verify", "DIR"], ["status", "RUN", "--watch", "0.1"]])
def test_a_reader_who_has_gone_ends_it_quietly(words, made_once, make_run):
    words = [{"DIR": str(made_once), "RUN": str(make_run().out)}.get(word, word) for word in words]
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    process.stdout.close()
    assert process.wait(timeout=30) == CLOSED_PIPE and process.stderr.read() == ""


# Narration ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["FLAG", "status", "DIR"], ["status", "FLAG", "DIR"], ["status", "DIR", "FLAG"]])
@pytest.mark.parametrize(("flags", "level"), [
    (("-q", "--quiet"), logging.WARNING), (("-v", "--verbose"), logging.DEBUG),
])  # fmt: skip
def test_loud_and_quiet_before_and_after_the_command(words, flags, level):
    for flag in flags:
        assert build_parser().parse_args([flag if word == "FLAG" else word for word in words]).verbosity == level


def test_loud_and_quiet_after_both_words_of_training():
    assert build_parser().parse_args(["train", "vqvae", "--bank", "B", "--out", "O", "-q"]).verbosity == logging.WARNING
    assert build_parser().parse_args(["train", "-q", "vqvae", "--bank", "B", "--out", "O"]).verbosity == logging.WARNING


@pytest.mark.slow
def test_verbose_tells_of_kernels(write_request, tmp_path):
    words = ["synthesize", write_request(), "--out", tmp_path / "run", "--dry-run"]
    quiet, loud = say(*words), say("-v", *words)
    assert quiet.returncode == loud.returncode == 0
    assert "compiled kernels" in loud.stderr and quiet.stderr == "" and quiet.stdout == loud.stdout != ""


@pytest.mark.slow
@pytest.mark.parametrize(("level", "lines"), [(logging.INFO, True), (logging.WARNING, False)])
def test_a_run_without_a_terminal_says_how_far_it_is_unless_quiet(level, lines, write_request, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ecg_batch.progress.FIRST_S", 0.1)
    log_from(level)
    assert synthesize_job(write_request(), [], tmp_path / "run", 1, fake(pause_s=0.05)) == 0
    said = capsys.readouterr()
    assert " of 540 records (" in said.err if lines else said.err == ""
    assert said.out.startswith(f"{tmp_path / 'run'}: finished. 540 records") and said.out.count("\n") == 1


def test_narration_has_its_time_and_warnings_their_name(capsys):
    log_from(logging.INFO)
    log = logging.getLogger("ecg_batch.anywhere")
    log.debug("unheard")
    log.info("submitted %s tasks", 4)
    log.warning("no bank here")
    time_of_day, _, told = capsys.readouterr().err.partition(" ")
    assert len(time_of_day) == len("12:30:05") and told == "submitted 4 tasks\nwarning: no bank here\n"


def test_only_the_command_prints():
    for path in (ROOT / "ecg_batch").rglob("*.py"):
        if "cli" not in path.parts:
            calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
            assert not [call.lineno for call in calls if getattr(call.func, "id", "") == "print"], path


# Completion and examples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell):
    done = say("--print-completion", shell)
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS), done.stderr
    if shell != "tcsh" and shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_the_examples_are_copied_and_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["configs"]) == 0
    assert sorted(path.name for path in (TESTS.parent / "configs").iterdir()) == [path.name for path in example_files()]
    assert all((tmp_path / "configs" / path.name).read_bytes() == path.read_bytes() for path in example_files())
    (tmp_path / "configs/demo.yaml").write_text("mine")
    (tmp_path / "configs/rare.yaml").unlink()
    assert main(["configs"]) == 2 and "demo.yaml" in capsys.readouterr().err
    assert (tmp_path / "configs/demo.yaml").read_text() == "mine" and not (tmp_path / "configs/rare.yaml").exists()
