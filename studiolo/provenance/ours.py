"""Whose signatures are ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ours:
    """Certificates with these numbers from these authorities."""

    authorities_pem: str
    serials: tuple[str, ...]
    """Numbers, in decimal; an authority gives each once. It may serve others, too, and theirs are not ours."""
