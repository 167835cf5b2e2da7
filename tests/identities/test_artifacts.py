import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.identities.artifacts import (
    album_of,
    crop_path,
    identity_folder,
    identity_name,
    identity_order,
    lora_folder,
    lora_path,
    mask_path,
    part_of_album,
    safe_segment,
)

NAMES = st.text(st.characters(), max_size=120) | st.sampled_from(
    [
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "con",
        "CON",
        "nul.txt",
        "a.",
        "-rf",
        " a",
        "a\n",
        "a\0",
        "Zoë",
        "Zoe\u0308",
        "zoe",
    ]
)


@given(name=NAMES)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_every_name_becomes_one_safe_segment(name: str) -> None:
    segment = safe_segment(name)
    assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", segment)
    assert len(segment) <= 80
    assert not segment.endswith(".")
    assert segment.split(".")[0] not in ("con", "prn", "aux", "nul")
    assert safe_segment(segment) == segment or re.search(r"-[0-9a-f]{20}$", segment)


@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=12))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_two_names_never_share_a_segment(names: list[str]) -> None:
    assert len({safe_segment(name).lower() for name in names}) == len(names)


@given(albums=st.lists(NAMES.filter(bool), unique=True, min_size=2, max_size=6))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_every_person_has_an_album_and_a_place_of_its_own(albums: list[str]) -> None:
    albums = [name for name in albums if album_of(name) == name]
    people = {identity_name(album, person): album for album in albums for person in range(12)}
    assert len(people) == 12 * len(albums)
    for name, album in people.items():
        assert album_of(name) == album
        assert album + part_of_album(name) == name
        assert f"{identity_folder(name)}/".startswith(f"{identity_folder(album)}/")
        assert album_of(safe_segment(album)) == safe_segment(album)
    assert len({identity_folder(name) for name in people}) == len(people)
    assert len({safe_segment(name) for name in people}) == len(people)


def test_the_owner_is_called_as_the_album_and_the_others_after_it() -> None:
    assert [identity_name("anna", person) for person in range(3)] == ["anna", "anna/other-1", "anna/other-2"]
    assert identity_folder("Zoë/other-2") == f"identities/{safe_segment('Zoë')}/other-2"
    assert [album_of(name) for name in ("a/other-0", "a/other-01", "/other-1", "other-1")] == [
        *("a/other-0", "a/other-01", "/other-1", "other-1")
    ]


def test_a_name_cannot_be_chosen_to_hit_another() -> None:
    victim = safe_segment("Anna")
    assert safe_segment(victim) != victim


@pytest.mark.parametrize("name", ["anna", "customer_0017", "2024-05-17.a", "_x"])
def test_plain_names_stay(name: str) -> None:
    assert safe_segment(name) == name


def test_readable_parts_remain() -> None:
    assert re.fullmatch(r"zoe-muller-[0-9a-f]{20}", safe_segment("Zoë Müller"))
    assert re.fullmatch(r"x-[0-9a-f]{20}", safe_segment("日本"))


def test_where_things_lie() -> None:
    assert lora_path("anna") == "identities/anna/lora/pytorch_lora_weights.safetensors"
    assert lora_path("../x").startswith(lora_folder("../x") + "/")
    assert ".." not in lora_path("../x")
    versions = {lora_path("anna"), *(lora_path("anna", digit * 64) for digit in "01")}
    assert len(versions) == 3
    assert all(path.startswith(lora_folder("anna") + "/") for path in versions)
    assert crop_path("anna", "0" * 64) != mask_path("anna", "0" * 64)
    assert crop_path("anna", "0" * 64) != crop_path("anna", "1" * 64)


def test_people_sort_as_they_are_counted():
    people = [identity_name(album, person) for album in ("anna", "anna b", "anna/other", "b-7") for person in range(12)]
    assert sorted(reversed(people), key=identity_order) == people
