"""Threads, interpreter exit, errors that are not ours, what is said to a person."""
