"""Each failure the promises name, injected for real."""
