"""What no node of a site can hold is refused before anything is submitted, with the numbers; what is not known is not refused."""

import math
import os
import re
import stat
import time
from pathlib import Path

import pytest
from fakes import fake
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_batch.cli.outcome import exit_status
from ecg_batch.cli.synthesize import forecast_job, synthesize_job
from ecg_batch.errors import UserError
from ecg_batch.run.slurm import capacity
from ecg_batch.run.slurm import queue as asking
from ecg_batch.run.slurm.capacity import Kind, Site, load_fitting_cluster, misfits, read_gpus, read_minutes, read_partitions
from ecg_batch.run.slurm.cluster import Cluster

# as Slurm 22.05 prints them: a default partition, one with a limit of time and of CPUs, one with GPUs, one without nodes
SINFO = """
cpu*|up|infinite|UNLIMITED|120|64|192000|(null)
cpu*|up|infinite|UNLIMITED|8|128|1031000|(null)
short|up|4:00:00|16|120|64|192000|(null)
gpu|up|2-00:00:00|UNLIMITED|10|48|380000|gpu:a100:4(S:0-1),nvme:10
gpu|up|2-00:00:00|UNLIMITED|2|96|760000|gpu:v100:2(S:0),gpu:a100:1(S:1)
empty|down|infinite|UNLIMITED|0|0|0|(null)
"""
SITE = Site(read_partitions(SINFO))


def wrong(site: Site | None = SITE, **asked) -> list[str]:
    return [f"{key}: {words}" for key, words in misfits(Cluster(**asked), site)]


# Reading --------------------------------------------------------------------------------------------------------------


def test_the_lines_of_sinfo():
    cpu, short, gpu, empty = SITE.partitions
    assert cpu.is_default and not short.is_default and cpu.is_up and not empty.is_up
    assert cpu.kinds == (Kind(120, 64, 192_000, 0), Kind(8, 128, 1_031_000, 0)) and empty.kinds == ()
    assert short.kinds == (Kind(120, 16, 192_000, 0),), "MaxCPUsPerNode"
    assert [kind.gpus for kind in gpu.kinds] == [4, 3]
    assert [one.time_min for one in SITE.partitions] == [math.inf, 240, 2880, math.inf]


@pytest.mark.parametrize(("text", "minutes"), [
    ("infinite", math.inf), ("UNLIMITED", math.inf), ("30:00", 30), ("0:30", 0.5), ("1:00:00", 60), ("7-00:00:00", 10_080),
    ("1-12:30", 2190), ("n/a", None), ("", None), ("-1:00", None), ("12", None), ("\u0661:00", None),
])  # fmt: skip
def test_limits_of_time(text, minutes):
    assert read_minutes(text) == minutes


@pytest.mark.parametrize(("text", "gpus"), [
    ("craynetwork:4,gpu:mi250:8", 8), ("gpu:1g.5gb:7,gpu:a100:2", 9), ("gpu:a100:1K", None), ("gpu:a:b:c", None),
    ("gpumem:80", 0),
    ("craynetwork:4,gpu:mi250:8", 8), ("gpu:1g.5gb:7,gpu:a100:2", 9), ("gpu:a100:1K", None), ("gpu:a:b:c", None), ("gpumem:80", 0),
])  # fmt: skip
def test_gpus_of_a_node(text, gpus):
    assert read_gpus(text) == gpus


@pytest.mark.parametrize("answer", ["", "sinfo: error\n", "a|b\n", "|||||||\n", "\0|\0", "x" * 10_000, "*|up|1:00|1|1|1|1|gpu"])
def test_odd_output_is_no_site(answer):
    assert read_partitions(answer) == ()


def test_numbers_of_another_form_are_unknown_and_never_refused():
    site = Site(read_partitions("main*|up|n/a|n/a|n/a|16+|4000K|gpu:a:b:c"))
    assert site.partitions[0].kinds == (Kind(0, None, None, None),)
    assert wrong(site, cpus=1000, memory_gb=9999, gpus=60, walltime_min=40_000) == []


WORDS = st.sampled_from([
    "", "*", "main*", "gpu", "up", "down", "infinite", "1:00", "9-99:99:99", "UNLIMITED", "0", "64", "16+", "-1", "(null)",
    "gpu:2", "gpu:a:4(S:0-1)", "gpu(", ",", "\u0663", "n/a", "\x00", "|",
])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=7, max_size=9).map("|".join), max_size=4).map("\n".join))
def test_whatever_sinfo_prints_there_is_an_answer(answer):
    said = wrong(Site(read_partitions(answer)), cpus=4, memory_gb=1000, gpus=2, walltime_min=600)
    assert all(one.isprintable() for one in said)


# What fits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [
    {}, {"cpus": 128, "memory_gb": 1000}, {"walltime_min": 43_200}, {"cpus": None, "memory_gb": None, "gpus": None},
    {"partition": "gpu", "gpus": 4, "cpus": 48}, {"partition": "gpu,cpu", "gpus": 4, "cpus": 48},
    {"partition": "short", "walltime_min": 240, "cpus": 16}, {"partition": "short", "walltime_min": None},
    {"partition": "short", "walltime_min": 241, "qos": "long"}, {"partition": "short", "extra": (("time", "5-0"),)},
    {"memory_gb": 9000, "extra": (("mem-per-cpu", "2G"),)}, {"gpus": 1, "extra": (("gres", "gpu:1"),)},
    {"partition": "known-to-a-plugin", "cpus": 1000}, {"partition": "empty", "cpus": 1000},
    {"cpus": 1000, "extra": (("clusters", "other"),)}, {"extra": (("partition", "gpu"),), "gpus": 4, "partition": "cpu"},
])  # fmt: skip
def test_what_may_run_is_not_refused(asked):
    assert wrong(**asked) == []
    assert wrong(None, **asked) == wrong(Site(()), **asked) == []


@pytest.mark.parametrize(("asked", "words"), [
    ({"memory_gb": 1007}, ["memory_gb: memory_gb is 1007, and no node of partition cpu has more than 1,007 GB"]),
    ({"cpus": 129}, ["cpus: cpus is 129, and no node of partition cpu has more than 128"]),
    ({"gpus": 1}, ["gpus: gpus is 1, and no node of partition cpu has more than none"]),
    ({"partition": "gpu", "gpus": 5, "cpus": 500}, ["cpus: .* than 96", "gpus: .* than 4"]),
    ({"partition": "gpu", "gpus": 4, "cpus": 96},
     ["memory_gb: memory_gb is 4, cpus is 96, gpus is 4, and no node of partition gpu has all of that at once: it has 10 nodes of "
      "48 CPUs, 371.1 GB, 4 GPUs, 2 nodes of 96 CPUs"]),
    ({"partition": "short", "walltime_min": 241}, ["walltime_min: walltime_min is 241, and partition short allows 240 min"]),
    ({"partition": "short,gpu", "walltime_min": 2881}, ["walltime_min: .* partition short or gpu allows 2,880 min"]),
])  # fmt: skip
def test_what_no_node_can_hold_is_named_with_key_and_numbers(asked, words):
    said = wrong(**asked)
    assert len(said) == len(words) and all(re.match(pattern, one) for pattern, one in zip(words, said, strict=True)), said


def test_without_a_partition_a_site_that_reroutes_may_send_it_anywhere():
    assert wrong(gpus=4, walltime_min=10_000) != [] == wrong(Site(SITE.partitions, reroutes=True), gpus=4, walltime_min=10_000)
    assert wrong(Site(SITE.partitions, reroutes=True), gpus=5) != []
    assert not capacity.reroutes("Other = 1\nJobSubmitPlugins        = (null)\n")
    assert capacity.reroutes("JobSubmitPlugins        = lua\n") and capacity.reroutes(None) and capacity.reroutes("")
    assert capacity.reroutes("CliFilterPlugins        = lua\nJobSubmitPlugins        = (null)\n")


def test_a_qos_that_nobody_names_may_lift_a_limit_of_time():
    long = {"partition": "short", "walltime_min": 241}
    assert wrong(**long) != [] == wrong(Site(SITE.partitions, has_qos=True), **long)
    assert capacity.has_qos(None) and capacity.has_qos("AccountingStorageEnforce = associations,limits,qos\n")
    assert not capacity.has_qos("AccountingStorageEnforce = none\n")


# Before submission ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """tools(sinfo="script") -> the folder of these scripts, alone on the PATH beside those of the system."""
    monkeypatch.setattr(asking, "_silent", {})
    monkeypatch.setattr(capacity, "ASKED_S", 0.5)
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(**scripts: str) -> Path:
        base = {"sbatch": f"touch {folder}/submitted; exit 1", "srun": "exit 1", "squeue": "exit 1", "scancel": "exit 1"}
        for name, text in {**base, "scontrol": "echo 'JobSubmitPlugins = (null)'", **scripts}.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            os.chmod(folder / name, stat.S_IRWXU)
        return folder

    return write


def cluster_file(folder: Path, text: str) -> Path:
    (folder / "cluster.yaml").write_text(text)
    return folder / "cluster.yaml"


def test_both_the_run_and_its_forecast_are_refused_and_nothing_is_made(tools, write_request, tmp_path, capsys):
    folder = tools(sinfo=f"cat <<'END'\n{SINFO}\nEND")
    file = cluster_file(tmp_path, "# mine\npartition: gpu\nmemory_gb: 800\ngpus: 8\n")
    for job in (
        lambda: synthesize_job(write_request(), [], tmp_path / "run", 1, fake(), file),
        lambda: forecast_job(write_request(), [], tmp_path / "run", file, None),
    ):
        assert exit_status(job) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        begins = f"error: {file}, line 3: memory_gb is 800, and no node of partition gpu has more than 742.2 GB; gpus is 8, "
        assert said.err.startswith(begins)
        assert said.err.endswith("Ask for less, or name another partition\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster.yaml", "request.yaml", "tools"]
    assert not (folder / "submitted").exists()


@pytest.mark.parametrize("sinfo", [
    "exit 1", "echo nonsense", "sleep 60 & sleep 60", "echo 'main*|up'", "printf '\\377|\\n'", "yes '' | head -100000",
])  # fmt: skip
def test_where_slurm_does_not_say_it_goes_on(sinfo, tools, tmp_path):
    tools(sinfo=sinfo)
    begun = time.monotonic()
    assert load_fitting_cluster(cluster_file(tmp_path, "{memory_gb: 9000, cpus: 1000}")).cpus == 1000
    assert time.monotonic() - begun < 5, "also where a script has started what keeps its output open"


def test_ones_own_settings_of_sinfo_change_nothing(tools, tmp_path, monkeypatch):
    tools(sinfo=f'[ "$SINFO_PARTITION$SINFO_FORMAT" ] && exit 0\ncat <<END\n{SINFO}\nEND')
    monkeypatch.setenv("SINFO_PARTITION", "short")
    monkeypatch.setenv("SINFO_FORMAT", "%n")
    with pytest.raises(UserError, match="line 1: cpus is 1000"):
        load_fitting_cluster(cluster_file(tmp_path, "cpus: 1000"))
