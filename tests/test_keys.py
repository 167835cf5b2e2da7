import math
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import studiolo
from studiolo.keys import canonical_json, unit_key
from studiolo.settings import FaceLoraSettings, PerceptionSettings, SelectionSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BASE: dict[str, Any] = {
    "kind": "album",
    "inputs": ["a", "b"],
    "settings": {"selection": SelectionSettings()},
    "weights_sha256": {"yunet": "00"},
    "seed": 0,
}


@given(st.dictionaries(st.text(), JSON, min_size=2, max_size=4))
@settings(deadline=None, derandomize=True)
def test_canonical_json_does_not_depend_on_the_order_of_names(value: dict[str, Any]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_canonical_json_refuses_what_has_no_single_text() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": math.nan})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "identity"},
        {"inputs": ["a", "c"]},
        {"inputs": ["b", "a"]},
        {"inputs": ["ab"]},
        {"settings": {"selection": SelectionSettings(min_quality=0.3)}},
        {"settings": {"perception": PerceptionSettings()}},
        {"weights_sha256": {"yunet": "01"}},
        {"weights_sha256": {"yunet2": "00"}},
        {"seed": 1},
    ],
)
def test_everything_that_can_change_a_byte_changes_the_key(change: dict[str, Any]) -> None:
    assert unit_key(**{**BASE, **change}) != unit_key(**BASE)


def test_a_key_is_a_sha256_and_follows_the_library_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = unit_key(**BASE)
    assert len(before) == 64
    assert set(before) <= set(string.hexdigits)
    monkeypatch.setattr(studiolo, "__version__", "0.0.0")
    assert unit_key(**BASE) != before


@pytest.mark.parametrize(
    ("few", "many"),
    [
        (PerceptionSettings(actors=1, cpus_per_actor=0.5), PerceptionSettings(actors=8, cpus_per_actor=2)),
        (FaceLoraSettings(workers=(1, 1)), FaceLoraSettings(workers=(1, 8), cpus_per_worker=2)),
    ],
)
def test_how_the_work_is_spread_does_not_change_the_key(few: Any, many: Any) -> None:
    assert unit_key(**{**BASE, "settings": {"section": few}}) == unit_key(**{**BASE, "settings": {"section": many}})
