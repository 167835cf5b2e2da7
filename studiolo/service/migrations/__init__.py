"""Alembic's environment, run by `studiolo.service.database.migrate`.

A new revision: change `tables.py`, write `versions/v0002_what.py` by hand after the manner of the first, run the tests.
"""
