"""Portraits: what is ordered, in which style, and how candidates are judged, ranked, kept and shown."""
