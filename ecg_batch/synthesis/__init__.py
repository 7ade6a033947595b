"""Synthesis: how a record is made. The file to read first is generate.py, then batch.py."""
