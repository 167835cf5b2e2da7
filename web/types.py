"""What goes in and out over HTTP. All times are seconds since 1970 (UTC)."""

from typing import Any

import pydantic

from studiolo.identities.learned import PhotoVerdict
from studiolo.portraits.requests import RejectedImages
from studiolo.provenance.manifests import ManifestState
from studiolo.service.identities import IdentityState
from studiolo.service.provenance import MadeBy
from studiolo.service.records import Consent, Kind, State

IDENTITY_PATTERN = r"^id_[0-9a-f]{32}$"


class Body(pydantic.BaseModel):
    """Base of what callers send: an unknown name is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class View(pydantic.BaseModel):
    """Base of what they get."""

    model_config = pydantic.ConfigDict(frozen=True, use_attribute_docstrings=True)


class ImageView(View):
    """One portrait."""

    url: str
    """Where it is fetched, with your API key, until its job expires."""
    seed: int
    """Of this picture."""
    width_px: int
    height_px: int
    similarity: float | None
    """Calibrated, 0 to 1, to the identity's references; null without an identity."""
    verdict: str | None
    """same | different | unsure; null without an identity."""


class CurvePoint(View):
    """A point of a training's curve."""

    step: int
    loss: float


class JobView(View):
    """A job."""

    id: str
    request_id: str | None
    """Id of the request that made it, as in that answer's `X-Request-ID`."""
    kind: Kind
    state: State
    """The last three are final."""
    reason: str
    """Why it failed or was cancelled, a word for programs; else empty."""
    sentence: str
    """The same for people."""
    identity_id: str | None
    request: dict[str, Any]
    """What was asked for."""
    seed: int | None
    """Of portraits: asked for again with it, the same request gives the same pictures."""
    position: int | None
    """Place among the waiting jobs of its kind, from 1; null when it does not wait."""
    steps: int
    """Denoising or training steps it was planned with."""
    steps_done: int
    """Of these, in the newest attempt, as last heard."""
    curve: list[CurvePoint]
    """The loss of a training that goes on, as last heard; that of one that is over is its identity's."""
    attempts: int
    created_at: float
    deadline_at: float
    started_at: float | None
    """Beginning of the newest attempt."""
    finished_at: float | None
    expires_at: float | None
    """When the result is thrown away; null before there is one, and after."""
    images: list[ImageView]
    """Portraits, best first."""
    rejected: list[RejectedImages]
    """Candidates that were not good enough."""
    photos: list[PhotoVerdict]
    """Of a training: what became of each photo."""


class JobPage(View):
    """Part of a list, newest first."""

    data: list[JobView]
    next: str | None
    """Give it as `before` for the next part; null at the end."""


class PortraitsBody(Body):
    """Body of `POST /v1/portraits`."""

    identity_id: str | None = pydantic.Field(None, pattern=IDENTITY_PATTERN)
    """Whose portraits; a person of the base's own when absent."""
    style: str | None = pydantic.Field(None, max_length=100)
    """Name of a style (`GET /v1/styles`). A style, a prompt, or both."""
    prompt: str = pydantic.Field("", max_length=500)
    """What the pictures show, in words; with a style, after its words."""
    negative_prompt: str = pydantic.Field("", max_length=500)
    """What they should not show."""
    count: int = pydantic.Field(1, ge=1, le=64)
    """Portraits wanted."""
    seed: int | None = pydantic.Field(None, ge=0, lt=2**31)
    """The same request with the same seed gives the same pictures; other ones each time when absent."""
    size_px: int | None = pydantic.Field(None, ge=8, le=8192)
    """Side of the square pictures: 1, 2 or 4 times that of the base."""
    threshold: float | None = pydantic.Field(None, ge=0, le=1)
    """Least calibrated similarity of an accepted portrait."""
    face_weight: float | None = pydantic.Field(None, ge=0, le=2)
    """Weight of what was learned of the person: less follows the style and the words more freely."""
    style_weight: float | None = pydantic.Field(None, ge=0, le=2)
    """Weight of the style's LoRA, where it has one."""
    fusion: float | None = pydantic.Field(None, ge=0, le=1)
    """How much of the best photo's face is set into a portrait; 0 leaves the portrait to what was learned."""
    deadline_s: float | None = pydantic.Field(None, gt=0, le=1e9)
    """Seconds from now within which it has to be done. Refused at once when that cannot be met."""
    wait_s: float = pydantic.Field(0, ge=0, le=1e6)
    """Seconds to wait for the result in this request."""
    webhook_url: str | None = pydantic.Field(None, pattern=r"^https?://[\x21-\x7e]{1,2000}$")
    """Told when the job has ended."""


_SHARE = r"(0|1|0?\.[0-9]{1,9}|1\.0{1,9})"
_POINT = rf"^{_SHARE},{_SHARE}$"


class EditTexts(Body):
    """The texts of the form of `POST /v1/edits`."""

    identity_id: str = pydantic.Field(pattern=IDENTITY_PATTERN)
    """Whose face."""
    face: str | None = pydantic.Field(None, pattern=_POINT)
    """`X,Y`: a point of the face that is drawn anew, where there are several; from 0,0, left above, to 1,1, right
    below, in the picture as viewers show it. Without it the only face, or one with four times the area of any other."""
    count: int = pydantic.Field(1, ge=1, le=64)
    """Pictures wanted."""
    seed: int | None = pydantic.Field(None, ge=0, lt=2**31)
    """The same request with the same seed gives the same pictures; other ones each time when absent."""
    prompt: str = pydantic.Field("", max_length=500)
    """Words about the face, after the person's own."""
    negative_prompt: str = pydantic.Field("", max_length=500)
    """What it should not show."""
    strength: float = pydantic.Field(0.65, gt=0, le=1, allow_inf_nan=False)
    """How far the template's face is drawn anew: with less, more of it stays."""
    deadline_s: float | None = pydantic.Field(None, gt=0, le=1e9, allow_inf_nan=False)
    """Seconds from now within which it has to be done. Refused at once when that cannot be met."""
    wait_s: float = pydantic.Field(0, ge=0, le=1e6, allow_inf_nan=False)
    """Seconds to wait for the result in this request."""
    webhook_url: str | None = pydantic.Field(None, pattern=r"^https?://[\x21-\x7e]{1,2000}$")
    """Told when the job has ended."""

    @property
    def point(self) -> tuple[float, float] | None:
        """`face` in numbers."""
        return _point(self.face)


def _point(text: str | None) -> tuple[float, float] | None:
    """`X,Y` in numbers."""
    if text is None:
        return None
    x, y = map(float, text.split(","))
    return x, y


class OwnStyleView(View):
    """What there is to say of a style of your own."""

    id: str
    """Deleted by it."""
    prompt: str
    """Its words in every prompt."""
    negative_prompt: str
    weight: float
    """Of the LoRA."""
    rank: int
    """Of the LoRA, the largest of its layers."""
    layers: int
    """Layers of the base that it changes."""
    created_at: float


class StyleView(View):
    """A style."""

    name: str
    """How it is ordered."""
    title: str
    description: str
    own: OwnStyleView | None
    """Null of a style of ours."""


class StyleList(View):
    """All styles."""

    data: list[StyleView]


class UsageView(View):
    """What one key used on one day (UTC)."""

    key_id: str
    day: str
    """YYYY-MM-DD."""
    requests: int
    portraits: int
    """Asked for."""
    identities: int
    """Trainings asked for."""
    steps: int
    """Planned with."""


class UsageList(View):
    """Usage of all keys of the tenant, by day and key."""

    data: list[UsageView]


class Health(View):
    """That the process, or the service, answers."""

    status: str
    version: str


class ReferenceView(View):
    """A photo that portraits are judged against; of them the calmest were learned from."""

    photo: int
    """Its number, in the order they were sent, from 1."""
    quality_score: float
    verdict: str
    """same | different | unsure, against the album's owner."""


class VersionView(View):
    """One face-LoRA of an identity."""

    number: int
    job_id: str
    created_at: float
    lora_sha256: str
    steps: int
    references: list[ReferenceView]
    photos: list[PhotoVerdict]
    """Every photo of the album, used or not."""
    curve: list[CurvePoint]


class IdentityView(View):
    """A person."""

    id: str
    name: str
    state: IdentityState
    """Portraits are made of one that is `ready`."""
    consent: Consent
    created_at: float
    job_id: str | None
    """The newest training: its reason says why it failed, its photos what became of each."""
    versions: list[VersionView]
    """Oldest first; portraits are made with the last."""


class IdentityPage(View):
    """Part of a list, newest first."""

    data: list[IdentityView]
    next: str | None
    """Give it as `before` for the next part; null at the end."""


class ErasureView(View):
    """How far an erasure is."""

    state: str
    """`erased` with a receipt; `erasing` while a worker may still write: ask again."""
    receipt: dict[str, Any] | None
    """Signed with Ed25519: what went, and when."""


class OpenAIWanted(pydantic.BaseModel):
    """What both of OpenAI's routes take; fields of OpenAI's that have no meaning here are passed over."""

    model_config = pydantic.ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    prompt: str = pydantic.Field(min_length=1, max_length=500)
    """What the pictures show."""
    model: str | None = pydantic.Field(None, max_length=100)
    """The base's card; may be absent, there is one."""
    n: int | None = pydantic.Field(1, ge=1, le=10)
    """Pictures wanted."""
    response_format: str | None = pydantic.Field("url", pattern=r"^(url|b64_json)$")
    """`url`, fetched with the API key, or `b64_json`."""
    output_format: str | None = pydantic.Field("png", pattern=r"^png$")
    """Pictures are PNG files."""
    stream: bool | None = None
    """Must not be true: see `GET /v1/jobs/{job_id}/events` for that."""
    user: str | None = pydantic.Field(None, max_length=100)
    """The identity; a person of the base's own when absent."""
    identity_id: str | None = pydantic.Field(None, max_length=100)
    """The identity, for callers whose `user` means something else."""
    seed: int | None = pydantic.Field(None, ge=0, lt=2**31)
    """The same request with the same seed gives the same pictures."""

    @property
    def who(self) -> str | None:
        """The identity, however it is given."""
        return self.identity_id or self.user or None


class OpenAIBody(OpenAIWanted):
    """Body of `POST /v1/images/generations`."""

    size: str | None = pydantic.Field(None, pattern=r"^(auto|[1-9]\d{0,3}x[1-9]\d{0,3})$")
    """`WIDTHxHEIGHT`, square."""
    style_name: str | None = pydantic.Field(None, max_length=100)
    """Name of a style (`GET /v1/styles`)."""


class OpenAITexts(OpenAIWanted):
    """The texts of the form of `POST /v1/images/edits`, beside its `image`. The person has to be named, as
    `identity_id` (with OpenAI's client in `extra_body`) or as `user`."""

    size: str | None = pydantic.Field(None, max_length=20)
    """`auto`, or absent: a picture is as large as its template."""
    face: str | None = pydantic.Field(None, pattern=_POINT)
    """`X,Y`: see `POST /v1/edits`."""
    strength: float = pydantic.Field(0.65, gt=0, le=1, allow_inf_nan=False)
    """How far the template's face is drawn anew."""

    @property
    def point(self) -> tuple[float, float] | None:
        """`face` in numbers."""
        return _point(self.face)


class OpenAIImage(View):
    """One picture; one of the two is there."""

    url: str | None = None
    b64_json: str | None = None


class OpenAIImages(View):
    """Answer of OpenAI's routes."""

    created: int
    data: list[OpenAIImage]
    output_format: str = "png"
    size: str | None = None


class ProvenanceView(View):
    """Whether a picture was made here."""

    made_here: bool
    """False where it is not known, too."""
    by: MadeBy | None
    """What says so: the manifest, signed by us, of an unchanged file; or pixels that were made here."""
    manifest: ManifestState
    """The file's C2PA manifest: none | ours | altered (ours, but file or manifest was changed) | other (somebody
    else's) | broken."""
    sentence: str
    """The same for people."""
