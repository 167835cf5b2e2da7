"""Studiolo: photo albums in, identity-preserving portraits out. No Ray and no web framework in here."""

__version__ = "0.1.0"
