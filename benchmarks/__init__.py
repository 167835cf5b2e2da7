"""Measurements of Studiolo, one script a question: `python -m benchmarks.NAME [--quick]`."""
