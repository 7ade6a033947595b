"""Labelled synthetic 12-lead ECGs at scale. See README.md; the file to read first is shard.py."""

from importlib import import_module

_HOME = {"open_dataset": "ecg_batch.read", "ECGDataset": "ecg_batch.torch_dataset"}
__all__ = ["ECGDataset", "open_dataset"]


def __getattr__(name: str):
    """What users import from here, loaded when asked for: `import ecg_batch` alone must cost nothing."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ecg_batch' has no attribute {name!r}")
