"""How other packages work with bulk operations that send signals: ``python -m tests.packages``."""
