"""What can be wrong with a request to the studio job, found before any work."""

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from studiolo.albums.records import Reason
from studiolo.albums.sources import AlbumSource, is_local, list_albums, local_path, read_bytes
from studiolo.errors import PhotoError, SettingsError, nearest
from studiolo.generation.base import load_tokenizer
from studiolo.generation.controlnets import load_controlnets, require_fitting
from studiolo.perception.suite import PERCEPTION_CARDS, open_suite
from studiolo.portraits.approvals import APPROVALS, Approvals
from studiolo.portraits.edit_templates import check_template
from studiolo.portraits.order_file import AlbumOrder, read_order_file, resolve_orders
from studiolo.portraits.styles import Style, all_styles, load_style, style_card, style_lora_path
from studiolo.portraits.template_files import OrderedTemplate, Templates, read_template
from studiolo.portraits.upscaling import CARDS as UPSCALER_CARDS
from studiolo.settings import StudioSettings, require_path
from studiolo.storage import retention
from studiolo.storage.places import overlap
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from studiolo.weights.cards import SUITE_BASE, load_card, require_commercial, suite
from studiolo.weights.fetch import pull


class Request(NamedTuple):
    """What is to be done."""

    sources: list[AlbumSource]
    """The albums of which something is ordered, with the number of people wanted."""
    styles: list[Style]
    """Every style that is ordered, and what stands for each template in the place of one."""
    orders: dict[str, AlbumOrder]
    """What is ordered, by album."""
    templates: dict[str, OrderedTemplate]
    """Every template that is ordered, by what it is ordered by."""


def check_request(settings: StudioSettings) -> Request:
    """What can be wrong with a request, before any work: orders, suite, licences, places, weights, approvals."""
    for name in settings.styles:
        load_style(name, settings.style_folder)
    _check_apart(settings)
    request = ordered(settings)
    suite(settings.suite)  # a misspelt suite is refused by name
    cards = [load_card(card_id) for card_id in cards_of(settings, edits=bool(request.templates))]
    if settings.commercial:
        require_commercial([*cards, *filter(None, map(style_card, request.styles))])
    MlflowTracker.beside(Store(settings.out), settings.tracking_uri)
    for card in cards:
        pull(card.id)
    for style in request.styles:
        style_lora_path(style)
    if request.templates:
        _check_controlnets(settings)
        check_templates(settings, request.templates)
    _warn_of_long(request.styles, pull(SUITE_BASE[settings.suite]) / "tokenizer")
    read_approvals(Store(settings.out))
    return request


def read_approvals(store: Store) -> Approvals:
    """The studio's decisions so far; `SettingsError` for a file that does not fit."""
    return Approvals.read(store.read_bytes(APPROVALS)) if store.exists(APPROVALS) else Approvals()


def ordered(settings: StudioSettings) -> Request:
    """The albums of which something is ordered and may still be kept, with what is ordered; one at least."""
    sources, edits = list_albums(settings.albums), set[str]()
    albums = [source.album_id for source in sources]
    if settings.orders is None:
        orders = resolve_orders(albums, settings, settings.styles)
    else:
        default, entries = read_order_file(settings.orders, partial(_read_order_file, settings.orders))
        orders = resolve_orders(albums, settings, all_styles(settings.style_folder), default, entries)
        edits = {name for entry in [*entries, *([default] if default else [])] for name in entry.edits}
    dates = {album: order.delete_after for album, order in orders.items()}
    shut = retention.closed(Store(settings.out), dates, settings.retention_days, datetime.date.today())
    for album, why in shut.items():
        print(f"left out: {album} ({why})", file=sys.stderr)
    orders = {album: order for album, order in orders.items() if album not in shut}
    if not orders:
        raise SettingsError(
            f"albums {settings.albums!r}: of {len(albums)} albums none is ordered"
            f"{f', {len(shut)} are left out because of their dates' if shut else ''}; wanted at least one"
        )
    names = dict.fromkeys(style for order in orders.values() for style in order.styles)
    templates = _templates(settings, [name for name in names if name in edits])
    styles = [templates[n].style if n in templates else load_style(n, settings.style_folder) for n in names]
    wanted = [source for source in sources if source.album_id in orders]
    sources = [replace(source, people=orders[source.album_id].people) for source in wanted]
    return Request(sources, styles, orders, templates)


def _templates(settings: StudioSettings, names: Sequence[str]) -> dict[str, OrderedTemplate]:
    """The templates that are ordered, each one found."""
    if not names:
        return {}
    for setting in ("templates", "controlnets"):
        if getattr(settings, setting) is None:
            raise SettingsError(f"order file: edits are ordered ({names[0]!r}) and `{setting}` is not set")
    found = Templates(str(settings.templates))
    return {name: found.ordered(name) for name in names}


def _read_order_file(url: str) -> bytes:
    if is_local(url):
        require_path(Path(local_path(url)), "order file", "a YAML, CSV or JSONL file")
    try:
        return read_bytes(url)
    except PhotoError as error:
        raise SettingsError(f"order file {url!r} cannot be read: {error.detail}") from None


def _check_apart(settings: StudioSettings) -> None:
    """Refuses albums and an output of which one lies in the other: the next run would take portraits for albums."""

    if overlap(settings.albums, settings.out):
        raise SettingsError(
            f"out: got {settings.out!r}, and the albums are {settings.albums!r}; wanted two places of which neither"
            " lies in the other"
        )


def _check_controlnets(settings: StudioSettings) -> None:
    """Refuses those of another base."""
    config = (pull(SUITE_BASE[settings.suite]) / "unet" / "config.json").read_bytes()
    require_fitting(load_controlnets(pull(str(settings.controlnets))), json.loads(config))


def check_templates(settings: StudioSettings, templates: Mapping[str, OrderedTemplate]) -> None:
    """Refuses pictures in which nobody can be drawn, before anybody is learned for them."""
    models, unsafe_above = open_suite(settings.suite), settings.selection.unsafe_above
    seeing = settings.perception.of_templates(settings.template_side_px)
    for name, template in templates.items():
        try:
            rgb_u8 = read_template(template.uri, template.sha256, seeing)
            check_template(rgb_u8, models, seeing, unsafe_above, template.face_xy)
        except PhotoError as error:
            detail = error.detail.removeprefix("template").removeprefix(": ")
            sentence = f"{Reason(error.reason).sentence()}{detail and f' ({detail})'}"
            raise SettingsError(f"template {name!r}: {sentence}") from None


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


def cards_of(settings: StudioSettings, edits: bool = False) -> list[str]:
    """Ids of the models a job with these settings uses, with those for edits where there are any."""
    if settings.suite not in PERCEPTION_CARDS:
        raise SettingsError(
            f"suite {settings.suite!r} has no perception yet; {nearest(settings.suite, PERCEPTION_CARDS)}"
        )
    upscaler = UPSCALER_CARDS.get(settings.generation.upscale)
    networks = settings.controlnets if edits else None
    return [*PERCEPTION_CARDS[settings.suite], SUITE_BASE[settings.suite], *filter(None, (upscaler, networks))]
