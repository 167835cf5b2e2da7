"""Findings put into sentences. The wording varies from row to row, and is always the same for the same row."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from studiolo.datasets.captions.findings import Finding

Findings = Mapping[str, Finding]
Evidence = dict[str, Any]

_NOUNS = {
    ("woman", "adult"): "woman",
    ("woman", "minor"): "girl",
    ("woman", ""): "female person",
    ("man", "adult"): "man",
    ("man", "minor"): "boy",
    ("man", ""): "male person",
    ("", "adult"): "adult",
    ("", "minor"): "child",
    ("", ""): "person",
}
_AGES = ("young", "middle-aged", "elderly")

PARTS: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {
    "face": {
        ("face_length", "high"): ("long",),
        ("face_length", "low"): ("broad", "rather round"),
        ("turn", "forward"): ("turned to the camera", "seen from the front"),
        ("turn", "left"): ("turned to the left",),
        ("turn", "right"): ("turned to the right",),
        ("nod", "up"): ("raised",),
        ("nod", "down"): ("lowered", "bent down"),
    },
    "brows": {},
    "eyes": {
        ("eyes", "open"): ("open",),
        ("eyes", "shut"): ("shut", "closed"),
    },
    "nose": {
        ("nose_length", "high"): ("long",),
        ("nose_length", "low"): ("short",),
        ("nose_width", "high"): ("broad", "wide"),
        ("nose_width", "low"): ("narrow", "slender"),
    },
    "mouth": {
        ("smile", "yes"): ("smiling",),
        ("mouth", "open"): ("open",),
        ("mouth", "shut"): ("closed", "shut"),
        ("mouth_width", "high"): ("wide",),
        ("mouth_width", "low"): ("small", "narrow"),
        ("lip_fullness", "high"): ("full-lipped",),
        ("lip_fullness", "low"): ("thin-lipped",),
    },
    "hair": {("hair", name): (name,) for name in ("black", "brown", "blonde", "grey", "red")},
    "body": {
        ("clothes", name): (name,)
        for name in ("white", "black", "grey", "blue", "red", "green", "brown", "pink", "yellow")
    },
}
"""What each part's sentence may say: (kind, says) of a finding and its words."""

_OPENINGS = ("{}", "A photo of {}", "A portrait of {}", "The picture shows {}")
_LOOKS = {
    "hair": ("with {}",),
    "clothes": ("in {}", "wearing {}"),
    "background": ("against a {}", "before a {}", "in front of a {}"),
}

_SUBJECTS = {
    "face": ("face", "is"),
    "brows": ("eyebrows", "are"),
    "eyes": ("eyes", "are"),
    "nose": ("nose", "is"),
    "mouth": ("mouth", "is"),
    "hair": ("hair", "is"),
    "body": ("clothes", "are"),
}


class Wording:
    """Chooses words for the row called `key`: any two runs choose alike, two rows differ."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, place: str, options: Sequence[str]) -> str:
        """One of `options`, for `place` in the caption."""
        digest = hashlib.sha256(f"{self._key}\0{place}".encode()).digest()
        return options[int.from_bytes(digest[:8], "big") % len(options)]


def whole_sentences(found: Findings, anyone: Finding, choose: Wording) -> tuple[str, list[Evidence]]:
    """The caption of the whole person and what bears out each phrase of it.

    `anyone` bears out that there is a person, where neither gender nor age is known.
    """
    subject, evidence = _subject(found, anyone)
    looks = []
    for kind, options in _LOOKS.items():
        if kind in found:
            says = f"{found[kind].says} {kind}"
            looks.append(choose(f"whole.{kind}", options).format(says))
            evidence.append(_evidence(says, found[kind]))
    person = ", ".join([f"{_article(subject)} {subject}{' ' if looks else ''}{''.join(looks[:1])}", *looks[1:]])
    first = choose("whole.opening", _OPENINGS).format(person)
    does = _does(found, choose, evidence)
    second = f" {_pronoun(found)} is {_and(does)}." if does else ""
    return f"{first[0].upper()}{first[1:]}.{second}", evidence


def part_sentence(part: str, found: Findings, choose: Wording) -> tuple[str, list[Evidence]]:
    """The caption of one part and what bears out each phrase of it; ("", []) when nothing is known of it.

    Where only the part itself was found, that is what is said.
    """
    noun, verb = _SUBJECTS[part]
    said = [
        (choose(f"{part}.{kind}", words), found[kind])
        for (kind, says), words in PARTS[part].items()
        if kind in found and found[kind].says == says
    ]
    owner = choose(f"{part}.owner", ("The", _possessive(found)))
    if said:
        text = f"{owner} {noun} {verb} {_and([words for words, _ in said])}."
        return text, [_evidence(words, finding) for words, finding in said]
    seen = found.get(f"found.{part}")
    if seen is None or part in ("hair", "body"):  # the mesh knows of neither
        return "", []
    text = f"{owner} {noun} can be seen."
    return text, [_evidence(f"{noun} can be seen", seen)]


def _subject(found: Findings, anyone: Finding) -> tuple[str, list[Evidence]]:
    gender, grown, age = found.get("gender"), found.get("grown"), found.get("age")
    noun = _NOUNS[gender.says if gender else "", grown.says if grown else ""]
    evidence = [_evidence(noun, finding) for finding in (gender, grown) if finding]
    if age is None or age.says not in _AGES:
        return noun, evidence or [_evidence(noun, anyone)]
    return f"{age.says} {noun}", [_evidence(age.says, age), *(evidence or [_evidence(noun, anyone)])]


def _does(found: Findings, choose: Wording, evidence: list[Evidence]) -> list[str]:
    """What the person does, each with its evidence appended."""
    options = {
        ("smile", "yes"): ("smiling",),
        ("calm", "yes"): ("calm", "relaxed"),
        ("turn", "forward"): ("facing the camera", "facing forward"),
        ("turn", "left"): ("turned to the left", "looking to the left"),
        ("turn", "right"): ("turned to the right", "looking to the right"),
        ("nod", "up"): ("looking up",),
        ("nod", "down"): ("looking down",),
    }
    done = []
    for (kind, says), words in options.items():
        if kind in found and found[kind].says == says:
            done.append(choose(f"whole.{kind}", words))
            evidence.append(_evidence(done[-1], found[kind]))
    return done


def _evidence(phrase: str, finding: Finding) -> Evidence:
    return {
        "phrase": phrase,
        "measure": finding.measure,
        "value": finding.value,
        "confidence": finding.confidence,
    }


def _pronoun(found: Findings) -> str:
    return {"woman": "She", "man": "He"}[found["gender"].says] if "gender" in found else "The person"


def _possessive(found: Findings) -> str:
    return {"woman": "Her", "man": "His"}[found["gender"].says] if "gender" in found else "The person's"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
