"""Portraits and edits that were asked for over HTTP: the request as the queue keeps it, the result as a worker leaves
it.

A request holds what a worker needs to make a bulk job's order of it, and nothing that would make two equal requests
differ.
"""

import hashlib
from typing import Any, Literal

import pydantic

from studiolo.portraits.orders import Order, order_seed
from studiolo.portraits.ranking import candidates_in_round
from studiolo.portraits.styles import Style, load_style
from studiolo.settings import GenerationSettings, Section

NOBODY = "anonymous"
"""Whose portraits they are without an identity: people of the base. Part of every candidate's seed."""
PROMPT_STYLE = "prompt"
"""Name of the style that is nothing but the caller's words."""


class _Request(Section):
    """What both kinds of requests have."""

    prompt: str = ""
    """Words, after those of the style when there is one."""
    negative_prompt: str = ""
    """What to keep away from, beside what the style keeps away from."""
    count: int = pydantic.Field(1, ge=1)
    """Pictures wanted."""
    seed: int | None = pydantic.Field(None, ge=0, lt=2**31)
    """Like the bulk job's seed; None: made of the job's id, so that every attempt makes the same pictures."""

    def job_seed(self, job_id: str) -> int:
        """The seed, or that of a job for which none was given; asked for again it gives the same pictures."""
        if self.seed is not None:
            return self.seed
        return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4], "big") >> 1


class PortraitRequest(_Request):
    """`count` portraits of a person, in a style, in words, or both."""

    identity_id: str | None = None
    """Whose; None for a person of the base."""
    style: str | None = None
    """Name of a style."""
    style_id: str | None = None
    """The style, where it is one of the caller's own."""
    upscale: Literal[1, 2, 4] | None = None
    """Side of a portrait, in sides of the base's pictures; None: as the settings say."""
    accept_similarity: float | None = pydantic.Field(None, ge=0, le=1)
    """Least calibrated similarity of an accepted portrait; None: as the settings say."""
    face_weight: float | None = pydantic.Field(None, ge=0, le=2)
    """Weight of the face-LoRA; None: as the settings say."""
    style_weight: float | None = pydantic.Field(None, ge=0, le=2)
    """Weight of the style's LoRA, where it has one; None: as the settings say."""
    fusion: float | None = pydantic.Field(None, ge=0, le=1)
    """How much of the best photo's face is set into a portrait; None: as the settings say."""

    @pydantic.model_validator(mode="after")
    def _something_is_wanted(self) -> "PortraitRequest":
        if self.style is None and not self.prompt.strip():
            raise ValueError("wanted a style, a prompt, or both")
        return self

    def look(self, style_folder: str | None = None, own: Style | None = None) -> Style:
        """The style with the caller's words in it; `own` is it, where it is one of the caller's own.

        Raises `SettingsError` for one that there is not.
        """
        if self.style is None:
            words = {"prompt": self.prompt, "negative_prompt": self.negative_prompt}
            return Style(name=PROMPT_STYLE, title="In the caller's words", **words)
        style = own or load_style(self.style, style_folder)
        more = {
            "add_prompt_style": _joined(style.add_prompt_style, self.prompt),
            "negative_prompt": _joined(style.negative_prompt, self.negative_prompt),
        }
        return style.model_copy(update=more)

    def settings(self, default: GenerationSettings) -> GenerationSettings:
        """The service's settings with what this request wants differently.

        Of a person of the base no more are made than wanted: there is no likeness to choose by.
        """
        each = 1 if self.identity_id is None else None
        own = {
            "upscale": self.upscale,
            "accept_similarity": self.accept_similarity,
            "face_weight": self.face_weight,
            "style_weight": self.style_weight,
            "fusion": self.fusion,
            "candidates_per_portrait": each,
        }
        return default.model_copy(update={name: value for name, value in own.items() if value is not None})

    def candidates(self, default: GenerationSettings) -> int:
        """Pictures of the first round."""
        return candidates_in_round(0, self.count, self.settings(default).candidates_per_portrait)

    def steps(self, default: GenerationSettings) -> int:
        """Denoising steps of the first round: what the backlog is counted in."""
        return self.candidates(default) * default.steps

    def order(self, job_id: str, default: GenerationSettings) -> Order:
        """The bulk job's order of the same: same person, style, count, seed and settings, same portraits."""
        style = self.style or PROMPT_STYLE
        return Order(
            identity_id=self.identity_id or NOBODY,
            style=style,
            count=self.count,
            seed=order_seed(self.job_seed(job_id), style),
            generation=self.settings(default),
        )


class EditRequest(_Request):
    """`count` pictures of a person in the place of a template's; the template lies in the store, with the job."""

    identity_id: str
    """Whose face."""
    template_sha256: str = pydantic.Field(pattern="^[0-9a-f]{64}$")
    """Of the template's file."""
    face: tuple[float, float] | None = None
    """A point of the face that is meant, in shares of the template's width and height."""
    strength: float = pydantic.Field(0.65, gt=0, le=1)
    """Share of the steps that are done on the template's face: with less, more of it stays."""

    def steps_each(self, default: GenerationSettings) -> int:
        """Denoising steps of one picture, its sketch apart; 0 when the strength leaves none."""
        return int(default.steps * self.strength)

    def steps(self, default: GenerationSettings) -> int:
        """Denoising steps of the sketches and the first round: what the backlog is counted in."""
        each = default.candidates_per_portrait
        return each * default.steps + candidates_in_round(0, self.count, each) * self.steps_each(default)


def request_of(kept: dict[str, Any]) -> PortraitRequest | EditRequest:
    """The request of a job of portraits as the queue keeps it. Raises `pydantic.ValidationError`."""
    kind = EditRequest if "template_sha256" in kept else PortraitRequest
    return kind.model_validate(kept)


class ResultImage(Section):
    """One portrait of a result."""

    path: str
    """PNG in the store."""
    sha256: str
    """Of the file, which differs from attempt to attempt: its manifest is signed anew."""
    pixels_sha256: str | None = None
    """Of the pixels, which do not; None in results from before they were kept."""
    seed: int
    """Of this picture."""
    width_px: int
    height_px: int
    similarity: float | None = None
    """Calibrated, 0 to 1, to the identity's references; None without an identity."""
    verdict: str | None = None
    """same | different | unsure; None without an identity."""


class RejectedImages(Section):
    """Candidates that were not good enough."""

    reason: str
    """A word for programs."""
    sentence: str
    """The same for people."""
    count: int = pydantic.Field(ge=1)
    """How many."""


class PortraitsResult(Section):
    """What a worker completes a job of portraits with, best first."""

    images: tuple[ResultImage, ...]
    rejected: tuple[RejectedImages, ...] = ()


def _joined(*words: str) -> str:
    return ", ".join(part.strip() for part in words if part.strip())
