"""Measurements: each module prints, and returns, what it measured on this machine."""
