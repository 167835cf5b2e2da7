"""The prompt of a portrait: FaceChain's trigger, then the person's common tags, then the style (section
2.3).
"""

from collections.abc import Sequence


def portrait_prompt(trigger: str, common_tags: Sequence[str], style_words: str) -> str:
    """`trigger, common tags, style words`, each phrase once (the first stays), phrases trimmed.

    `common_tags` are an identity's (`studiolo.identities.captions.common_tags` keeps those in more than half
    the references that are about hair, face, mouth, skin or smile), `style_words` are `Style.words`.

    >>> portrait_prompt("a handsome man", ["short hair", "smile"], "studio backdrop, grey background")
    'a handsome man, short hair, smile, studio backdrop, grey background'
    """
    phrases = (phrase.strip() for part in (trigger, *common_tags, style_words) for phrase in part.split(","))
    return ", ".join(dict.fromkeys(phrase for phrase in phrases if phrase))
