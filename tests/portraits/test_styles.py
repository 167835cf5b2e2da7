import json
from pathlib import Path

import pytest

from studiolo.errors import SettingsError
from studiolo.portraits.styles import all_styles, load_style, style_card, style_lora_path
from studiolo.training.faces import BACKDROPS
from studiolo.training.looks import LOOKS

FACECHAIN_FILE = {
    "name": "白雪公主(Snow White)",
    "img": "./style_image/Snow_white.jpg",
    "model_id": "loras",
    "revision": "v1.0.0",
    "bin_file": "blancanievesV2.safetensors",
    "multiplier_style": 0.3,
    "multiplier_human": 0.95,
    "add_prompt_style": "snow white, princess, blue skirt",
}


def put(folder: Path, name: str, values: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")


def test_embedded_styles_add_their_words():
    words = {name: style.words for name, style in all_styles().items()}
    assert words.pop("plain") == ""
    looks = {text for text in words.values() if text in LOOKS}
    assert looks == set(LOOKS)
    backdrops = {f"studio backdrop, {name} background" for name in BACKDROPS}
    assert set(words.values()) - looks <= backdrops
    assert len(words) == len(set(words.values())) == 12


def test_embedded_styles_are_titled_and_need_no_file():
    for name, style in all_styles().items():
        assert style.name == name
        assert style.title
        assert style.description
        assert not style.has_lora
        assert style_lora_path(style) is None


def test_misspelt_style_names_the_nearest():
    with pytest.raises(SettingsError, match=r"'stduio'.*did you mean 'studio'"):
        load_style("stduio")


def test_facechain_file_loads_unchanged(tmp_path: Path):
    put(tmp_path, "Snow_white", FACECHAIN_FILE)
    style = load_style("Snow_white", tmp_path)
    assert (style.title, style.multiplier_style, style.multiplier_human) == (
        "白雪公主(Snow White)",
        0.3,
        0.95,
    )
    assert style.words == "snow white, princess, blue skirt"


def test_own_folder_adds_and_replaces(tmp_path: Path):
    put(tmp_path, "studio", {"add_prompt_style": "blue backdrop"})
    assert load_style("studio", tmp_path).words == "blue backdrop"
    assert load_style("plain", tmp_path) == load_style("plain")
    assert load_style("studio").words == "studio backdrop, grey background"


def test_lora_lies_beside_the_style_file(tmp_path: Path):
    put(tmp_path, "snow", FACECHAIN_FILE)
    (tmp_path / "loras").mkdir()
    style = load_style("snow", tmp_path)
    assert style_card(style) is None
    with pytest.raises(SettingsError, match="blancanievesV2"):
        style_lora_path(style)
    (tmp_path / "loras" / "blancanievesV2.safetensors").write_bytes(b"")
    assert style_lora_path(style) == tmp_path / "loras" / "blancanievesV2.safetensors"


def test_place_of_a_style_is_not_part_of_what_it_is(tmp_path: Path):
    put(tmp_path, "studio", {"title": "Mine"})
    assert "folder" not in load_style("studio", tmp_path).model_dump()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"add_promt_style": "x"}, "did you mean 'add_prompt_style'"),
        ({"multiplier_human": 7}, "multiplier_human: got 7"),
        ({"bin_file": "x.safetensors"}, "without `model_id`"),
        ({"bin_file": "x.ckpt", "model_id": "y"}, "wanted a .safetensors file"),
        (["studio"], "wanted a JSON object"),
    ],
)
def test_file_that_does_not_fit_says_what(tmp_path: Path, values: object, message: str):
    put(tmp_path, "mine", values)
    with pytest.raises(SettingsError, match=message):
        load_style("mine", tmp_path)


def test_damaged_file_and_missing_folder_are_settings_errors(tmp_path: Path):
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(SettingsError, match="mine"):
        all_styles(tmp_path)
    (tmp_path / "styles").mkdir()
    with pytest.raises(SettingsError, match=r"nothing is there.*did you mean 'styles'"):
        load_style("studio", tmp_path / "stlyes")


def test_a_lora_out_of_a_card_is_known_by_its_card(tmp_path: Path):
    put(tmp_path, "snow", {**FACECHAIN_FILE, "model_id": "facechain-style-zjz"})
    card = style_card(load_style("snow", tmp_path))
    assert card is not None
    assert card.id == "facechain-style-zjz"
    put(tmp_path, "snow", {**FACECHAIN_FILE, "model_id": "facechain-style-zjj"})
    for look in (style_card, style_lora_path):
        with pytest.raises(SettingsError, match=r"style 'snow'.*did you mean 'facechain-style-zjz'"):
            look(load_style("snow", tmp_path))


def test_of_the_embedded_styles_only_black_and_white_takes_the_colour_out():
    assert [name for name, style in all_styles().items() if style.greyscale] == ["black-and-white"]
