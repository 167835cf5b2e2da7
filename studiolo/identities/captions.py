"""Trigger phrase and captions of an identity (FaceChain, section 2.1.2 and Table 1).

The paper keeps the tags that belong to the image (expression, jewellery, background) and removes those that
belong to the person (eyes, lips, ears ...), so that the LoRA learns these without a word for them. Its rules
are kept to the letter, also where they are blunt: "closed eyes" contains "eye" and goes, "eyeglasses" goes,
"eyewear" stays.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

CHILD_BELOW_YEARS = 20.0
MATURE_ABOVE_YEARS = 40.0

TRIGGERS: dict[tuple[str, str], str] = {
    ("male", "child"): "a boy, children",
    ("female", "child"): "a girl, children",
    ("male", "adult"): "a handsome man",
    ("female", "adult"): "a beautiful woman",
    ("male", "mature"): "a mature man",
    ("female", "mature"): "a mature woman",
}
"""Table 1: (gender, age) -> trigger."""

UNKNOWN_TRIGGER = "a person"
"""Not in the table: the trigger of an album whose gender or age no photo tells. Unknown is never guessed."""

_REMOVED_TAGS = frozenset(("1girl", "1boy", "ear", "ears", "head", "face", "lips", "mouth", "3d", "asian", "teeth"))
_REMOVED_ENDINGS = ("_man", "_woman", "_male", "_female", "_lips")
_REMOVED_PARTS = ("nose", "body")
_COMMON_PARTS = ("hair", "face", "mouth", "skin", "smile")


def age_group(age_years: float) -> str:
    """`child`, `adult` or `mature`: 0~20, 20~40 and >40 of Table 1.

    The table prints 20 in two rows; we read it as adult (FairFace's own classes end at 19). 40 is not above
    40.
    """
    if age_years < CHILD_BELOW_YEARS:
        return "child"
    return "mature" if age_years > MATURE_ABOVE_YEARS else "adult"


def trigger_phrase(attributes: Iterable[Mapping[str, Any]]) -> str:
    """The one trigger of an album, from the `records.ATTRIBUTES` of the owner's face in every photo (Table
    1).

    Scores are summed over the album before deciding: the probabilities of both genders, and one point a photo
    for its age group (a tie goes to the group of the mean age). Values that are None or NaN are left out.
    """
    rows = list(attributes)
    p_female = _known(row["p_female"] for row in rows)
    ages = _known(row["age_years"] for row in rows)
    if not p_female or not ages:
        return UNKNOWN_TRIGGER
    gender = "female" if sum(p_female) > sum(1 - p for p in p_female) else "male"
    points = Counter(age_group(age) for age in ages)
    top = max(points.values())
    leaders = [group for group, count in points.items() if count == top]
    mean_group = age_group(sum(ages) / len(ages))
    order = ("child", "adult", "mature")
    nearest_to_mean = min(
        leaders, key=lambda group: (abs(order.index(group) - order.index(mean_group)), order.index(group))
    )
    return TRIGGERS[gender, nearest_to_mean]


def _known(values: Iterable[float | None]) -> list[float]:
    """Sorted, so that a sum of floats does not depend on the order of the photos."""
    return sorted(float(value) for value in values if value is not None and not math.isnan(value))


def belongs_to_identity(tag: str) -> bool:
    """Whether the paper removes `tag` because it describes the person and not the picture.

    Removed: 1girl, 1boy, ear(s), head, face, lips, mouth, 3d, asian, teeth; what ends in _man, _woman, _male,
    _female or _lips; what contains nose, body, or eye unless it is eyewear. Blanks count as underscores, case
    does not count.
    """
    name = _underscored(tag)
    if name in _REMOVED_TAGS or name.endswith(_REMOVED_ENDINGS):
        return True
    if any(part in name for part in _REMOVED_PARTS):
        return True
    return "eye" in name and "eyewear" not in name


def keep_tags(tags: Iterable[str]) -> list[str]:
    """The tags that belong to the image, in their order, each once, written with blanks."""
    kept = (_spaced(tag) for tag in tags if tag.strip() and not belongs_to_identity(tag))
    return list(dict.fromkeys(kept))


def caption(trigger: str, tags: Iterable[str]) -> str:
    """`trigger, tag, tag`, without the tags that belong to the identity."""
    return ", ".join([trigger, *keep_tags(tags)])


def fit_phrases(first: str, tags: Sequence[str], last: str, fits: Callable[[str], bool]) -> str:
    """`first, tag, ..., last` with as many tags, from the left, as `fits` lets in; `first` and `last` always stay.

    A text encoder reads a limited number of tokens and drops what comes behind them without a word, and behind the tags
    stand the words that somebody ordered.

    >>> fit_phrases("a girl", ["smile", "black hair"], "warm film photo", lambda text: len(text) < 40)
    'a girl, smile, warm film photo'
    """
    for count in range(len(tags), -1, -1):
        text = ", ".join(phrase for phrase in (first, *tags[:count], last) if phrase)
        if fits(text):
            break
    return text


def common_tags(tags_by_photo: Sequence[Iterable[str]]) -> list[str]:
    """Tags for the prompt at inference: in more than half the photos, and about hair, face, mouth, skin or
    smile.

    Sorted by falling count, then by name. Tags that belong to the identity are never among them.
    """
    counts = Counter(tag for tags in tags_by_photo for tag in set(keep_tags(tags)))
    chosen = [
        tag
        for tag, count in counts.items()
        if 2 * count > len(tags_by_photo) and any(part in tag for part in _COMMON_PARTS)
    ]
    return sorted(chosen, key=lambda tag: (-counts[tag], tag))


def _underscored(tag: str) -> str:
    return "_".join(tag.lower().replace("_", " ").split())


def _spaced(tag: str) -> str:
    return _underscored(tag).replace("_", " ")
