"""Styles: the words, the optional style-LoRA and its weights that make a portrait look one way.

A style is one JSON file with FaceChain's fields (`name`, `img`, `model_id`, `revision`, `bin_file`,
`multiplier_style`, `multiplier_human`, `add_prompt_style`) and five of ours (`prompt`, `negative_prompt`,
`title`, `description`, `greyscale`). The file's name without `.json` is how the style is ordered, so FaceChain's
own files work unchanged. A folder of the user's own adds styles and, under the same file name, replaces ours.
"""

import json
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pydantic

from studiolo.errors import SettingsError, nearest
from studiolo.settings import Section, require_path
from studiolo.weights.cards import ModelCard, load_card
from studiolo.weights.fetch import pull

_NAME = re.compile(r"[\w()&+.-]{1,100}")


class Style(Section):
    """One style. Frozen; made by `load_style`."""

    name: str
    """How the style is ordered: its file's name without `.json`."""
    title: str
    """What people read; FaceChain's `name` when a file has no `title`."""
    description: str = ""
    """One sentence about the look."""
    prompt: str = ""
    """Words before `add_prompt_style`."""
    add_prompt_style: str = ""
    """Words of the style, FaceChain's field."""
    negative_prompt: str = ""
    """What to keep away from."""
    greyscale: bool = False
    """Whether colour is taken out of its portraits: a face-LoRA learned from colour photos leaves a tint."""
    img: str | None = None
    """Sample picture, relative to the style's file."""
    model_id: str | None = None
    """Where the style-LoRA is: a model card's id or a local folder (relative ones from the style's file)."""
    revision: str | None = None
    """Revision of `model_id`, for cards of other sources."""
    bin_file: str | None = None
    """The style-LoRA's file in it, `.safetensors`."""
    multiplier_style: float = pydantic.Field(1.0, ge=0, le=2)
    """The style-LoRA's own weight; `GenerationSettings.style_weight` multiplies it."""
    multiplier_human: float = pydantic.Field(1.0, ge=0, le=2)
    """Weight of the face-LoRA that suits this style; `GenerationSettings.face_weight` multiplies it."""
    folder: str | None = pydantic.Field(None, exclude=True)
    """Where the file lies; None for embedded styles. Not part of the style's key."""

    @property
    def words(self) -> str:
        """The style's part of the prompt."""
        return ", ".join(part for part in (self.prompt.strip(), self.add_prompt_style.strip()) if part)

    @property
    def has_lora(self) -> bool:
        """Whether a style-LoRA belongs to it."""
        return self.bin_file is not None


def load_style(name: str, folder: str | Path | None = None) -> Style:
    """The style called `name`, from `folder` (the user's own) or else the embedded ones.

    Raises `SettingsError` when there is none (with the nearest name) or its file does not fit.
    """
    files = _style_files(folder)
    if name not in files:
        raise SettingsError(f"no style is called {name!r}; {nearest(name, files)}")
    return _read(name, *files[name])


def all_styles(folder: str | Path | None = None) -> dict[str, Style]:
    """Every style by name, sorted; `SettingsError` as in `load_style`."""
    return {name: _read(name, *place) for name, place in sorted(_style_files(folder).items())}


def style_card(style: Style) -> ModelCard | None:
    """The card its style-LoRA comes from; None for a style without one, or with one in a folder of this disk.

    A `model_id` that is a folder is taken as such, anything else is a model card's id: `SettingsError` when there is
    none.
    """
    if style.bin_file is None or style.model_id is None or _own_folder(style.folder, style.model_id).is_dir():
        return None
    try:
        return load_card(style.model_id)
    except SettingsError as error:
        raise SettingsError(
            f"style {style.name!r}: got `model_id` {style.model_id!r}, no folder, and {error}"
        ) from None


def style_lora_path(style: Style) -> Path | None:
    """The style-LoRA's file on this disk, fetched when its card says from where; None for a style without
    one.

    Raises `SettingsError` when the file is not there, `WeightsError` when the card's files cannot be had.
    """
    if style.bin_file is None or style.model_id is None:
        return None
    card = style_card(style)
    folder = pull(card.id) if card else _own_folder(style.folder, style.model_id)
    path = folder / style.bin_file
    if not path.is_file():
        raise SettingsError(f"style {style.name!r}: no file {style.bin_file!r} in {folder}; correct `bin_file`")
    return path


def _own_folder(style_folder: str | None, model_id: str) -> Path:
    return Path(style_folder or ".") / Path(model_id).expanduser()


def _style_files(folder: str | Path | None) -> dict[str, tuple[Traversable, str | None]]:
    """File and own folder of every style, by name; the user's files win."""
    embedded = resources.files("studiolo.portraits") / "styles"
    files: dict[str, tuple[Traversable, str | None]] = {
        item.name.removesuffix(".json"): (item, None) for item in embedded.iterdir() if item.name.endswith(".json")
    }
    if folder is None:
        return files
    own = Path(folder).expanduser()
    require_path(own, "style folder", "a folder with NAME.json files", folder=True)
    files.update({path.stem: (path, str(own.absolute())) for path in own.glob("*.json")})
    return files


def _read(name: str, file: Traversable, folder: str | None) -> Style:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"style {name!r} ({file}): {error}; wanted a JSON object") from None
    if not isinstance(values, dict):
        raise SettingsError(f"style {name!r} ({file}): got {type(values).__name__}, wanted a JSON object")
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise SettingsError(f"style file {file}: got the name {name!r}, wanted letters, digits and ()&+.-_ only")
    return _check(name, {key: value for key, value in values.items() if value is not None}, folder)


def _check(name: str, values: dict[str, Any], folder: str | None) -> Style:
    """Style of a file's `values`; FaceChain's `name` is a title, ours comes from the file's name."""
    fields = set(Style.model_fields) - {"folder"}
    for key in values:
        if key not in fields:
            raise SettingsError(f"style {name!r}: no field is called {key!r}; {nearest(key, fields)}")
    title = values.pop("title", None) or values.pop("name", None) or name
    values.pop("name", None)
    try:
        style = Style(name=name, title=title, folder=folder, **values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise SettingsError(f"style {name!r}, {field}: got {first['input']!r}; {first['msg']}") from None
    if style.bin_file is not None and style.model_id is None:
        raise SettingsError(f"style {name!r}: `bin_file` without `model_id`; name the card or folder it is in")
    if style.bin_file is not None and not style.bin_file.endswith(".safetensors"):
        raise SettingsError(
            f"style {name!r}: got {style.bin_file!r}, wanted a .safetensors file; "
            "others can run code when they are opened"
        )
    return style
