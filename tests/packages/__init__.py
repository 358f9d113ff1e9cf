"""What other packages make of bulk operations that send signals: ``python -m tests.packages``."""
