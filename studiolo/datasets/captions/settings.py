"""How captions are written. What decides their words is part of a captioner's id; how the work is done is not."""

import pydantic

from studiolo.settings import Section


class GrammarSettings(Section):
    """From which confidence on a measurement is put into words; below it nothing is said."""

    gender: float = pydantic.Field(0.8, ge=0.5, le=1)
    """Of the gender network."""
    age: float = pydantic.Field(0.6, ge=0, le=1)
    """That the age lies in the group named, given the model's usual error."""
    expression: float = pydantic.Field(0.8, ge=0, le=1)
    """Of smile, mouth and eyes; 0.8 is where the tagger speaks."""
    pose: float = pydantic.Field(0.8, ge=0, le=1)
    """Of the head's direction; 0.8 is where the tagger speaks."""
    colour: float = pydantic.Field(0.6, ge=0, le=1)
    """Share of an area's patches that by themselves have the colour named."""
    shape: float = pydantic.Field(0.8, ge=0, le=1)
    """That a part of the face is longer, wider or fuller than in three of four faces, given the mesh's usual error."""
    found: float = pydantic.Field(0.5, ge=0, le=1)
    """Of the mesh, that a part is there at all."""


class LlavaSettings(Section):
    """A LLaVA model on the workers."""

    card: str = "llava-1-5-7b"
    """Model card."""
    batch_size: int = pydantic.Field(8, ge=1)
    """Pictures in a batch. It is always full (the last picture is repeated), so that no text depends on its
    neighbours."""
    max_new_tokens: int = pydantic.Field(512, ge=1)
    """Most tokens of an answer."""
    side_px: int = pydantic.Field(512, ge=32)
    """Longest side of the picture that the model is shown."""


class VisionServerSettings(Section):
    """A server that speaks OpenAI's protocol."""

    url: str = pydantic.Field("http://127.0.0.1:8000/v1", pattern=r"^https?://\S+$")
    """Base URL, with its version: `/chat/completions` is put behind it."""
    model: str = pydantic.Field("llava-hf/llava-1.5-7b-hf", min_length=1)
    """Name of the model there; with its revision, where the server has several, since the captioner's id is made of
    it."""
    api_key_variable: str = pydantic.Field("STUDIOLO_CAPTION_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the API key; without it none is sent."""
    max_new_tokens: int = pydantic.Field(512, ge=1)
    """Most tokens of an answer."""
    side_px: int = pydantic.Field(512, ge=32)
    """Longest side of the picture that is sent."""
    rows_per_part: int = pydantic.Field(16, ge=1)
    """The answers for so many pictures are kept as soon as they are there."""
    in_flight: int = pydantic.Field(8, ge=1)
    """Requests of a worker at once."""
    timeout_s: float = pydantic.Field(120.0, gt=0)
    """Seconds until a request that brings no answer is given up."""
    attempts: int = pydantic.Field(5, ge=1)
    """Times a request is sent when the server is busy, ill or away."""
    pause_s: float = pydantic.Field(1.0, ge=0)
    """Before the second attempt; doubled from one to the next. A server's Retry-After goes first."""
    longest_pause_s: float = pydantic.Field(60.0, ge=0)
    """A longer pause, the server's too, is cut to this."""
    prompt_price: float = pydantic.Field(0.0, ge=0)
    """Price of a million tokens of prompt, pictures included, in any currency."""
    completion_price: float = pydantic.Field(0.0, ge=0)
    """Price of a million tokens of answers."""


class CaptionSettings(Section):
    """How captions are written, by whom is `captioner`."""

    actors: int = pydantic.Field(2, ge=1)
    """Caption actors."""
    cpus_per_actor: float = pydantic.Field(1.0, gt=0)
    """CPU slots an actor takes in the plan."""
    time_limit_s: float = pydantic.Field(3600.0, gt=0)
    """Seconds an actor may take over one part of a shard; then it is ended and begins anew, twice, before that part is
    left without captions."""
    grammar: GrammarSettings = GrammarSettings()
    """Sentences from what was measured."""
    llava: LlavaSettings = LlavaSettings()
    """A LLaVA model on the workers."""
    openai: VisionServerSettings = VisionServerSettings()
    """A vision model behind a URL."""
