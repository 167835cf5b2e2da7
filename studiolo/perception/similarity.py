"""From the Euclidean distance of two embeddings to a similarity of 0..1 and one of three outcomes.

The constants are made by `python -m benchmarks.calibration` and kept in `calibration/embedded.json`;
docs/similarity.md shows the curves.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from studiolo.albums.records import Verdict
from studiolo.errors import SettingsError

FOLDER = Path(__file__).parent / "calibration"


@dataclass(frozen=True)
class Similarity:
    """score = 1 / (1 + exp((distance - even) / spread)): the probability of one person, if as many pairs were one
    person as two.
    """

    even: float
    """Distance at which both are as likely."""
    spread: float
    """How gently the probability falls."""
    same_below: float
    """Distances below are `same`."""
    different_above: float
    """Distances above are `different`; between the two nothing is sure."""

    def __post_init__(self) -> None:
        if not (0 < self.same_below <= self.different_above and self.spread > 0):
            raise SettingsError(f"similarity: got {self}, wanted 0 < same_below <= different_above and spread > 0")

    @classmethod
    def load(cls, suite: str = "embedded") -> Self:
        """The calibration of a suite. Raises `SettingsError` when there is none or it cannot be read."""
        path = FOLDER / f"{suite}.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{name: float(values[name]) for name in ("even", "spread", "same_below", "different_above")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"similarity of suite {suite!r}: {path.name}: {error!r}; "
                "make it with `python -m benchmarks.calibration --keep`"
            ) from None

    @property
    def sha256(self) -> str:
        """Hash (64 hex digits) of the constants, for the keys of what they decide."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def score(self, distance: float) -> float:
        """Calibrated similarity, 0..1, falling with the distance (>= 0)."""
        return float(1 / (1 + np.exp(np.clip((distance - self.even) / self.spread, -60, 60))))

    def verdict(self, distance: float) -> Verdict:
        """Same, different or unsure."""
        if distance < self.same_below:
            return Verdict.SAME
        return Verdict.DIFFERENT if distance > self.different_above else Verdict.UNSURE
