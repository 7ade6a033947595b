"""Evaluation: what a dataset is worth, measured on real recordings against the cheapest rival."""
