"""Labelled synthetic 12-lead ECGs at scale. See README.md; the file to read first is shard.py."""

__all__ = ["ECGDataset", "open_dataset"]


def __getattr__(name: str):
    """What users import from here, loaded when asked for: `import ecg_batch` alone must cost nothing."""
    if name in __all__:
        from ecg_batch import read

        return getattr(read, name)
    raise AttributeError(f"module 'ecg_batch' has no attribute {name!r}")
