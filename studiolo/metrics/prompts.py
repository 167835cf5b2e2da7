"""Does a picture show what its prompt asks for? Judged by attribute: by our own tagger, or by hand. Pure functions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studiolo.identities.captions import TRIGGERS
from studiolo.perception import tag

TAG_KINDS = ("hair", "background", "clothes", "expression", "pose")
KINDS = (*TAG_KINDS, "gender", "age")
"""Every kind of attribute a prompt can ask for."""

Attributes = Mapping[str, frozenset[str]]
"""Words by kind, only for kinds of which something is said."""


@dataclass(frozen=True)
class Agreement:
    """How often what was asked for is seen."""

    asked: int
    """Pictures asked for something of the kind."""
    share: float
    """Those of them that show all of it."""
    by_chance: float
    """The share if prompts and pictures were put together at random."""
    silent: float
    """Those of them of which nothing of the kind was seen, or dared to say."""


def attributes_of(trigger: str, tags: Sequence[str]) -> Attributes:
    """What a caption says, by kind. Unknown words and triggers say nothing."""
    found = {kind: frozenset(word for word in tags if kind_of(word) == kind) for kind in TAG_KINDS}
    for (gender, age), words in TRIGGERS.items():
        if words == trigger:
            found |= {"gender": frozenset([gender]), "age": frozenset([age])}
    return {kind: words for kind, words in found.items() if words}


def kind_of(word: str) -> str | None:
    """Kind of one tag of the vocabulary; None for other words."""
    if word not in tag.VOCABULARY:
        return None
    if word in tag.EXPRESSIONS:
        return "expression"
    return "pose" if word in tag.POSES else word.split()[-1]


def agreement(asked: Sequence[Attributes], seen: Sequence[Attributes]) -> dict[str, Agreement]:
    """By kind, how the pictures agree with their prompts; kinds that no prompt asks for are left out.

    A picture agrees when every word asked for is among those seen: "smile" asks nothing about the mouth. Raises
    `ValueError` for lists of different lengths.
    """
    result = {}
    for kind in KINDS:
        pairs = [(one[kind], two.get(kind, frozenset())) for one, two in zip(asked, seen, strict=True) if kind in one]
        if pairs:
            count = len(pairs)
            wanted, shown = (Counter(pair[side] for pair in pairs) for side in (0, 1))
            met = sum(n * m for words, n in wanted.items() for others, m in shown.items() if words <= others)
            result[kind] = Agreement(
                asked=count,
                share=sum(words <= others for words, others in pairs) / count,
                by_chance=met / count**2,
                silent=sum(not others for _, others in pairs) / count,
            )
    return result
