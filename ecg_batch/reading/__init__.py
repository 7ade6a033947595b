"""Reading: a finished dataset, or PTB-XL itself, for whoever trains on it."""
