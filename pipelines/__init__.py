"""Ray graphs, one a file; each reads as one line."""
