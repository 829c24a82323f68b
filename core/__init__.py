"""The contract both sides share: what a job is, how it is named, counted and stored.

Nothing here imports another millrace package.
"""
