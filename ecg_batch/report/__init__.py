"""Report: one page about a finished dataset, for people."""
