"""What a vision model has answered, made into captions. Pure functions."""

import re

from studiolo.datasets.captions.captioner import Caption
from studiolo.datasets.captions.markers import MARKER
from studiolo.datasets.records import PARTS, WHOLE

_WORDS = {
    "face": r"faces?|facial|chin|cheeks?|cheekbones?|forehead|jaw|jawline|skin|complexion|ears?|earlobes?",
    "brows": r"brows?|eyebrows?",
    "eyes": r"eyes?|eyelids?|eyelashes|gaze",
    "nose": r"noses?|nostrils?",
    "mouth": r"mouths?|lips?|teeth|smil\w*",
    "hair": r"hair|haircut|hairstyle|hairline|fringe|bangs|beard|moustache|mustache",
    "body": r"neck|shoulders?|clothes|clothing|shirt|jacket|dress|suit|tie|collar|necklace",
}
_PART = re.compile("|".join(rf"(?P<{part}>\b(?:{words})\b)" for part, words in _WORDS.items()), re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def captions_of(person: str, features: str) -> list[Caption]:
    """Captions from a description of the person and one of the features of the face; [] without the former.

    Each sentence about the features goes to the part that it names first (ears belong to the face: nobody measures
    them), or else to the face. No sentence is lost or told twice, and those of one part keep their order.
    """
    whole = clean(person)
    if not whole:
        return []
    told: dict[str, list[str]] = {part: [] for part in PARTS}
    for sentence in filter(None, _SENTENCE_END.split(clean(features))):
        named = _PART.search(sentence)
        told[str(named.lastgroup) if named else "face"].append(sentence)
    texts = {WHOLE: whole, **{part: " ".join(sentences) for part, sentences in told.items() if sentences}}
    return [{"part": part, "text": text, "evidence": []} for part, text in texts.items()]


def clean(text: str) -> str:
    """One line of printable text without the marker, whatever a model has written."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.replace(MARKER, "facial").split())
