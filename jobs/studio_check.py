"""What can be wrong with a request to the studio job, found before any work."""

import os
import sys
from pathlib import Path

from studiolo.albums.sources import AlbumSource, is_local, list_albums, local_path
from studiolo.errors import SettingsError, nearest
from studiolo.generation.base import load_tokenizer
from studiolo.perception.suite import PERCEPTION_CARDS
from studiolo.portraits.styles import Style, load_style, style_card, style_lora_path
from studiolo.portraits.upscaling import CARDS as UPSCALER_CARDS
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from studiolo.weights.cards import SUITE_BASE, load_card, require_commercial, suite
from studiolo.weights.fetch import pull


def check_request(settings: StudioSettings) -> tuple[list[AlbumSource], list[Style]]:
    """What can be wrong with a request, before any work: styles, suite, licences, places, albums, weights."""
    styles = [load_style(name, settings.style_folder) for name in settings.styles]
    suite(settings.suite)  # a misspelt suite is refused by name
    cards = [load_card(card_id) for card_id in cards_of(settings)]
    if settings.commercial:
        require_commercial([*cards, *filter(None, map(style_card, styles))])
    MlflowTracker.beside(Store(settings.out), settings.tracking_uri)
    _check_apart(settings)
    sources = list_albums(settings.albums)
    for card in cards:
        pull(card.id)
    for style in styles:
        style_lora_path(style)
    _warn_of_long(styles, pull(SUITE_BASE[settings.suite]) / "tokenizer")
    return sources, styles


def _check_apart(settings: StudioSettings) -> None:
    """Refuses albums and an output of which one lies in the other: the next run would take portraits for albums."""

    def place(url: str) -> str:
        if is_local(url):
            return os.path.join(os.path.realpath(local_path(url)), "")
        return url if "::" in url else Store(url).url.rstrip("/") + "/"  # into a chain such as an archive none writes

    albums, out = place(settings.albums), place(settings.out)
    if albums.startswith(out) or out.startswith(albums):
        raise SettingsError(
            f"out: got {settings.out!r}, and the albums are {settings.albums!r}; wanted two places of which neither"
            " lies in the other"
        )


def _warn_of_long(styles: list[Style], tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    places = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    for style in styles:
        tokens = len(tokenizer(style.words, add_special_tokens=False, verbose=False).input_ids)
        if tokens > places:
            print(
                f"warning: style {style.name!r}: its words are {tokens} tokens, of which the base reads the first"
                f" {places} at most; shorten `prompt` or `add_prompt_style`",
                file=sys.stderr,
            )


def cards_of(settings: StudioSettings) -> list[str]:
    """Ids of the models a job with these settings uses."""
    if settings.suite not in PERCEPTION_CARDS:
        raise SettingsError(
            f"suite {settings.suite!r} has no perception yet; {nearest(settings.suite, PERCEPTION_CARDS)}"
        )
    upscaler = UPSCALER_CARDS.get(settings.generation.upscale)
    return [*PERCEPTION_CARDS[settings.suite], SUITE_BASE[settings.suite], *([upscaler] if upscaler else [])]
