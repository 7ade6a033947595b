"""How fast, against what others reach and against what the machine can do. python -m benchmarks measures and prints."""
