from pathlib import Path

import pytest

from studiolo.errors import SettingsError
from studiolo.settings import StudioSettings, require_path

PLACES = {"albums": "a", "out": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genration: {steps: 3}", "did you mean 'generation'"),
        ("generation: {stesp: 3}", "did you mean 'steps'"),
        ("generation: {upscale: 3}", "'generation.upscale': got 3.*1, 2 or 4"),
        ("styles: []", "'styles'.*at least one style"),
        ("styles: ' , '", "'styles'.*at least one style"),
        ("styles: [studio, plain, studio]", "'styles'.*each style once"),
        ("styles: studio, studio", "'styles'.*each style once"),
        ("albums: ''", "'albums'.*at least 1 character"),
        ("out: ''", "'out'.*at least 1 character"),
        ("face_lora: {resolution: 100}", "'face_lora.resolution': got 100.*multiple of 8"),
        ("face_lora: {schedule: cosin}", "'face_lora.schedule': got 'cosin'.*'cosine'"),
        ("face_lora: {steps: 10, warmup_steps: 11}", "'face_lora.warmup_steps': got 11; wanted at most the 10"),
        ("face_lora: {schedule: constant, warmup_steps: 5}", "'face_lora.warmup_steps': got 5.*'constant_with_warmup'"),
        ("- studio", "got a list"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, message: str):
    (tmp_path / "studio.yaml").write_text(text)
    places = {name: value for name, value in PLACES.items() if not text.startswith(name)}
    with pytest.raises(SettingsError, match=message):
        StudioSettings.load(tmp_path / "studio.yaml", places)


@pytest.mark.parametrize(
    "text", ["styles: studio,warm-film", "styles: studio, warm-film,", "styles: [studio, warm-film]"]
)
def test_styles_may_be_one_line(tmp_path: Path, text: str):
    (tmp_path / "studio.yaml").write_text(text)
    assert StudioSettings.load(tmp_path / "studio.yaml", PLACES).styles == ("studio", "warm-film")


def test_a_misspelt_settings_file_is_told_the_nearest(tmp_path: Path):
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "studio.yaml").write_text("")
    with pytest.raises(SettingsError, match=r"did you mean 'studio\.yaml'"):
        StudioSettings.load(tmp_path / "settings" / "stduio.yaml", PLACES)
    with pytest.raises(SettingsError, match="did you mean 'settings'"):
        StudioSettings.load(tmp_path / "setings" / "studio.yaml", PLACES)
    with pytest.raises(SettingsError, match="got a folder, wanted a YAML file"):
        StudioSettings.load(tmp_path / "settings", PLACES)


def test_a_path_may_be_a_link_but_not_the_wrong_kind(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path)
    require_path(tmp_path / "link", "data", "a folder", folder=True)
    require_path(tmp_path / "link" / "file", "data", "a file")
    with pytest.raises(SettingsError, match="got a file, wanted a folder"):
        require_path(tmp_path / "file", "data", "a folder", folder=True)
    with pytest.raises(SettingsError, match="did you mean 'file'"):
        require_path(tmp_path / "file" / "below", "data", "a folder", folder=True)


def test_a_folder_of_many_names_is_not_listed(tmp_path: Path):
    for number in range(40):
        (tmp_path / f"{number:04d}").write_bytes(b"")
    with pytest.raises(SettingsError, match="none of its 40 entries has a similar name"):
        require_path(tmp_path / "wholly-different", "data", "a file")
