"""What the service knows of a face-LoRA that it has learned: the record of one version of an identity."""

import pydantic

from studiolo.settings import Section


class PhotoVerdict(Section):
    """What became of one photo of an album."""

    number: int = pydantic.Field(ge=1)
    """Which one, in the order they were sent, from 1."""
    status: str
    """ok | dropped | failed."""
    stage: str = ""
    """Where that was decided."""
    reason: str = ""
    """Why it was not used, a word for programs."""
    sentence: str = ""
    """The same for people."""


class LearnedReference(Section):
    """A reference that the identity was learned from and that portraits are judged against."""

    photo: int = pydantic.Field(ge=1)
    """Number of the photo."""
    crop_path: str
    """PNG in the store."""
    quality_score: float
    verdict: str
    """same | different | unsure, against the album's owner."""
    embedding: tuple[float, ...]
    """[128]."""


class LearnedVersion(Section):
    """One face-LoRA, with all that an order of portraits needs of it."""

    lora_path: str
    """Safetensors in the store."""
    lora_sha256: str
    steps: int
    """Training steps."""
    trigger: str
    """First words of every prompt."""
    common_tags: tuple[str, ...] = ()
    """Words for what most references show."""
    references: tuple[LearnedReference, ...] = ()
    photos: tuple[PhotoVerdict, ...] = ()
    """Every photo of the album, used or not."""
    curve: tuple[tuple[int, float], ...] = ()
    """(step, loss), rising in step."""
