"""Runs as people look at them: read from their journals, summarised, compared, drawn. Reads; never needs torch."""
