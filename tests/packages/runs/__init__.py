"""One module for each package: its models, and `run()`, which says what came of it."""
