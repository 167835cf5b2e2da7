"""What every captioner is, and what they share."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from studiolo.keys import canonical_json

Row = Mapping[str, Any]
Caption = dict[str, Any]
"""A row of `records.CAPTION`."""

PERSON_PROMPT = (
    "Please describe the people in the image, including their gender, age, clothing, facial expressions, and any other"
    " distinguishing features."
)
"""ConsistentID's prompt for the whole person (section 3.4.1)."""

FACE_PROMPT = "Describe this person's facial features, including the face, ears, eyes, nose, and mouth"
"""ConsistentID's prompt for the regions (section 3.1)."""


@dataclass
class Usage:
    """What a server has been asked and has taken, from `open` on; nothing for a captioner that asks none."""

    requests: int = 0
    """Sent, repeated ones too."""
    repeated: int = 0
    refused: int = 0
    """Pictures that the server would not describe."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """Of these tokens, by the prices in the settings."""


class Captioner(Protocol):
    """Writes captions of annotated pictures."""

    id: str
    """`name@version`: the same id and row, the same captions. Part of a caption shard's key."""
    rows_per_part: int | None
    """The captions of so many rows are kept as soon as they are there; None where they cost too little for that."""
    usage: Usage

    def open(self, device: str = "cpu") -> None:
        """Get ready to work, on the worker. Raises `WeightsError` for a model that cannot be had."""
        ...

    def __call__(self, rows: Sequence[Row]) -> list[list[Caption]]:
        """Captions of each of `rows`, annotations (`records.ANNOTATION_SCHEMA`) whose status is ok: the whole person
        first, then parts in the order of `records.PARTS`.

        No content of a row raises; one that gets no caption has an empty list. A captioner that cannot work at all
        raises a `StudioloError`.
        """
        ...

    def close(self) -> None:
        """Let go of model and connections."""
        ...


def version_of(*decisive: Any) -> str:
    """Twelve hex digits that change with any of `decisive`, JSON values: the version in a captioner's id."""
    return hashlib.sha256(canonical_json(decisive).encode()).hexdigest()[:12]
