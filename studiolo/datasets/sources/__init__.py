"""Where the pictures of a data set come from; any fsspec URL.

A source lists its pictures, in an order that is the same each time, without reading them: each with its place, a
version that changes when its content does, and where known the identity that the source names and a licence. One file
a kind:

- `folder`: pictures below a folder, or those that match a glob;
- `manifest`: rows of a Parquet, CSV or JSONL table;
- `tar`: members of WebDataset tars;
- `layouts`: FFHQ, CelebA with its identity file, and SFHQ as they are published;
- `synthetic`: random faces, made when they are read.

`reading` gives the bytes of any of them.
"""

import heapq
from collections.abc import Callable, Iterator

from studiolo.datasets.records import row_id
from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources import folder, layouts, manifest, synthetic, tar
from studiolo.datasets.sources.listed import Listed
from studiolo.errors import SettingsError
from studiolo.weights.cards import CommercialUse

_LISTINGS: dict[str, Callable[[SourceSettings], Iterator[Listed]]] = {
    "folder": folder.list_folder,
    "manifest": manifest.list_manifest,
    "tar": tar.list_tars,
    "ffhq": layouts.list_ffhq,
    "celeba": layouts.list_celeba,
    "sfhq": layouts.list_sfhq,
    "synthetic": synthetic.list_synthetic,
}


def licence_of(source: SourceSettings) -> str:
    """Licence of the source's pictures: what the settings say, else what is known of its kind, else `unknown`."""
    return source.licence or _of_kind(source)[0]


def commercial_use(source: SourceSettings) -> CommercialUse:
    """What is known of commercial use; of a licence that somebody states nothing is."""
    return CommercialUse.UNKNOWN if source.licence else _of_kind(source)[1]


def _of_kind(source: SourceSettings) -> tuple[str, CommercialUse]:
    if source.kind == "synthetic":
        return synthetic.licence()
    return layouts.LICENCES.get(source.kind, ("unknown", CommercialUse.UNKNOWN))


def list_pictures(source: SourceSettings) -> Iterator[Listed]:
    """The source's pictures, each uri once. Raises `SettingsError` when there is none or they cannot be listed."""
    try:
        found = _LISTINGS[source.kind](source)
        if source.limit is not None:
            found = iter(_few(found, source.name, source.limit))
        empty = True
        for picture in found:
            empty = False
            yield picture
    except (ImportError, OSError, ValueError) as error:
        raise SettingsError(f"source {source.name!r}: {source.place!r} cannot be listed: {error}") from error
    if empty:
        raise SettingsError(f"source {source.name!r}: {source.place!r} holds no picture; wanted one at least")


def _few(found: Iterator[Listed], name: str, limit: int) -> list[Listed]:
    """Those whose ids are the smallest, in the order of the listing: as good as drawn, and the same each time."""
    numbered = ((row_id(name, picture.uri), number, picture) for number, picture in enumerate(found))
    chosen = heapq.nsmallest(limit, numbered, key=lambda item: item[0])
    return [picture for _, _, picture in sorted(chosen, key=lambda item: item[1])]
