"""Whether two places are one."""

import os

from studiolo.albums.sources import is_local, local_path
from studiolo.storage.store import Store


def overlap(one: str, other: str) -> bool:
    """Whether one of two folders, by URL, lies in the other or is it; links on this disk are followed."""
    first, second = _place(one), _place(other)
    return first.startswith(second) or second.startswith(first)


def _place(url: str) -> str:
    if is_local(url):
        return os.path.join(os.path.realpath(local_path(url)), "")
    return url if "::" in url else Store(url).url.rstrip("/") + "/"  # into a chain such as an archive none writes
