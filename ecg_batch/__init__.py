"""Labelled synthetic 12-lead ECGs at scale. See README.md; the file to read first is shard.py."""
