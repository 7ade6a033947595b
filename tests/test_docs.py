"""The pages say what is true: links lead somewhere, files that are named exist, commands are those that the parsers know."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from places import ROOT

from ecg_batch.synthesis.check import FLAGS

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GUIDE = [page for page in PAGES if "evidence" not in page.parts and page.name != "CHANGELOG.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# What a page writes in place of a value that only its reader knows.
STANDS_FOR = {"DIR": "dir", "PTBXL": "dir", "BANK": "dir", "RECORDING": "dir", "...": None}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def first_cells(page: str) -> list[str]:
    """What stands between backticks in the first cells of a page's tables."""
    return re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_key_of_a_request_is_in_the_guide_and_in_the_example_of_all_keys():
    schema = json.loads((ROOT / "configs" / "request.schema.json").read_text())
    parents = {"rhythm": "AskedRhythm", "variation": "Variation", "judge": "Refinement", "mix": "AskedMix", "cohort": "AskedCohort",
               "noise": "AskedNoise", "vary": "AskedVary", "events": "AskedEvents"}  # fmt: skip
    inner = {f"{key}." * (key != "rhythm") + name for key, kind in parents.items() for name in schema["$defs"][kind]["properties"]}
    keys = set(schema["properties"]) - {"rhythm", "variation", "judge", "noise", "vary", "events"}  # their keys have rows
    assert sorted((keys | inner) - set(first_cells("requests.md"))) == []
    assert set(schema["$defs"]["AskedKinds"]["properties"]) <= set(first_cells("requests.md"))
    named = set(re.findall(r"\w+(?=:)", (ROOT / "configs" / "rare.yaml").read_text()))
    assert set(schema["properties"]) - named == {"rhythm", "device", "events"}


def test_every_flag_is_in_the_guide():
    page = (ROOT / "docs" / "format.md").read_text(encoding="utf-8").split("| flag | meaning |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(FLAGS)
    added = {name for path in (ROOT / "ecg_batch" / "synthesis").rglob("*.py")
             for name in re.findall(r'\["(\w+)"\] \*', path.read_text(encoding="utf-8"))}  # fmt: skip
    assert added and added <= set(FLAGS)


def test_no_page_waits_for_its_figures():
    assert [name for name, page in zip(NAMES, PAGES, strict=True)
            if re.search(r"^[A-Z]{4,}$", page.read_text(encoding="utf-8"), re.MULTILINE)] == []  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    tops = "ecg_batch|jobs|configs|tests|slurm|examples|benchmarks|docs"
    named = set(re.findall(rf"`((?:{tops})/[\w/.-]+\.(?:py|yaml|md|cpp|h|sbatch|json|png))`", text))
    assert not [name for name in sorted(named) if not (ROOT / name).exists() and "NAME" not in name]


def commands(program: str) -> list[tuple[str, str]]:
    """(page, words after the program) wherever a page gives a whole command: in a block, or between backticks."""
    found = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text(encoding="utf-8")
        lines = [line for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            if match := re.match(rf"(?:\.venv/bin/)?{program}( .*)?$", line.strip()):
                found.append((str(page.relative_to(ROOT)), match[1] or ""))
    return found


def words_of(text: str) -> list[str]:
    """The words of a command without its comment, and without what only stands for something."""
    words = shlex.split(text.split(" #")[0].replace("[", "").replace("]", ""))
    return [STANDS_FOR.get(word, word) for word in words if STANDS_FOR.get(word, word) is not None]


def accepted(parser, words: list[str]) -> bool:
    try:
        parser.parse_args(words)
    except SystemExit as ended:
        return ended.code == 0
    return True


@cache
def command_parser():
    from ecg_batch.cli.main import build_parser

    return build_parser()


def is_whole(words: list[str]) -> bool:
    """Whether a command is given with what it works on; its name alone is a way to speak of it."""
    return any(word.startswith("-") for word in words[1:]) or len(words) > 2


def test_commands_on_the_pages_are_those_of_ecg_batch(capsys):
    given = [(page, words) for page, text in commands("ecg-batch") if is_whole(words := words_of(text)) and words[0].isalpha()]
    assert len(given) > 30
    for page, words in given:
        if not {"--fs", "--donors", "--repair"} & set(words) or len(words) > 3:  # an option spoken of by itself
            assert accepted(command_parser(), words), f"{page}: ecg-batch {' '.join(words)}: {capsys.readouterr().err}"


def test_benchmarks_on_the_pages_are_tested_at_toy_size():
    """Modules are imported by some test; the words after `python -m benchmarks` alone stand in test_benchmarks.py."""
    tested = (ROOT / "tests" / "test_benchmarks.py").read_text(encoding="utf-8")
    imported = {name for path in (ROOT / "tests").rglob("test_*.py")
                for names in re.findall(r"from benchmarks(?:\.(\w+)| import (\([^)]*\)|.+))", path.read_text(encoding="utf-8"))
                for name in re.findall(r"\w+", "".join(names))}  # fmt: skip
    named = {word for _, text in commands("python -m benchmarks") for word in words_of(text) if word.isalpha()} - {"dir"}
    modules = {name for page in PAGES for name in re.findall(r"benchmarks\.(\w+)", page.read_text(encoding="utf-8"))}
    modules -= {"json", "py", "md"}
    assert modules and sorted(modules - imported) == [] and [name for name in sorted(named) if name not in tested] == []


def test_the_readme_is_short_and_no_notebook():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    words = text.split()
    numbers = [word for word in words if re.search(r"\d", word)]
    assert len(text.splitlines()) <= 120
    assert len(numbers) < 0.05 * len(words)


@pytest.mark.parametrize("page", GUIDE, ids=[str(page.relative_to(ROOT)) for page in GUIDE])
def test_the_guide_uses_no_words_of_a_brief(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\.\./shared|dataset-format\.md|stage 5|the issue|rule \d of", text)


NEEDS_MORE = ("make ", "prepare", "evaluate", "pip", "train_classifier", "sbatch", "--watch", "--cluster", "export PATH")


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(tmp_path):
    """Its files written, its commands run in order and its Python too, but for what needs PTB-XL or a cluster."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    named, ran, python = None, [], ""
    for name, kind, block in re.findall(r"(?:into `(\w+\.yaml)`:\s*)?```([a-z]*)\n(.*?)```", text, re.DOTALL):
        if kind == "yaml":
            named = name or named
            (tmp_path / named).write_text(block, encoding="utf-8")
        elif kind == "python":
            python += block  # as in one session, each block after those before it
            run_there([sys.executable, "-c", python], tmp_path, environment)
            ran.append("python")
        for line in block.splitlines() if kind == "" else ():
            if line.startswith("ecg-batch") and not any(word in line for word in NEEDS_MORE):
                words = shlex.split(line.split(" #")[0])
                run_there([sys.executable, "-m", "ecg_batch", *words[1:]], tmp_path, environment)
                ran.append(words[1])
    assert {"synthesize", "plot", "verify", "export", "python"} <= set(ran) and len(ran) >= 10


def run_there(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
