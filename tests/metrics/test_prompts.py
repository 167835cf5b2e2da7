import pytest

from studiolo.identities.captions import TRIGGERS, UNKNOWN_TRIGGER
from studiolo.metrics.prompts import KINDS, TAG_KINDS, agreement, attributes_of, kind_of
from studiolo.perception.tag import VOCABULARY


def test_every_tag_and_trigger_has_its_kind():
    assert {kind_of(word) for word in VOCABULARY} == set(TAG_KINDS)
    assert kind_of("warm film photo") is None
    for trigger in TRIGGERS.values():
        assert attributes_of(trigger, VOCABULARY).keys() == set(KINDS)
    assert attributes_of(UNKNOWN_TRIGGER, ["studio backdrop"]) == {}
    said = attributes_of("a girl, children", ["smile", "open mouth", "blurred background"])
    assert said == {
        "gender": {"female"},
        "age": {"child"},
        "expression": {"smile", "open mouth"},
        "background": {"blurred background"},
    }


def test_agreement_by_hand():
    asked = [{"hair": frozenset([f"{colour} hair"])} for colour in ("black", "black", "red", "grey")] + [{}]
    seen = [{"hair": frozenset(["black hair"])}, {"hair": frozenset(["red hair"])}, {"hair": frozenset(["red hair"])}]
    found = agreement(asked, [*seen, {}, {"hair": frozenset(["grey hair"])}])
    assert found.keys() == {"hair"}
    assert found["hair"].asked == 4
    assert found["hair"].share == 0.5
    assert found["hair"].silent == 0.25
    assert found["hair"].by_chance == pytest.approx((2 * 1 + 1 * 2) / 16)


def test_all_words_asked_for_must_show_and_others_may():
    both = {"expression": frozenset(["smile", "open mouth"])}
    smile = {"expression": frozenset(["smile"])}
    assert agreement([smile], [both])["expression"].share == 1
    assert agreement([both], [smile])["expression"].share == 0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        agreement([smile], [])
