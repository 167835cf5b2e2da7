"""Entry points and their settings, `python -m jobs ...`; no algorithms."""
