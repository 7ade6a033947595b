"""A heart rate is believed where two of four other detections give it, and the slow ones are asked only where they decide."""

from itertools import product

import numpy as np
import pytest

from ecg_batch.donors import measure


@pytest.mark.parametrize("agrees", list(product([False, True], repeat=4)))
def test_two_of_four_confirm_a_rate_and_xqrs_is_asked_last(monkeypatch, agrees):
    right, wrong = np.arange(10) * 100, np.arange(10) * 60  # 60 and 100 bpm
    votes = [right if one else wrong for one in agrees]  # sleepecg in II and on the length, XQRS likewise
    asked = []
    monkeypatch.setattr(measure, "detect_rows", lambda rows, fs_hz: [votes[1]])
    monkeypatch.setattr(measure, "_xqrs", lambda lead, fs_hz: asked.append(len(asked)) or votes[2 + len(asked) - 1])
    found = measure._confirmed(np.random.default_rng(0).normal(size=(8, 1000)), votes[0], 60.0, 100)
    assert found == (sum(agrees) >= 2)
    assert len(asked) == (0 if sum(agrees[:2]) == 2 else 1 if sum(agrees[:3]) == 2 else 2)
