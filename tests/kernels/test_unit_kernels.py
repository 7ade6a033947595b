"""The compiled choice and laying of units against numpy: the same bits, so which of the two ran is nobody's business."""

from types import SimpleNamespace

import numpy as np
import pytest
from kernel_builds import RUNS_HERE, needs_kernel

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.kernels import units as units_kernel
from ecg_batch.models.sequences.unit_model import load_unit_model
from ecg_batch.synthesis.retime import Timing
from ecg_batch.synthesis.units import FOLLOW, RECENT, Laid, plain_nearest, plain_textures, rest_of, unit_index, unit_textures

pytestmark = needs_kernel
each_build = pytest.mark.parametrize("build", RUNS_HERE)


@pytest.fixture(scope="module")
def index():
    return unit_index(read_bank(BUNDLED), tuple(range(1, 9)), load_unit_model(BUNDLED / "units.safetensors"))


@pytest.fixture
def both(monkeypatch):
    """What a function gives with the kernels of one build, after a look that numpy gives the same bits."""
    library, nearest, laid = units_kernel.library, units_kernel.nearest, units_kernel.laid

    def run(function, build):
        monkeypatch.setattr(units_kernel, "library", lambda: None)
        plain = function()
        monkeypatch.setattr(units_kernel, "library", lambda build=None: library(build))
        monkeypatch.setattr(units_kernel, "nearest", lambda *args: nearest(*args, build=build))
        monkeypatch.setattr(units_kernel, "laid", lambda *args: laid(*args, build=build))
        compiled = function()
        assert plain.shape == compiled.shape and plain.dtype == compiled.dtype
        np.testing.assert_array_equal(compiled.view(np.int64), plain.view(np.int64))
        return compiled

    return run


@each_build
def test_the_same_unit_is_nearest(index, both, build):
    rng = np.random.default_rng(0)
    for beats in (1, 2, 25, 31, 32, 33, 64, 200):
        for host in rng.choice(len(index.bank.table), 12).tolist():
            codes, ordinary = rng.integers(0, 512, beats), rng.random(beats) < rng.choice([0, 0.5, 0.9, 1])
            chosen = both(lambda host=host, codes=codes, ordinary=ordinary: index.rendered(host, codes, ordinary), build)
            assert np.isin(chosen, index.lent(host)).all()


def bank_of_few_levels(rng, kinds: float, donors: int = 9) -> SimpleNamespace:
    """Units of two levels on each of four axes: most have many equals. kinds: the share of ordinary ones."""
    row = np.sort(rng.integers(0, donors, 150))
    level, ordinary = rng.integers(0, 2, (len(row), 4)).astype(float), rng.random(len(row)) < kinds
    first, stop = (np.searchsorted(row, np.arange(donors), side) for side in ("left", "right"))
    none = np.zeros(len(row), np.int64)
    made = {"level": level, "square": np.square(level).sum(axis=1), "ordinary": ordinary, "of_first": first, "of_stop": stop}
    rest = np.zeros((donors, 10, 8), np.int16)
    compiled = units_kernel.all_units(**made, row=row, r=none, first=none, last=none, rest=rest, t_end=1, p_begins=1, least=1)
    plain = SimpleNamespace(unit_points=level, unit_squares=made["square"], units=SimpleNamespace(ordinary=ordinary, row=row))
    return SimpleNamespace(compiled=compiled, plain=plain)


@each_build
@pytest.mark.parametrize("kinds", [0, 0.05, 0.5, 1])
def test_of_equals_the_first_and_of_a_kind_that_is_not_there_any(build, kinds):
    rng = np.random.default_rng(1)
    for _ in range(40):
        made, beats = bank_of_few_levels(rng, kinds), int(rng.integers(1, 70))
        lenders = np.flatnonzero(rng.random(9) < 0.6)
        pool = np.flatnonzero(np.isin(made.plain.units.row, lenders))
        if not len(pool):
            continue
        wanted, ordinary = rng.integers(-16, 32, (beats, 4)) / 16, rng.random(beats) < 0.5
        first = np.array([0, beats // 3, beats])  # of two records, of which the first may have no beat
        ours = units_kernel.nearest(made.compiled, [lenders] * 2, first, wanted, ordinary, RECENT, FOLLOW, build=build)
        for one in (slice(0, beats // 3), slice(beats // 3, beats)):
            np.testing.assert_array_equal(ours[one], plain_nearest(made.plain, pool, wanted[one], ordinary[one]))


def beats_at(rng, bpm: float, beats: int, fs_hz: float) -> np.ndarray:
    """Irregular beats, the first one before the record."""
    return np.cumsum(np.maximum(60 * fs_hz / bpm * rng.uniform(0.6, 1.6, beats), 2).astype(np.int64)) - 200


@each_build
@pytest.mark.parametrize("bpm", [40, 60, 90, 130, 200])
def test_any_stretch_is_laid_alike(index, both, build, bpm):
    rng = np.random.default_rng(bpm)
    for _ in range(12):
        r = beats_at(rng, bpm, int(rng.integers(5, 90)), index.bank.table.fs_hz)
        laid = Laid(r, rng.integers(0, len(index.units), len(r)))
        for start, stop in (rng.integers(r[0] - 300, r[-1] + 300, (4, 2)).tolist()):
            start, stop = min(start, stop), max(start, stop)
            both(lambda laid=laid, start=start, stop=stop: rest_of(index, laid, start, stop), build)
        both(lambda laid=laid: rest_of(index, laid, 0, 1000), build)


@each_build
def test_units_at_the_ends_of_recordings_and_the_same_noise_that_goes_on(index, both, build):
    """First and last units, read to and fro far beyond their ends; then a donor's own, one after another."""
    rng, first = np.random.default_rng(2), index._first[index.rows]
    ends = np.concatenate([first, index._stop[index.rows] - 1])
    for _ in range(10):
        laid = Laid(beats_at(rng, 35, 40, index.bank.table.fs_hz), rng.choice(ends, 40))
        both(lambda laid=laid: rest_of(index, laid, 0, int(laid.r[-1])), build)
    for one in first[::300].tolist():
        own = np.arange(one, one + 5)
        r = index.units.r[own]
        both(lambda r=r, own=own: rest_of(index, Laid(r, own), int(r[0]) - 50, int(r[-1]) + 200), build)


@each_build
def test_a_record_is_the_same(index, both, build):
    rng, hosts = np.random.default_rng(3), index.rows[::400]
    timings = []
    for _ in hosts:
        r = beats_at(rng, 80, 25, 100)
        timings.append(Timing(samples=1000, stretch=1.0, placed=r, source=rng.integers(0, 4, len(r))))
    draws = rng.random((len(hosts), 26))
    named = []

    def made():
        texture = unit_textures(index, hosts, timings, draws, 1.0)
        named.append(([rows.tolist() for rows in texture.rows], [rows.tolist() for rows in texture.of_beats]))
        return plain_textures(index, texture.cells, 1000)

    both(made, build)
    assert named[0] == named[1]
    assert all(list(row[1:]) == sorted(set(row) - {row[0]}) for row in named[0][0])


def test_what_would_read_beyond_an_array_is_refused(index):
    units, none, fades = index.for_kernel, np.zeros(0, np.int64), (np.ones(8), np.zeros(8))
    with pytest.raises(ValueError, match="needed"):
        units_kernel.nearest(units, [np.arange(3)], [0, 2], np.zeros((2, 5)), np.ones(2, bool), RECENT, FOLLOW)
    with pytest.raises(ValueError, match="records end at beat 3; needed 2"):
        units_kernel.nearest(units, [np.arange(3)], [0, 3], np.zeros((2, 24)), np.ones(2, bool), RECENT, FOLLOW)
    with pytest.raises(ValueError, match="one of each"):
        units_kernel.laid(units, none, none, none, fades, 0, 10)
    short = {**units.held, "rest": np.zeros((len(index.bank.table), 20, 8), np.int16)}
    small = units_kernel.all_units(**short, t_end=42, p_begins=30, least=10)
    with pytest.raises(IndexError, match="out of its recording"):
        units_kernel.laid(small, np.array([0]), np.array([30]), np.array([0]), fades, 0, 10)
    with pytest.raises(ValueError, match="rest"):
        units_kernel.all_units(**{**short, "rest": np.zeros((3, 20, 7), np.int16)}, t_end=42, p_begins=30, least=10)
    with pytest.raises(ValueError, match="even number"):
        units_kernel.all_units(**{**short, "level": index.unit_points[:, :23]}, t_end=42, p_begins=30, least=10)
    with pytest.raises(ValueError, match="level has numbers that are not of type int16"):
        units_kernel.all_units(**{**short, "level": index.unit_points + 0.5}, t_end=42, p_begins=30, least=10)
