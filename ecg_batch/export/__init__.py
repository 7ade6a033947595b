"""Export: a finished dataset in other formats."""
