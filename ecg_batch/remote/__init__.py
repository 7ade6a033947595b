"""Remote: datasets below a URL, read by ranges, through whatever fsspec knows."""
