"""Records over 10 s: one patient's single beats at the times of a rhythm model. The file to read first is batch.py."""
