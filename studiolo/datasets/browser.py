"""A page that shows a release: filter its rows, look at one with masks and captions, export a sample for labelling.

    releases/NAME/index.html
    releases/NAME/browse/release.css, gallery.css, release.js
    releases/NAME/browse/rows-000.js      the rows, a few hundred a file
    releases/NAME/browse/pictures/AB/ROW.webp

It opens from disk: rows come as scripts of our own, since a page from disk may read no other file, and nothing comes
from elsewhere. Of a large release it shows a sample, the same one each time, and says so.
"""

import io
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from PIL import Image

import studiolo
from studiolo.datasets.captions.captioner import Row
from studiolo.datasets.figures import Figures
from studiolo.datasets.masks import COLOURS, outlines, picture_and_mask
from studiolo.datasets.plots import PLOTS
from studiolo.datasets.records import PARTS, Split
from studiolo.datasets.release_files import ReleaseFiles
from studiolo.perception.regions import Region
from studiolo.portraits.templating import templates
from studiolo.storage.store import Store

INDEX = "index.html"
FOLDER = "browse"
ROWS_PER_SCRIPT = 200

_QUALITY = 84
_ASSETS = (
    ("studiolo.datasets", "release.css"),
    ("studiolo.portraits", "gallery.css"),
    ("studiolo.datasets", "release.js"),
)
_PART_OF = {region: part for part, regions in PARTS.items() for region in regions if len(regions) == 1}
_PART_OF[Region.SKIN] = "face"


def write_browser(store: Store, name: str, figures: Figures, rows: int = 2000) -> int:
    """Write the page of the release, whose numbers (`figures.release_figures`) are there, with up to `rows` of its
    rows; how many it shows. The same release gives the same bytes.
    """
    files = ReleaseFiles(store, name)
    places = files.pick(rows)
    scripts, some = list[str](), list[dict[str, Any]]()
    for number, row in enumerate(files.rows_at(places)):
        some.append(browser_row(row))
        store.write_bytes(files.place(f"{FOLDER}/{some[-1]['picture']}"), _webp(row))
        if len(some) == ROWS_PER_SCRIPT or number + 1 == len(places):
            scripts.append(f"rows-{len(scripts):03d}.js")
            store.write_bytes(files.place(f"{FOLDER}/{scripts[-1]}"), script(len(scripts) - 1, some))
            some = []
    for package, asset in _ASSETS:
        content = (resources.files(package) / "templates" / asset).read_bytes()
        store.write_bytes(files.place(f"{FOLDER}/{asset}"), content)
    store.write_bytes(files.place(INDEX), index_page(files, figures, len(places), scripts))
    return len(places)


def index_page(files: ReleaseFiles, figures: Figures, shown: int, scripts: list[str]) -> bytes:
    """The page itself."""
    page = templates("studiolo.datasets").get_template("release.html.j2")
    html = page.render(
        name=files.name,
        figures=figures,
        shown=shown,
        scripts=[f"{FOLDER}/{script}" for script in scripts],
        folder=FOLDER,
        splits=[split.value for split in Split],
        parts=list(PARTS),
        colours={_PART_OF[region]: "#{:02x}{:02x}{:02x}".format(*colour) for region, colour in COLOURS.items()},
        plots={f"card/{file}": words for file, (words, _) in PLOTS.items()},
        version=studiolo.__version__,
    )
    return html.encode(errors="replace")


def script(number: int, rows: list[dict[str, Any]]) -> bytes:
    """A script that hands rows to the page. ASCII only, so that nothing in a name ends a line or the script."""
    text = json.dumps(rows, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"release.rows({number},{text.replace('<', chr(92) + 'u003c')});\n".encode()


def browser_row(row: Row) -> dict[str, Any]:
    """What the page shows of a row, a JSON value."""
    _, mask = picture_and_mask(row)
    return {
        "id": row["row_id"],
        "picture": f"pictures/{row['row_id'][:2]}/{row['row_id']}.webp",
        "side": int(mask.shape[0]),
        "source": row["source"],
        "uri": row["uri"],
        "licence": row["licence"],
        "label": row["label"],
        "identity": row["identity"],
        "known": row["known"],
        "split": row["split"],
        "p_female": _rounded(row["attributes"]["p_female"], 3),
        "age": _rounded(row["attributes"]["age_years"], 1),
        "quality": _rounded(row["quality"]["score"], 3),
        "yaw": _rounded(row["pose"]["yaw_deg"], 0),
        "pitch": _rounded(row["pose"]["pitch_deg"], 0),
        "tags": list(row["tags"] or ()),
        "parts": {part["part"]: list(part["bbox_xyxy_px"]) for part in row["parts"]},
        "shapes": {_PART_OF[region]: _path(rings) for region, rings in outlines(mask).items()},
        "captioner": row["captioner"],
        "captions": [_caption(caption) for caption in row["captions"] or ()],
    }


def _caption(caption: Mapping[str, Any]) -> dict[str, Any]:
    evidence = [
        [one["phrase"], one["measure"], one["value"], _rounded(one["confidence"], 2)]
        for one in caption["evidence"] or ()
    ]
    return {"part": caption["part"], "text": caption["text"], "evidence": evidence}


def _path(rings: list[Any]) -> str:
    """Rings as the data of an SVG path; the pixel at (0, 0) covers 0 to 1."""
    return "".join("M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in ring.tolist()) + "Z" for ring in rings)


def _rounded(value: Any, digits: int) -> float:
    return round(float(value), digits)


def _webp(row: Row) -> bytes:
    picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()
