"""What the signals cost, against the same work in plain Django code: `python -m tests.benchmarks`."""
