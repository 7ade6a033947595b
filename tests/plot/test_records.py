"""Sheets of records beside their donors: what stands above them."""

from dataclasses import replace

import numpy as np
import pytest

from ecg_batch.bundled import BUNDLED
from ecg_batch.donors.bank import read_bank
from ecg_batch.plot import records
from ecg_batch.plot.paper import draw as paper_draw
from ecg_batch.reading.loader import ECGDataset
from ecg_batch.reading.synthetic import open_dataset


@pytest.mark.slow
@pytest.mark.parametrize(("source", "said"), [("", "Its donor: PTB-XL "), ("Made from recordings of a hospital", "Its donor: ")])
def test_a_donor_is_said_to_be_of_ptbxl_only_where_it_is(make_dataset, monkeypatch, tmp_path, source, said):
    bank, drawn, plan_of = read_bank(BUNDLED), [], records.read_plan
    folder = make_dataset()
    bank.table.ecg_id[:1000] = np.arange(len(bank.table))[:1000]  # donors as the fake generator names them
    monkeypatch.setattr(records, "read_plan", lambda path: replace(plan_of(path), source=source))
    monkeypatch.setattr(records, "_donors_of", lambda *_: (BUNDLED, bank.table))
    monkeypatch.setattr(records, "draw", lambda sheets, out: drawn.extend(sheets))
    records.plot_dataset(folder, tmp_path / "out.png", [3, 5])
    assert [donor.title.startswith(f"{said}{record}, patient") for record, (_, donor) in zip((3, 5), drawn, strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize(("row", "said"), [
    ({}, ""), ({"noise_kinds": [], "snr_db": None}, ""), ({"noise_kinds": ["lead_off"], "snr_db": None}, ", with lead_off"),
    ({"noise_kinds": ["muscle", "clipped"], "snr_db": 5.96}, ", with muscle and clipped at 6.0 dB"),
    ({"noise_kinds": ["muscle"], "snr_db": -0.004}, ", with muscle at 0.0 dB"),
])  # fmt: skip
def test_noise_that_was_added_is_said(row, said):
    assert records._noise(row) == said


@pytest.mark.slow
def test_the_strip_shows_the_waves_of_its_own_record(small_dataset, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(records, "_donors_of", lambda *_: None)
    monkeypatch.setattr(records, "draw", lambda sheets, out: drawn.extend(sheets) or paper_draw(sheets, out))
    records.plot_dataset(small_dataset, tmp_path / "out.png", [5, 3, 5])
    targets = ECGDataset(open_dataset(small_dataset), targets="waves")
    for record, (sheet,) in zip((5, 3, 5), drawn, strict=True):
        np.testing.assert_array_equal(sheet.waves, targets[record]["waves"])
    assert (tmp_path / "out.png").stat().st_size > 10_000
    (small_dataset / "SHA256SUMS").unlink()
    (small_dataset / "beats.parquet").unlink()  # as before 0.5
    records.plot_dataset(small_dataset, tmp_path / "out.png", [5])
    assert drawn[-1][0].waves is None
