"""What the studio job refuses or says before any work, and what it measures at its end; no cluster."""

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs import publish as publishing
from jobs import studio_check, studio_job
from jobs.__main__ import app
from jobs.studio_check import check_request, check_templates, ordered
from studiolo.errors import LicenceError, SettingsError
from studiolo.generation.controlnets import controlnet_for, save_controlnets
from studiolo.generation.tiny import tiny_base
from studiolo.portraits.template_files import Templates
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store


@pytest.fixture
def albums(tmp_path: Path, weights: Path) -> Path:
    """One album of one file."""
    album = tmp_path / "albums" / "anna"
    album.mkdir(parents=True)
    (album / "photo.jpg").write_bytes(b"")
    return album.parent


@pytest.fixture
def own_styles(tmp_path: Path) -> Path:
    """A folder for the user's own styles."""
    folder = tmp_path / "styles"
    folder.mkdir()
    return folder


def wanted(albums: Path | str, out: Path | str, **more: object) -> StudioSettings:
    return StudioSettings.load(None, {"albums": str(albums), "out": str(out), **more})


def style(folder: Path, **values: object) -> dict[str, object]:
    """Settings that order the style of these values."""
    (folder / "mine.json").write_text(json.dumps(values))
    return {"styles": ["mine"], "style_folder": str(folder)}


def test_an_output_that_is_not_on_this_disk_needs_a_tracking_uri(albums, monkeypatch):
    with pytest.raises(SettingsError, match="give --tracking-uri"):
        check_request(wanted(albums, "memory://bucket/out"))
    assert Store("memory://bucket/out").list() == []
    taken: list[StudioSettings] = []
    monkeypatch.setattr(studio_job, "run", lambda settings: taken.append(settings) or 0)
    options = ["--albums", str(albums), "--out", "memory://bucket/out", "--tracking-uri", "http://localhost:5000"]
    assert CliRunner().invoke(app, ["studio", *options]).exit_code == 0
    assert len(check_request(taken[0])[0]) == 1


@pytest.mark.parametrize("out", [".", "out", "anna", "..", "../link/out", "file://{albums}/out", "{albums}/../albums/"])
def test_albums_and_output_lie_apart(albums, out):
    (albums.parent / "link").symlink_to(albums)
    place = out.format(albums=albums) if "{" in out else str(albums / out)
    with pytest.raises(SettingsError, match="neither lies in the other"):
        check_request(wanted(albums, place))


def test_remote_places_are_compared_too(albums):
    for out in ("memory://bucket/albums/out", "memory:///bucket/albums/", "memory://bucket"):
        with pytest.raises(SettingsError, match="neither lies in the other"):
            check_request(wanted("memory://bucket/albums", out, tracking_uri="http://localhost:5000"))


def test_a_name_that_begins_like_the_albums_is_another_place(albums):
    sources, *_ = check_request(wanted(albums, f"{albums}-out"))
    assert [source.album_id for source in sources] == ["anna"]


def test_style_loras_are_looked_for(albums, own_styles, tmp_path):
    (own_styles / "loras").mkdir()
    for model_id, message in (("laros", "no folder, and no model card"), ("loras", "no file 'snow.safetensors'")):
        chosen = style(own_styles, model_id=model_id, bin_file="snow.safetensors")
        with pytest.raises(SettingsError, match=message):
            check_request(wanted(albums, tmp_path / "out", **chosen))
    assert not (tmp_path / "out").exists()


def test_the_licence_of_a_style_lora_counts(albums, own_styles, tmp_path):
    chosen = style(own_styles, model_id="facechain-style-zjz", bin_file="zjz.safetensors")
    with pytest.raises(LicenceError, match="facechain-style-zjz"):
        check_request(wanted(albums, tmp_path / "out", commercial=True, **chosen))


def test_a_style_of_too_many_words_is_named(albums, own_styles, tmp_path, capsys):
    check_request(wanted(albums, tmp_path / "out", **style(own_styles, prompt=", ".join(["film"] * 7))))
    assert capsys.readouterr().err == ""
    check_request(wanted(albums, tmp_path / "out", **style(own_styles, prompt=", ".join(["film"] * 8))))
    assert "style 'mine': its words are 31 tokens, of which the base reads the first 30" in capsys.readouterr().err


@pytest.fixture
def in_templates(albums, tmp_path, people) -> dict[str, object]:
    """Settings that order a picture in a template, whose folder holds another that is none."""
    (tmp_path / "templates").mkdir()
    shutil.copy(people / "P001" / "portrait.jpg", tmp_path / "templates" / "wedding.jpg")
    Image.new("RGB", (200, 200)).save(tmp_path / "templates" / "night.png")
    (tmp_path / "orders.yaml").write_text("albums: [{album_id: anna, styles: none, edits: {wedding: 2}}]")
    return {"orders": str(tmp_path / "orders.yaml"), "templates": str(tmp_path / "templates")}


def test_edits_need_their_pictures_and_networks(albums, tmp_path, in_templates):
    settings = wanted(albums, tmp_path / "out", **in_templates)
    for setting in ("templates", "controlnets"):
        with pytest.raises(SettingsError, match=rf"edits are ordered \('wedding'\) and `{setting}` is not set"):
            check_request(settings.model_copy(update={setting: None}))
    request = ordered(wanted(albums, tmp_path / "out", **in_templates))
    assert [(style.name, style.title) for style in request.styles] == [("wedding", "In wedding")]
    assert request.orders["anna"].row({style.name: style for style in request.styles}, request.templates)["styles"] == [
        {
            "style": "wedding",
            "count": 2,
            "title": "In wedding",
            "description": "Drawn into the picture wedding.jpg.",
            "template": True,
        }
    ]
    (tmp_path / "orders.yaml").write_text("albums: [{album_id: anna, edits: weding}]")
    with pytest.raises(SettingsError, match="no picture is called 'weding'; did you mean 'wedding'"):
        check_request(wanted(albums, tmp_path / "out", **in_templates))


def test_controlnets_of_another_base_are_refused_before_any_work(
    albums, tmp_path, in_templates, monkeypatch: pytest.MonkeyPatch
):
    settings = wanted(albums, tmp_path / "out", **in_templates)
    check_request(settings)
    base = tiny_base()
    save_controlnets({name: controlnet_for(base.unet) for name in ("edges", "pose")}, tmp_path / "others")
    own = studio_check.pull
    monkeypatch.setattr(
        studio_check, "pull", lambda card: tmp_path / "others" if card == "embedded-controlnets" else own(card)
    )
    with pytest.raises(SettingsError, match="of a base with block_out_channels"):
        check_request(settings)


def test_a_picture_in_which_nobody_can_be_drawn_is_refused_before_any_work(albums, tmp_path, in_templates):
    settings, pictures = wanted(albums, tmp_path / "out"), Templates(str(in_templates["templates"]))
    check_templates(settings, {"wedding": pictures.ordered("wedding")})
    for name, says in (
        ("night", r"template 'night': We found no face in this picture\.$"),
        ("wedding@0.01x0.01", r"template 'wedding@0.01x0.01': .* \(none at \(0.01, 0.01\)\)"),
    ):
        with pytest.raises(SettingsError, match=says):
            check_templates(settings, {name: pictures.ordered(name)})


def test_the_summary_measures_the_gallery_too(tmp_path, monkeypatch):
    seconds = {"publish": 0.0}

    def write_gallery(*_: object) -> str:
        assert not (tmp_path / "summary.json").exists()
        seconds["publish"] += 7.5
        return ""

    monkeypatch.setattr(publishing, "write_gallery", write_gallery)
    figures = {"seconds_by_stage": seconds, "peak_rss_gib": 1.0, "versions": {}}
    result = publishing.publish(Store(tmp_path), [], [], [], [], [], [], lambda: figures)
    assert result["seconds_by_stage"] == {"publish": 7.5}
    assert json.loads((tmp_path / "summary.json").read_text()) == result


def test_the_report_names_who_failed(capsys):
    rows = [{"identity_id": f"N{number}", "stage": "train", "reason": "diverged"} for number in range(13)]
    summary = defaultdict(int, identities=13, identities_failed=13)
    studio_job._report(summary, rows, "gallery/index.html")
    said = capsys.readouterr()
    assert said.out == "gallery/index.html\n"
    assert "failed: N9 (train: diverged)\nfailed: 3 more" in said.err
