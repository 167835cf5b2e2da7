"""Captions from what was measured, and from nothing else: no model, no guess, and the measurement kept beside each
phrase.
"""

from collections.abc import Sequence
from typing import Any

from studiolo.datasets.captions.captioner import Caption, Row, Usage, version_of
from studiolo.datasets.captions.findings import Finding, findings_of
from studiolo.datasets.captions.settings import GrammarSettings
from studiolo.datasets.captions.wording import Wording, part_sentence, whole_sentences
from studiolo.datasets.records import PARTS, WHOLE

_VERSION = 2
"""Counts up whenever the same findings get other words, or the same measurements other findings."""


class Grammar:
    """Writes sentences for the whole person and for each part that was found."""

    rows_per_part: int | None = None

    def __init__(self, settings: GrammarSettings | None = None) -> None:
        self.settings = settings or GrammarSettings()
        self.id = f"grammar@{version_of(_VERSION, self.settings.model_dump())}"
        self.usage = Usage()

    def open(self, device: str = "cpu") -> None:
        """Nothing to open."""

    def __call__(self, rows: Sequence[Row]) -> list[list[Caption]]:
        """See `Captioner`."""
        return [self._captions(row) for row in rows]

    def close(self) -> None:
        """Nothing to close."""

    def _captions(self, row: Row) -> list[Caption]:
        found, choose = findings_of(row, self.settings), Wording(row["row_id"])
        score = float(row["detector_score"])
        anyone = Finding("person", "detector_score", f"{score:.2f}", score)
        captions = [_caption(WHOLE, *whole_sentences(found, anyone, choose))]
        there = {part["part"] for part in row["parts"]}
        captions += [_caption(part, *part_sentence(part, found, choose)) for part in PARTS if part in there]
        return [caption for caption in captions if caption["text"]]


def _caption(part: str, text: str, evidence: list[dict[str, Any]]) -> Caption:
    return {"part": part, "text": text, "evidence": evidence}
