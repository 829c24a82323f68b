"""millrace beside its peers on the same files in one run: `make bench`, `make bench-scale`."""
