"""Settings of the HTTP side of the endpoint."""

import pydantic

from studiolo.settings import FaceLoraSettings, GenerationSettings, Section


class WebSettings(Section):
    """What the routes have to know of the models behind them, and how long they wait."""

    base: str = "embedded-base"
    """Card of the base; the `model` of the OpenAI-compatible route."""
    base_px: int = pydantic.Field(128, ge=8)
    """Side of the base's pictures; portraits have 1, 2 or 4 times as much."""
    style_folder: str | None = None
    """Folder with style files of one's own."""
    generation: GenerationSettings = GenerationSettings()
    """How portraits are made; the workers' own."""
    face_lora: FaceLoraSettings = FaceLoraSettings()
    """How identities are learned; the workers' own."""
    public_url: str | None = None
    """What URLs in answers begin with, such as `https://portraits.example.com`; as the request was addressed, when
    absent."""
    max_body_kib: int = pydantic.Field(64, ge=1)
    """Size of a JSON body."""
    body_s: float = pydantic.Field(20.0, gt=0)
    """Seconds a client may take to send a JSON body."""
    upload_s: float = pydantic.Field(600.0, gt=0)
    """Seconds a client may take to send an album."""
    max_wait_s: float = pydantic.Field(60.0, ge=0)
    """Longest `wait_s` of a request for portraits."""
    openai_wait_s: float = pydantic.Field(120.0, gt=0)
    """Deadline of a request in OpenAI's form, which is answered when it is done."""
    poll_s: float = pydantic.Field(0.5, gt=0)
    """Pause between two looks at a job that somebody waits for."""
