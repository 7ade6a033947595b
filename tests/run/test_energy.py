"""Energy is what the counters say, or it is not measured."""

import json
from functools import partial

import pytest
from fakes import fake

from ecg_batch.dataset.receipts import NOT_MEASURED, stated_energy, total_energy
from ecg_batch.request.parse import load_request
from ecg_batch.run import energy
from ecg_batch.run.energy import Counter, Meter
from ecg_batch.run.local import synthesize


def package(folder, name: str, microjoules: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    (folder / name / "max_energy_range_uj").write_text("100000000\n")


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "powercap")
    return tmp_path / "powercap"


def test_packages_are_summed_by_our_share_of_the_cpu_time(powercap, monkeypatch):
    """Two packages take 4 J and, over the wrap at 100 J, 6 J; of the node's 20 s of CPU time 5 s are ours."""
    times = {"own": 1.0, "busy": 10.0}
    monkeypatch.setattr(energy.time, "process_time", lambda: times["own"])
    monkeypatch.setattr(energy, "node_busy_s", lambda: times["busy"])
    package(powercap, "intel-rapl:0", 1_000_000)
    package(powercap, "intel-rapl:0:0", 7)
    package(powercap, "intel-rapl:1", 98_000_000)
    meter = Meter("cpu")
    start = meter.read()
    package(powercap, "intel-rapl:0", 5_000_000)
    package(powercap, "intel-rapl:1", 4_000_000)
    times.update(own=6.0, busy=30.0)
    assert meter.since(start) == {"cpu": pytest.approx(10 * 5 / 20)}


@pytest.mark.parametrize("sharers", [1, 3])
def test_a_gpu_is_ours_and_its_sharers(powercap, sharers):
    joules = iter([100.0, 250.0])
    meter = Meter("cpu", sharers)
    meter.counters = [Counter("gpu", lambda: next(joules))]
    assert meter.since(meter.read()) == {"gpu": 150.0 / sharers}


def test_what_cannot_be_read_is_not_measured(powercap):
    assert Meter("cuda").counters == [], "no GPU, no packages"
    assert stated_energy({}) == {"joules": NOT_MEASURED} == total_energy([{"joules": NOT_MEASURED}])


def test_totals_say_how_many_shards_they_are_of():
    receipts = [{"joules": 2.0, "joules_of": ["gpu"]}, {"joules": 3.0, "joules_of": ["cpu", "gpu"]}, {"joules": NOT_MEASURED}]
    assert total_energy(receipts) == {"joules": 5.0, "joules_of": ["cpu", "gpu"], "joules_shards": 2}


@pytest.mark.slow
def test_the_manifest_states_the_sum_of_the_receipts(powercap, write_request, tmp_path):
    package(powercap, "intel-rapl:0", 1_000_000)

    def burn(plan, shard, *rest):
        package(powercap, "intel-rapl:0", 1_000_000 * (shard.index + 2))
        return fake()(plan)(shard, *rest)

    synthesize(load_request(write_request()), tmp_path / "run", 1, lambda plan: partial(burn, plan))
    receipts = [json.loads(path.read_bytes()) for path in (tmp_path / "run" / "receipts").iterdir()]
    manifest = json.loads((tmp_path / "run" / "dataset.json").read_bytes())
    assert manifest["joules_of"] == ["cpu"] and manifest["joules_shards"] == 5
    assert manifest["joules"] == pytest.approx(sum(receipt["joules"] for receipt in receipts)) and 0 < manifest["joules"] <= 5
