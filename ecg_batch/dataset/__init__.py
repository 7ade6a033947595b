"""Dataset: the format on disk. See docs/format.md."""
