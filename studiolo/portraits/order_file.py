"""The order file: what each customer ordered, one entry an album, as YAML, CSV or JSONL.

    default: none                               # albums not named: nothing; absent: the settings' styles
    albums:
      - album_id: anna
        styles: {studio: 3, warm-film: 1}       # or a list, or one line: studio:3, warm-film
        edits: {wedding: 1}                     # in the picture wedding.jpg of the settings' `templates`
        prints: [4x5, 8x10@240]
        people: 2                               # the owner and the next person whom the album shows most
        delete_after: 2027-01-31

A CSV or JSONL file holds the same fields as columns, `styles`, `edits` and `prints` as one line; its row of the album
`*` is the default. `styles: none` orders no style, and an entry without edits then nothing. A style or template without
a number gets the entry's `per_style`, else the settings'.
"""

import csv
import datetime
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pydantic
import yaml

from studiolo.errors import SettingsError, nearest
from studiolo.portraits.prints import PrintSize
from studiolo.portraits.styles import Style
from studiolo.settings import Section, StudioSettings

EVERYONE = "*"
"""Stands for the albums that are not named, in a CSV or JSONL file."""
NOTHING = "none"
"""Ordered instead of styles: nothing."""

MOST_PEOPLE = 50
"""More people of one album are taken for a slip."""

_SEPARATORS = re.compile(r"[\s,;]+")


class OrderEntry(Section):
    """What the file says of one album."""

    album_id: str = pydantic.Field(min_length=1)
    """The album's name, as text."""
    styles: dict[str, int | None] | None = None
    """Portraits wanted by style; without a number `per_style`. Absent: the settings' styles."""
    edits: dict[str, int | None] = pydantic.Field(default_factory=dict)
    """Pictures wanted by template, see `studiolo.portraits.template_files`; without a number `per_style`."""
    per_style: int | None = pydantic.Field(None, ge=1)
    """Portraits wanted in a style or template without a number of its own; the settings' when absent."""
    prints: tuple[PrintSize, ...] = ()
    """Print files made of every accepted portrait."""
    people: int = pydantic.Field(1, ge=1, le=MOST_PEOPLE)
    """People wanted: the album's owner, and the next ones whom it shows most. Each gets all of the order."""
    delete_after: datetime.date | None = None
    """Last day on which anything is kept; the settings' `retention_days` decide when absent."""

    @pydantic.field_validator("styles", "edits", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [] if value.strip() == NOTHING else [part for part in _SEPARATORS.split(value) if part]
        if not isinstance(value, list):
            return value
        pairs = [str(part).partition(":")[::2] for part in value]
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("wanted each name once, with its number: studio:3")
        return {name: number or None for name, number in pairs}

    @pydantic.field_validator("styles", "edits")
    @classmethod
    def _at_least_one(cls, value: dict[str, int | None] | None) -> dict[str, int | None] | None:
        if any(number is not None and number < 1 for number in (value or {}).values()):
            raise ValueError("wanted at least 1 portrait in each; leave out what is not ordered")
        return value

    @pydantic.field_validator("prints", mode="before")
    @classmethod
    def _prints(cls, value: Any) -> Any:
        parts = [part for part in _SEPARATORS.split(value) if part] if isinstance(value, str) else value
        return [PrintSize.parse(part) if isinstance(part, str) else part for part in parts]

    @pydantic.field_validator("prints")
    @classmethod
    def _each_once(cls, value: tuple[PrintSize, ...]) -> tuple[PrintSize, ...]:
        if len({size.name for size in value}) < len(value):
            raise ValueError("wanted each print once")
        return value


class AlbumOrder(Section):
    """What is made of one album, nothing left open."""

    album_id: str
    """Whose."""
    styles: dict[str, int]
    """Portraits wanted of each person, by style; those in templates by the template's name, behind the others."""
    prints: tuple[PrintSize, ...] = ()
    """Print files made of every accepted portrait."""
    people: int = 1
    """People wanted, the owner first."""
    delete_after: datetime.date | None = None
    """Last day on which anything is kept, as ordered."""

    def row(self, styles: Mapping[str, Style], templates: Collection[str] = ()) -> dict[str, Any]:
        """This order as a row of `ORDERED_SCHEMA`; `styles` holds each one ordered, and what stands for `templates`."""
        return {
            "album_id": self.album_id,
            "styles": [
                {
                    "style": name,
                    "count": count,
                    "title": styles[name].title,
                    "description": styles[name].description,
                    "template": name in templates,
                }
                for name, count in self.styles.items()
            ],
            "prints": [size.name for size in self.prints],
            "people": self.people,
        }


_ORDERED_STYLE = pa.struct(
    [
        ("style", pa.string()),
        ("count", pa.int32()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("template", pa.bool_()),  # it is a picture in which people are drawn
    ]
)

ORDERED_SCHEMA = pa.schema(
    [
        ("album_id", pa.string()),
        ("styles", pa.list_(_ORDERED_STYLE)),
        ("prints", pa.list_(pa.string())),  # names of `PrintSize`
        ("people", pa.int32()),
    ]
)
"""`orders.parquet`: one row an album of the job."""


def wanted_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Portraits ordered of each person, by album and style, from rows of `ORDERED_SCHEMA`."""
    return {row["album_id"]: {item["style"]: item["count"] for item in row["styles"]} for row in rows}


def styles_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Style]:
    """The styles ordered in rows of `ORDERED_SCHEMA`, by name, with the words that people read of them."""
    items = {item["style"]: item for row in rows for item in row["styles"]}
    return {name: Style(name=name, title=it["title"], description=it["description"]) for name, it in items.items()}


def read_order_file(url: str, read: Callable[[], bytes]) -> tuple[OrderEntry | None, list[OrderEntry]]:
    """The default entry (None when the file has none) and the albums', in the file's order.

    `read` gives the bytes, `url` decides the format. Raises `SettingsError`: another format, a field that does not
    exist (with the nearest) or does not fit, an album named twice.
    """
    default, rows = _parse(url, read())
    entries = [_entry(f"order file {url!r}, entry {number}", row) for number, row in enumerate(rows, 1)]
    if default is not None:
        entries.append(_entry(f"order file {url!r}, default", {"album_id": EVERYONE, **default}))
    seen: set[str] = set()
    for entry in entries:
        if entry.album_id in seen:
            raise SettingsError(f"order file {url!r}: album {entry.album_id!r} is ordered twice; make it one entry")
        seen.add(entry.album_id)
    return (
        next((entry for entry in entries if entry.album_id == EVERYONE), None),
        [entry for entry in entries if entry.album_id != EVERYONE],
    )


def resolve_orders(
    albums: Sequence[str],
    settings: StudioSettings,
    known_styles: Collection[str],
    default: OrderEntry | None = None,
    entries: Iterable[OrderEntry] = (),
) -> dict[str, AlbumOrder]:
    """What is made of each of `albums`, by album and in their order; albums of which nothing is ordered are left out.

    Raises `SettingsError` for an entry whose album or style does not exist, with the nearest name, and for a template
    that is called as a style is; whether a template exists is not looked at.
    """
    named = {entry.album_id: entry for entry in entries}
    for entry in [*named.values(), *([default] if default else [])]:
        if entry is not default and entry.album_id not in albums:
            raise SettingsError(
                f"order file: no album of {settings.albums!r} is called {entry.album_id!r};"
                f" {_nearest(entry.album_id, albums)}"
            )
        for style in entry.styles or {}:
            if style not in known_styles:
                hint = nearest(style, known_styles)
                raise SettingsError(f"order file, album {entry.album_id!r}: no style is called {style!r}; {hint}")
        for name in {*known_styles}.intersection(entry.edits):
            raise SettingsError(
                f"order file, album {entry.album_id!r}: {name!r} is a style; rename the template's file"
            )
    orders = {album: _order(album, named.get(album, default), settings) for album in albums}
    return {album: order for album, order in orders.items() if order.styles}


def _order(album: str, entry: OrderEntry | None, settings: StudioSettings) -> AlbumOrder:
    entry = entry or OrderEntry(album_id=album)
    styles = dict.fromkeys(settings.styles) if entry.styles is None else entry.styles
    count = entry.per_style or settings.per_style
    return AlbumOrder(
        album_id=album,
        styles={name: number or count for name, number in {**styles, **entry.edits}.items()},
        prints=entry.prints,
        people=entry.people,
        delete_after=entry.delete_after,
    )


def _nearest(name: str, names: Collection[str]) -> str:
    hint = nearest(name, names)
    return hint if "did you mean" in hint or len(names) <= 10 else f"there are {len(names)} others"


def _parse(url: str, content: bytes) -> tuple[dict[str, Any] | None, list[Any]]:
    """The YAML file's default and the entries, as they stand in the file."""
    name = url.partition("::")[0].lower()
    try:
        text = content.decode("utf-8-sig")
        if name.endswith((".yaml", ".yml")):
            return _from_yaml(url, yaml.load(text, _OnceLoader))
        if name.endswith(".csv"):
            return None, [_filled(row) for row in csv.DictReader(io.StringIO(text), strict=True)]
        if name.endswith((".jsonl", ".ndjson")):
            return None, [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, yaml.YAMLError, csv.Error) as error:
        raise SettingsError(f"order file {url!r} cannot be read: {error}") from None
    except RecursionError:
        raise SettingsError(f"order file {url!r} cannot be read: it is nested too deeply") from None
    raise SettingsError(f"order file {url!r}: wanted .yaml, .csv or .jsonl")


def _filled(row: dict[Any, Any]) -> dict[str, Any]:
    """A CSV row without its empty cells; cells beyond the header stand under None."""
    if None in row:
        raise csv.Error(f"the row of album {row.get('album_id')!r} has more cells than the header; quote commas")
    return {name.strip(): value for name, value in row.items() if value and value.strip()}


def _from_yaml(url: str, values: Any) -> tuple[dict[str, Any] | None, list[Any]]:
    if not isinstance(values, dict) or not isinstance(values.get("albums", []), list):
        raise SettingsError(f"order file {url!r}: wanted `albums:` with a list of entries, and maybe `default:`")
    for name in values:
        if name not in ("albums", "default"):
            raise SettingsError(
                f"order file {url!r}: no part is called {name!r}; {nearest(str(name), ('albums', 'default'))}"
            )
    default = values.get("default")
    if default is not None and not isinstance(default, dict):
        default = {"styles": default}
    return default, values.get("albums", [])


def _entry(place: str, row: Any) -> OrderEntry:
    if not isinstance(row, dict):
        raise SettingsError(f"{place}: got {row!r}, wanted fields such as `album_id:`")
    try:
        return OrderEntry.model_validate({str(name): value for name, value in row.items()})
    except pydantic.ValidationError as error:
        raise SettingsError("\n".join(f"{place}: {_explain(row, item)}" for item in error.errors())) from None


def _explain(row: dict[str, Any], item: Any) -> str:
    name = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        return f"no field is called {name!r}; {nearest(name, OrderEntry.model_fields)}"
    if item["type"] == "missing":
        return f"{name} is missing"
    hint = "; write it in quotes" if name == "album_id" else ""
    message = item["msg"].removeprefix("Value error, ")
    return f"{name} of album {row.get('album_id')!r}: got {item['input']!r}; {message}{hint}"


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a name may stand once only: of two numbers for one style the first would be lost.

    There are no aliases: a few lines of them unfold to more than fits into memory.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node; `yaml.YAMLError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken; write it out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping of `node`; `yaml.YAMLError` for a name that stands twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
