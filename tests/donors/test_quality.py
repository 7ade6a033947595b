"""What PTB-XL's readers wrote about noise, read lead by lead."""

import pytest

from ecg_batch.donors.quality import noisy_leads
from ecg_batch.leads import MODELLED


@pytest.mark.parametrize(
    ("cell", "leads"),
    [
        ("", ""),
        ("nan", ""),
        (" , V6", "V6"),
        ("v6,", "V6"),
        (", II-AVF", "I II"),  # II, III, aVR, aVL, aVF: the derived ones are made of I and II
        (", I-V1,  ", "I II V1"),
        (" I - AVF, ", "I II"),
        ("v3-4", "V3 V4"),
        ("v1-6", "V1 V2 V3 V4 V5 V6"),
        ("V3,V4-V6", "V3 V4 V5 V6"),
        ("Kontaktprobleme aVL ???", "I II"),
        ("V1???", "V1"),
        ("II,III,AVF", "I II"),
        (", alles,  ", " ".join(MODELLED)),
        ("leicht,  , noisy recording", " ".join(MODELLED)),
        ("V1, alles", " ".join(MODELLED)),
    ],
)
def test_a_cell_means_leads(cell, leads):
    assert noisy_leads(cell) == frozenset(leads.split())
