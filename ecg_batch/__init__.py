"""Labelled synthetic 12-lead ECGs at scale. See README.md; the file to read first is shard.py."""

from importlib import import_module

_HOME = {
    "open_dataset": "ecg_batch.read",
    "open_ptbxl": "ecg_batch.real",
    "ECGDataset": "ecg_batch.torch_dataset",
    "ECGIterable": "ecg_batch.torch_dataset",
    "ECGLoader": "ecg_batch.torch_dataset",
    "to_mv": "ecg_batch.torch_dataset",
}
__all__ = ["ECGDataset", "ECGIterable", "ECGLoader", "open_dataset", "open_ptbxl", "to_mv"]


def __getattr__(name: str):
    """What users import from here, loaded when asked for: `import ecg_batch` alone must cost nothing."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ecg_batch' has no attribute {name!r}")
