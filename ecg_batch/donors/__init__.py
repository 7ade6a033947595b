"""Donors: from the recordings of PTB-XL to a bank of real beats."""
