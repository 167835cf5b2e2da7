"""The `<facial>` marker: where a caption names a part of the face, ConsistentID's text encoder gets that part's
features in place of the word (section 3.1, "Text Embedding"). Pure functions.

The published training script puts its own marker behind the word instead, and once for each part; the paper replaces
each mention, and so do we.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

MARKER = "<facial>"
"""What stands in place of a word."""

REGIONS = ("face", "ears", "eyes", "nose", "mouth")
"""The paper's five parts."""

_SINGULAR = {"face": "face", "ears": "ear", "eyes": "eye", "nose": "nose", "mouth": "mouth"}
_REGION_OF = {form: region for region, one in _SINGULAR.items() for form in (one, f"{one}s")}
_FORMS = "|".join(sorted(_REGION_OF, key=len, reverse=True))
_WORD = re.compile(rf"(?<![\w-])(?:{_FORMS})(?![\w-])", re.IGNORECASE)  # a hyphen makes another word: eye-catching


@dataclass(frozen=True)
class Marked:
    """A text with markers. The marker at place i, from the left, stands for `words[i]`, a mention of `regions[i]`."""

    text: str
    regions: tuple[str, ...]
    """Of `REGIONS`, in the order of the markers."""
    words: tuple[str, ...]
    """As they stood in the text."""


def mark(text: str) -> Marked:
    """`text` with each mention of face, ears, eyes, nose or mouth replaced by the marker.

    Singular and plural count, in any case; whole words only: a surface, an earring and eyebrows stay. Raises
    `ValueError` for a text that holds the marker already: nobody could tell what it stands for.

    >>> mark("Her Eyes are green, her nose is long.")
    Marked(text='Her <facial> are green, her <facial> is long.', regions=('eyes', 'nose'), words=('Eyes', 'nose'))
    """
    if MARKER in text:
        raise ValueError(f"mark: got a text with {MARKER} in it, wanted plain words")
    words = tuple(match.group() for match in _WORD.finditer(text))
    return Marked(_WORD.sub(MARKER, text), tuple(_REGION_OF[word.lower()] for word in words), words)


def unmark(marked: Marked) -> str:
    """The text that `mark` was given."""
    pieces = marked.text.split(MARKER)
    if len(pieces) != len(marked.words) + 1:
        raise ValueError(f"unmark: got {len(pieces) - 1} markers for {len(marked.words)} words")
    return pieces[0] + "".join(word + piece for word, piece in zip(marked.words, pieces[1:], strict=True))


def regions_named(text: str) -> tuple[str, ...]:
    """The parts of the face that `text` names, of `REGIONS`, each once, in the order of their first mention."""
    return tuple(dict.fromkeys(_REGION_OF[match.group().lower()] for match in _WORD.finditer(text)))


def training_text(whole: str, details: Iterable[str]) -> Marked:
    """The paper's textual input: the caption of the whole person first, as it is, then those of the parts with their
    words marked (section 3.3).
    """
    marked = mark(" ".join(details))
    if MARKER in whole:
        raise ValueError(f"training_text: got a caption with {MARKER} in it, wanted plain words")
    return Marked(f"{whole} {marked.text}".strip(), marked.regions, marked.words)
