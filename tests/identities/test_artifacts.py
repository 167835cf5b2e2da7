import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.identities.artifacts import crop_path, lora_folder, lora_path, mask_path, safe_segment

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
    assert crop_path("anna", "0" * 64) != mask_path("anna", "0" * 64)
    assert crop_path("anna", "0" * 64) != crop_path("anna", "1" * 64)
