"""Captions of annotated pictures, of the whole person and each part of the face: one protocol, three who write them."""

from collections.abc import Callable

from studiolo.datasets.captions.captioner import Captioner
from studiolo.datasets.captions.grammar import Grammar
from studiolo.datasets.captions.llava import Llava
from studiolo.datasets.captions.settings import CaptionSettings
from studiolo.datasets.captions.vision_server import VisionServer
from studiolo.errors import SettingsError, nearest

CAPTIONERS: dict[str, Callable[[CaptionSettings], Captioner]] = {
    "grammar": lambda settings: Grammar(settings.grammar),
    "llava": lambda settings: Llava(settings.llava),
    "openai": lambda settings: VisionServer(settings.openai),
}
"""What a captioner may be: sentences from measurements, a LLaVA model, any server that speaks OpenAI's protocol."""


def open_captioner(name: str, settings: CaptionSettings) -> Captioner:
    """The captioner called `name`, not open yet. Raises `SettingsError` for a name that there is not."""
    if name not in CAPTIONERS:
        raise SettingsError(f"no captioner is called {name!r}; {nearest(name, CAPTIONERS)}")
    return CAPTIONERS[name](settings)
