"""Photos of the sample people that nothing is trained, calibrated or selected on, so that likeness can be measured."""

from fnmatch import fnmatchcase

HELD_OUT = ("selfie*.jpg", "expression-*happy*", "expression-*thoughtful*", "expression-*determined*")


def is_held_out(name: str) -> bool:
    """Whether a photo of a sample album, by its file name, is one of them."""
    return any(fnmatchcase(name, pattern) for pattern in HELD_OUT)
