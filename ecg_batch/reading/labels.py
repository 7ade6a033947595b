"""Labels: which records hold a superclass of PTB-XL or an SCP-ECG statement. The same question for synthetic and real records."""

import json
from collections.abc import Sequence

import numpy as np

from ecg_batch.donors.ptbxl import statement_codes
from ecg_batch.errors import UserError, shown, suggestion
from ecg_batch.statements import SUPERCLASSES


def multi_hot(source, labels: Sequence[str]) -> np.ndarray:
    """uint8 (record, label). A label is a superclass of PTB-XL, or an SCP-ECG statement that the record holds at any likelihood.

    UserError where no record holds a label and PTB-XL does not know it either: it is mistyped.
    """
    labels = names_of(labels, "labels")
    hot = np.zeros((len(source), len(labels)), np.uint8)
    wanted = [label for label in labels if label not in SUPERCLASSES]
    table = source.columns([*(label for label in labels if label in SUPERCLASSES), *(["scp_codes"] if wanted else [])])
    for at, label in enumerate(labels):
        if label in SUPERCLASSES:
            hot[:, at] = table[label].to_numpy()
    if wanted:
        held = table["scp_codes"].combine_chunks().dictionary_encode()  # as many different ones as there are donors
        codes = [json.loads(text) for text in held.dictionary.to_pylist()]
        for at, label in enumerate(labels):
            if label in wanted:
                hot[:, at] = np.array([label in code for code in codes], np.uint8)[held.indices.to_numpy()]
                _refuse_unknown(label, hot[:, at], source)
    return hot


def names_of(given, what: str) -> tuple[str, ...]:
    """Several names, each a text. UserError for one text, which is its letters to Python, and for what holds no names."""
    if not isinstance(given, str | bytes):
        try:
            names = tuple(given)
        except TypeError:
            names = (given,)
        if all(isinstance(name, str) for name in names):
            return names
    raise UserError(f"{what} is {shown(given)}; needed a list of names, as ['MI', 'AFIB']")


def _refuse_unknown(label: str, held: np.ndarray, source) -> None:
    known = list(dict.fromkeys((*SUPERCLASSES, *statement_codes())))
    if not held.any() and label not in known:
        hint = suggestion(label, known, most=3)
        raise UserError(
            f"{source}: no record holds the label {shown(label)}, nor does PTB-XL know it{hint}. Labels are {', '.join(known)}"
        )
