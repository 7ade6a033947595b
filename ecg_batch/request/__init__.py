"""Request: what is asked, read from YAML and checked before anything else runs."""
