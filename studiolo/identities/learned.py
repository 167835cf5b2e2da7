"""What the service knows of a face-LoRA that it has learned: the record of one version of an identity."""

from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from studiolo.albums.records import Reason
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
    """The same for people; of a photo that is used, what its tenant should know all the same."""

    @classmethod
    def of(cls, photo: Mapping[str, Any]) -> "PhotoVerdict":
        """The verdict in a row of `records.PHOTO` that is called by its number."""
        sentence = photo["detail"] if photo["apparent_minor"] else Reason(photo["reason"]).sentence()
        same = {name: photo[name] for name in ("status", "stage", "reason")}
        return cls(number=int(photo["uri"]), sentence=sentence, **same)


def photo_verdicts(photos: Iterable[Mapping[str, Any]]) -> tuple[PhotoVerdict, ...]:
    """The verdicts on an album, by number."""
    return tuple(sorted(map(PhotoVerdict.of, photos), key=lambda verdict: verdict.number))


class LearnedReference(Section):
    """A reference that portraits are judged against; of them the calmest were learned from."""

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

    @classmethod
    def of(cls, perceived: Mapping[str, Any], face_lora: Mapping[str, Any]) -> "LearnedVersion":
        """From a row of `PERCEIVED_SCHEMA` whose photos are called by their numbers, and the trainer's row."""
        numbers = {photo["photo_id"]: int(photo["uri"]) for photo in perceived["photos"]}
        same = ("crop_path", "quality_score", "verdict", "embedding")
        return cls(
            lora_path=face_lora["path"],
            lora_sha256=face_lora["sha256"],
            steps=face_lora["steps"],
            trigger=perceived["trigger"],
            common_tags=tuple(perceived["common_tags"]),
            references=tuple(
                LearnedReference(photo=numbers[row["photo_id"]], **{name: row[name] for name in same})
                for row in perceived["references"]
            ),
            photos=photo_verdicts(perceived["photos"]),
            curve=face_lora["curve"],
        )
