"""Data sets: each gives a stream of examples."""
