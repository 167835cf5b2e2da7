from studiolo.portraits.prompts import portrait_prompt


def test_trigger_then_tags_then_style():
    prompt = portrait_prompt("a handsome man", ["short hair", "smile"], "studio backdrop, grey background")
    assert prompt == "a handsome man, short hair, smile, studio backdrop, grey background"


def test_phrases_appear_once_at_their_first_place():
    assert portrait_prompt("a boy, children", ["smile", "smile"], "smile, film") == "a boy, children, smile, film"


def test_empty_parts_leave_no_commas():
    assert portrait_prompt("a girl", [], "") == "a girl"
    assert portrait_prompt("", ["", " smile "], ", film ,") == "smile, film"


def test_the_style_is_kept_when_not_all_tags_fit():
    prompt = portrait_prompt("a girl", ["smile", "brown hair", "pale skin"], "film", lambda text: len(text) <= 31)
    assert prompt == "a girl, smile, brown hair, film"
    assert portrait_prompt("a girl", ["smile"], "film", lambda text: False) == "a girl, film"
