"""Measurements: millrace beside its peers in one run, and what its parts cost."""
