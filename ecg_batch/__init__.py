"""Labelled synthetic 12-lead ECGs at scale. See README.md; the file to read first is synthesis/generate.py."""

from importlib import import_module

_HOME = {
    "open_dataset": "ecg_batch.reading.synthetic",
    "open_ptbxl": "ecg_batch.reading.real",
    "ECGDataset": "ecg_batch.reading.loader",
    "ECGIterable": "ecg_batch.reading.loader",
    "ECGLoader": "ecg_batch.reading.loader",
    "to_mv": "ecg_batch.reading.loader",
}
__all__ = ["ECGDataset", "ECGIterable", "ECGLoader", "open_dataset", "open_ptbxl", "to_mv"]


def __getattr__(name: str):
    """What users import from here, loaded when asked for: `import ecg_batch` alone must cost nothing."""
    if name in _HOME:
        try:
            return getattr(import_module(_HOME[name]), name)
        except ModuleNotFoundError as error:
            from ecg_batch.errors import in_words

            raise in_words(error, "train") from None
    raise AttributeError(f"module 'ecg_batch' has no attribute {name!r}")
