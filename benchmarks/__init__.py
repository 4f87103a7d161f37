"""Detection and speed, measured on public sets: `python -m benchmarks` in a clone."""
