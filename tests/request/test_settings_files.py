"""What users write is read as they mean it, or refused in one sentence with file, line and key: requests, cluster files, --set."""

import json
import re
import time

import pytest
from places import ROOT

from ecg_batch.cli.configs import schemas
from ecg_batch.cli.main import main
from ecg_batch.cli.settings import settings
from ecg_batch.errors import MOST_ECHO, UserError
from ecg_batch.evaluation.sets import Settings
from ecg_batch.request.parse import AskedRequest, load_request
from ecg_batch.run.slurm.cluster import AskedCluster, load_cluster
from ecg_batch.settings import MOST_BYTES, read_settings, schema

PLAIN = "records: 64\nmix: {labels: {NORM: 1}}\n"  # what is wrong comes on line 3


def refusal(tmp_path, text: str | bytes, *overrides: str, load=load_request) -> str:
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load(path, *[overrides] if overrides else [])
    said = str(caught.value)
    assert "\n" not in said and len(said) < 3 * MOST_ECHO + len(str(path)) + 500
    return said.replace(str(path), "my.yaml")


# What YAML 1.1 reads as something else ------------------------------------------------------------------------------------

MEANT_OTHERWISE = {
    "two equal keys": ("seed: 1\nseed: 2\n", "my.yaml, line 4: seed is given twice, on line 3 too"),
    "two equal keys, one quoted": ("seed: 1\n'seed': 2\n", "line 4: seed is given twice"),
    "two equal labels": ("cohort: {labels: {AFIB: 0.5, AFIB: 0.5}}\n", "line 3: cohort.labels.AFIB is given twice"),
    "two equal keys deep inside": ("mix2:\n  hr_bpm: {uniform: [1, 2], uniform: [3, 4]}\n", "line 4: mix2.hr_bpm.uniform is given"),
    "a sexagesimal": ("duration_s: 1:00:00\n", "line 3: duration_s is 1:00:00, which YAML 1.1 reads as base 60"),
    "a sexagesimal of two parts": ("duration_s: 10:30\n", "line 3: duration_s is 10:30"),
    "a sexagesimal in a list": ("donor_folds: [1:1]\n", "line 3: donor_folds.0 is 1:1"),
    "a leading zero": ("seed: 010\n", "line 3: seed is 010, which YAML 1.1 reads as octal"),
    "a leading zero before a point": ("alpha: 00.5\n", "line 3: alpha is 00.5"),
    "an octal": ("seed: 0o10\n", "line 3: seed is '0o10'; needed a whole number"),
    "a hexadecimal": ("seed: 0x1F\n", "line 3: seed is '0x1F'; needed a whole number"),
    "underscores": ("seed: 1_000\n", "line 3: seed is '1_000'; needed a whole number"),
    "no value": ("seed:\n", "line 3: seed has no value"),
    "no value in a list": ("donor_folds: [1, , 2]\n", "line 3: not valid YAML"),
    "no value in braces": ("variation: {rr_cv: }\n", "line 3: variation.rr_cv has no value"),
    "null where it means nothing": ("alpha: null\n", "line 3: alpha is null; needed a number from 0 to 2. Leave the key out"),
    "a tilde": ("bank: ~\n", "line 3: bank is null; needed text"),
    "a word that is true": ("seed: yes\n", "line 3: seed is 'yes'; needed a whole number"),
    "true": ("k: true\n", "line 3: k is True; needed a whole number from 1 to 100"),
    "a date": ("seed: 2026-11-28\n", "line 3: seed is '2026-11-28'; needed a whole number"),
    "a date with a time": ("alpha: 2026-11-28T10:00:00Z\n", "line 3: alpha is '2026-11-28T10:00:00Z'; needed a number"),
    "a fraction": ("seed: 1.5\n", "line 3: seed is 1.5; needed a whole number"),
    "no number": ("alpha: .nan\n", "line 3: alpha is '.nan'; needed a number"),
    "an infinite number": ("alpha: -.inf\n", "line 3: alpha is '-.inf'; needed a number"),
    "a number of 5,000 digits": (f"seed: {'9' * 5000}\n", "(5,000 characters), too large for a number"),
    "a number of 25 digits": (f"seed: {'9' * 25}\n", "line 3: seed is 1e+25; needed a whole number"),
    "an exponent of 400": ("alpha: 1e400\n", "line 3: alpha is 1e400, too large"),
    "an anchor": ("seed: &here 3\n", "line 3: 'here' is an anchor or alias"),
    "an alias": ("mix2: &a {b: 1}\ncohort: *a\n", "line 3: 'a' is an anchor or alias"),
    "a field of the checked request": ("source: x\n", "line 3: unknown key 'source'"),
    "a key that belongs below another": ("start_hour: 3\n", "line 3: unknown key 'start_hour'; known keys"),
    "a merge": ("<<: {seed: 3}\n", "line 3: unknown key '<<'"),
    "a tag": ("seed: !!int '3'\n", "line 3: 'tag:yaml.org,2002:int' is a tag"),
    "a tag of Python": ("seed: !!python/object/apply:os.system [true]\n", "line 3: 'tag:yaml.org,2002:python/"),
    "brackets in brackets": (f"seed: {'[' * 5000}\n", "line 3: nested over 16 deep"),
    "braces in braces": (f"seed: {'{a: ' * 5000}\n", "line 3: nested over 16 deep"),
    "dashes in dashes": (f"seed:\n  {'- ' * 900}x\n", "line 4: nested over 16 deep"),
    "a list as a key": ("? [a, b]\n: 3\n", "line 3: a key is a list or a mapping"),
    "no such user": ("bank: ~nosuchuser\n", "line 3: bank is '~nosuchuser', which leads nowhere"),
    "a path on two lines": ('bank: "a\\nb"\n', "line 3: bank is 'a\\nb'; needed text, on one line"),
    "a path of nothing": ("models: ''\n", "line 3: models is ''; needed text, on one line"),
    "a path with a zero byte": ('bank: "a\\0b"\n', "line 3: 'bank' holds what no text may hold"),
    "half a letter": ('bank: "\\ud800"\n', "line 3: 'bank' holds what no text may hold"),
    "a number as a path": ("bank: 12\n", "line 3: bank is 12; needed text, on one line: write '12' in quotes"),
    "an escape beyond the last character": ('bank: "\\U10010000"\n', "line 3: not valid YAML: an escape that is no character"),
    "an escape far beyond it": ('bank: "\\UFFFFFFFF"\n', "line 3: not valid YAML: an escape that is no character"),
    "a control character in a key": ('"\\e[31m": 3\n', "line 3: unknown key '\\x1b[31m'"),
    "a tab": ("\tseed: 3\n", "line 3: not valid YAML"),
    "a control character": ("seed: \x01\n", "line 3: not valid YAML: the character 0x1"),
    "a bracket without end": ("seed: [1\n", "line 4: not valid YAML"),
    "two documents": ("---\nseed: 3\n", "not valid YAML"),
    "a key of 5,000 letters": (f"{'x' * 900}: 3\n", "(900 characters)'; known keys: alpha"),
    "a value of 100,000 letters": (f"device: {'x' * 100_000}\n", "(100,002 characters); needed cpu or cuda"),
    "10,000 values": (f"donor_folds: [{'1, ' * 10_000}11]\n", "characters); needed a list of PTB-XL folds"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("text", "said"), MEANT_OTHERWISE.values(), ids=MEANT_OTHERWISE.keys())
def test_what_can_be_read_otherwise_or_not_at_all_is_refused_with_its_line(tmp_path, text, said):
    assert said in refusal(tmp_path, PLAIN + text)


def test_ten_lines_of_aliases_make_a_short_message_at_once(tmp_path):
    bomb = 'a0: &a0 ["x", "x", "x", "x", "x", "x", "x", "x"]\n'
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    started = time.process_time()
    assert "line 1: 'a0' is an anchor" in refusal(tmp_path, bomb + "seed: *a8\n")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("written", "key", "meant"),
    [
        ("records: 1e6", "records", 1_000_000),
        ("records: +64", "records", 64),
        ("alpha: 1", "alpha", 1.0),
        ("alpha: 1e-1", "alpha", 0.1),
        ("alpha: .5", "alpha", 0.5),
        ("alpha: 0.", "alpha", 0.0),
        ("seed: 0", "seed", 0),
        ("seed: 9223372036854775807", "seed", 2**63 - 1),
        ("judge: null", "judge", None),
        ("donor_folds: 3", "donor_folds", (3,)),
        ("? seed\n: 3", "seed", 3),
    ],
)
def test_plain_numbers_are_what_they_say(tmp_path, written, key, meant):
    path = tmp_path / "my.yaml"
    path.write_text(f"mix: {{labels: {{NORM: 1}}}}\n{written}\n" + ("records: 64\n" if key != "records" else ""))
    assert getattr(load_request(path), key) == meant


def test_a_label_is_text_whatever_yaml_makes_of_it_elsewhere(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("records: 64\nmix:\n  labels: {NO: 0.25, 010: 0.25, 1:30: 0.25, null: 0.25}\n")
    assert load_request(path).mix.labels == (("010", 0.25), ("1:30", 0.25), ("NO", 0.25), ("null", 0.25))


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_request, load_cluster])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is null; needed 'key: value' lines"),
        (b"- 1\n", "is [1]; needed 'key: value' lines"),
        (b"seed\n", "is 'seed'; needed"),
        (b"a: 1\nb: \xff\n", "my.yaml, line 2: cannot read the"),
        ("a: 1\n".encode("utf-16"), "not UTF-8. Save it as UTF-8"),
        (b"#" * (MOST_BYTES + 1), "over 256 KiB"),
    ],
)
def test_files_that_are_no_settings_are_refused(tmp_path, data, said, load):
    assert said in refusal(tmp_path, data, load=load)


def test_what_is_no_file_is_refused_and_nothing_waits_for_it(tmp_path):
    import os

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", ".", "absent", "loop", "x" * 5000, "a\0b"):
        with pytest.raises(UserError, match="cannot read the request"):
            load_request(tmp_path / name)


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    assert load_request(path).records == 64
    assert "line 3: unknown key 'sed'" in refusal(tmp_path, b"\xef\xbb\xbf" + (PLAIN + "sed: 1\n").replace("\n", "\r\n").encode())


CLUSTER = {
    "a numeric account": ("account: 12345\n", "line 1: account is 12345; needed text, on one line: write '12345' in quotes"),
    "an account with leading zeros": ("account: 00123\n", "line 1: account is 00123, which YAML 1.1 reads as octal"),
    "a walltime with colons": ("walltime_min: 1:00:00\n", "line 1: walltime_min is 1:00:00, which YAML 1.1 reads as base 60"),
    "a time for sbatch with colons": ("extra:\n  begin: 12:30:00\n", "line 2: extra.begin is 12:30:00"),
    "two equal options": ("extra: {constraint: a, constraint: b}\n", "line 1: extra.constraint is given twice"),
    "no value": ("gpus: 1\npartition:\n", "line 2: partition has no value"),
    "an unknown key": ("walltime: 60\n", "line 1: unknown key 'walltime' (did you mean walltime_min?); known keys: account"),
    "a line break in a name": ('partition: "a\\nb"\n', "line 1: partition is 'a\\nb'"),
    "a number as a line": ("setup: [3]\n", "line 1: setup.0 is 3; needed text: write '3' in quotes"),
    "out of range": ("cpus: 0\n", "line 1: cpus is 0; needed a whole number from 1 to 1,024"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), CLUSTER.values(), ids=CLUSTER.keys())
def test_a_cluster_file_is_read_as_strictly(tmp_path, text, said):
    assert said in refusal(tmp_path, text, load=load_cluster)


# --set ----------------------------------------------------------------------------------------------------------------

SETS = {
    "an empty variable": (["seed="], "--set seed=: seed has no value (an empty variable of the shell?)"),
    "blanks": (["seed= "], "seed has no value"),
    "no equals sign": (["seed"], "--set seed: needed key=value"),
    "no key": (["=3"], "--set =3: needed key=value"),
    "a hole in a key": (["mix..hr_bpm=3"], "needed key=value"),
    "a leading zero": (["seed=010"], "--set seed=010: seed is 010, which YAML 1.1 reads as octal"),
    "a sexagesimal": (["duration_s=1:00:00"], "duration_s is 1:00:00, which"),
    "the same key twice": (["seed=1", "seed=2"], "--set seed=2: seed is set twice"),
    "a key and a part of it": (["mix.hr_bpm=70", "mix={labels: {MI: 1}}"], "mix is set twice"),
    "two equal keys inside": (["variation={rr_cv: 0, rr_cv: 0.1}"], "variation.rr_cv is given twice"),
    "an alias": (["seed=*a"], "'a' is an anchor or alias"),
    "a bracket without end": (["mix.hr_bpm=["], "not valid YAML"),
    "a part of what has no parts": (["device.kind=cpu"], "my.yaml with --set device.kind=cpu: device is {'kind': 'cpu'}"),
    "out of range": (["alpha=3"], "my.yaml with --set alpha=3: alpha is 3; needed a number from 0 to 2"),
    "an unknown key": (["sed=3"], "unknown key 'sed' (did you mean seed?)"),
    "very long": ([f"{'x' * 9000}=3"], "unknown key 'xxx"),
}  # fmt: skip


@pytest.mark.parametrize(("pairs", "said"), SETS.values(), ids=SETS.keys())
def test_set_is_read_as_strictly(tmp_path, pairs, said):
    assert said in refusal(tmp_path, PLAIN, *pairs)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("steps=", "steps has no value"),
        ("steps=0400", "steps is 0400, which YAML 1.1 reads as octal"),
        ("steps=4e2.5", "steps is '4e2.5'; needed a whole number from 0"),
        ("told_steps=0", "told_steps is 0; needed a whole number from 10"),
        ("workers=-1", "workers is -1; needed a whole number from 1"),
        ("step=3", "unknown key 'step' (did you mean steps?); known keys: compared"),
        ("steps=null", "steps is null"),
    ],
)
def test_settings_of_evaluation_and_training_are_read_as_strictly(pair, said):
    with pytest.raises(UserError, match=re.escape(said)):
        settings([pair], Settings())


def test_a_request_after_set_is_named_and_not_swallowed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["synthesize", "--set", "seed=1", "my.yaml", "--out", str(tmp_path / "out")])
    assert "'my.yaml'; needed KEY=VALUE. Whatever else the command takes stands before --set" in capsys.readouterr().err


# What editors know ----------------------------------------------------------------------------------------------------


def test_the_schemas_beside_the_examples_are_those_of_the_code():
    """Where a key was changed on purpose, python -m ecg_batch.cli.configs writes them anew."""
    for name, data in schemas().items():
        assert (ROOT / "configs" / name).read_bytes() == data, name


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_names_its_schema_first_and_has_none_but_its_keys(path):
    name = re.fullmatch(r"# yaml-language-server: \$schema=\./(.*)", path.read_text().splitlines()[0])[1]
    known = json.loads((ROOT / "configs" / name).read_text())
    assert known["additionalProperties"] is False
    assert set(read_settings(path, "the example").values) <= set(known["properties"])


@pytest.mark.parametrize("kind", [AskedRequest, AskedCluster])
def test_each_key_of_a_schema_says_what_it_means(kind):
    def meanings(held):
        if isinstance(held, dict):
            yield from [held["description"]] if "description" in held else []
            for inner in held.values():
                yield from meanings(inner)
        for inner in held if isinstance(held, list) else ():
            yield from meanings(inner)

    held = schema(kind)
    for key, says in held["properties"].items():
        inside = [says, *(held["$defs"][ref.rsplit("/")[-1]] for ref in re.findall(r'"\$ref": "(.*?)"', json.dumps(says)))]
        assert next(meanings(inside), None), key


def test_the_guide_states_the_ranges_and_defaults_of_the_code():
    """The tables of docs/requests.md against the schema, which is made of the fields."""
    held = schema(AskedRequest)
    below = {"variation": "Variation", "judge": "Refinement", "cohort": "AskedCohort", "noise": "AskedNoise", "vary": "AskedVary"}
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]*) \| ([^|]*) \| [^|]*\|$", (ROOT / "docs/requests.md").read_text(), re.MULTILINE)
    assert len(rows) > 45
    for key, default, range_ in rows:
        parent, _, name = key.rpartition(".")
        keys = (
            held["$defs"][below[parent]]["properties"]
            if parent
            else held["properties"] | held["$defs"]["AskedRhythm"]["properties"]
        )
        says = keys[name]
        parts = [part.get("items", part) for part in (says, *says.get("anyOf", ()))]
        number = next((part for part in parts if "maximum" in part), None)
        if number and re.fullmatch(r"[-\d.,]+ to [-\d.,]+", range_):
            assert [float(end.replace(",", "")) for end in range_.split(" to ")] == [number["minimum"], number["maximum"]], key
        if re.fullmatch(r"[-\d.,]+", default):
            assert float(default.replace(",", "")) == says["default"], key
