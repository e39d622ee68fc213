"""Guidebook beside its peers, in one run on the same data: ``python -m benchmarks``, or ``make bench``."""
