"""Several processes, one series."""
