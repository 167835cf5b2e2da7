"""Metrics: how alike, how distinct, and how sure we are of it."""
