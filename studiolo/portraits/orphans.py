"""What earlier runs left that would be taken for the finished job's: pages, thumbnails, candidates, prints.

Portraits in other styles, other people's files, references and weights stay: what cost work or belongs to a customer is
never deleted on the side.
"""

import re
from collections.abc import Collection

from studiolo.portraits.thumbs import GALLERY
from studiolo.storage.store import Store

_PORTRAIT = re.compile(
    r"(identities/[^/]+(?:/other-[0-9]+)?/(?:portraits|prints)/[^/]+)/[0-9]{3,}(?:\.png|-[0-9.x@]+\.jpg)"
)
_GALLERY = re.compile(rf"{GALLERY}/(people/[^/]+\.html|thumbs/[0-9a-f]{{24}}\.webp)")


def remove_orphans(store: Store, named: Collection[str]) -> list[str]:
    """Delete what is not `named` of the gallery's own files and of the portraits and prints beside a named one.

    Returns the paths.
    """
    found = [path for place in ("people", "thumbs") for path in store.list(f"{GALLERY}/{place}")]
    orders = {match[1] for path in named if (match := _PORTRAIT.fullmatch(path))}
    found += [path for order in sorted(orders) for path in store.list(order)]
    orphans = [path for path in found if path not in named and (_GALLERY.fullmatch(path) or _PORTRAIT.fullmatch(path))]
    for path in orphans:
        store.remove(path)
    return orphans
