"""The prompt of a portrait: FaceChain's trigger, then the person's common tags, then the style (section
2.3).
"""

from collections.abc import Callable, Sequence

from studiolo.identities.captions import fit_phrases


def portrait_prompt(
    trigger: str, common_tags: Sequence[str], style_words: str, fits: Callable[[str], bool] = lambda text: True
) -> str:
    """`trigger, common tags, style words`, each phrase once (the first stays), phrases trimmed.

    `common_tags` are an identity's (`studiolo.identities.captions.common_tags` keeps those in more than half
    the references that are about hair, face, mouth, skin or smile), `style_words` are `Style.words`. Common tags
    are left out from the last on until `fits` takes the prompt.

    >>> portrait_prompt("a handsome man", ["short hair", "smile"], "studio backdrop, grey background")
    'a handsome man, short hair, smile, studio backdrop, grey background'
    """
    parts = [_phrases([trigger]), _phrases(common_tags), _phrases([style_words])]
    seen: set[str] = set()
    for part in parts:
        part[:] = [phrase for phrase in part if phrase not in seen]
        seen.update(part)
    return fit_phrases(", ".join(parts[0]), parts[1], ", ".join(parts[2]), fits)


def _phrases(texts: Sequence[str]) -> list[str]:
    phrases = (phrase.strip() for text in texts for phrase in text.split(","))
    return list(dict.fromkeys(phrase for phrase in phrases if phrase))
