"""What the gallery shows of one person, gathered from the rows: a plain JSON value for the templates.

Every path in a view is relative to the gallery's folder and already quoted for a URL; every text is as it
came from the rows, and is escaped by the template.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from studiolo.albums.records import Reason, Status, Verdict
from studiolo.identities.artifacts import safe_segment
from studiolo.portraits.styles import Style
from studiolo.portraits.thumbs import GalleryFiles, Thumb, photo_thumb, portrait_thumb

Row = Mapping[str, Any]
View = dict[str, Any]


def person_view(
    identity: Row, album: Row, portraits: Sequence[Row], styles: Mapping[str, Style], files: GalleryFiles
) -> View:
    """The view of one person, its thumbnails written.

    Rows of `IDENTITY_SCHEMA`, `ALBUM_SCHEMA` and `PORTRAIT_SCHEMA` (all of this identity, in any order). A
    photo without an outcome is shown as one, so the numbers always add up to what came in.
    """
    name = str(identity["identity_id"])
    photos = list(album["photos"] or [])
    references = [_reference(item, photos, files) for item in identity["references"] or []]
    made = sorted(portraits, key=lambda row: (row["style"], row["rank"] or 10**9, row["index"]))
    accepted = [row for row in made if row["status"] == Status.OK]
    unused = [_photo(item, album, files) for item in photos if item["status"] != Status.OK]
    return {
        "id": name,
        "page": f"people/{quote(safe_segment(name))}.html",
        "failed": identity["status"] == Status.FAILED,
        "sentence": _sentence(identity["reason"]),
        "detail": identity["detail"] or "",
        "trigger": identity["trigger"] or "",
        "photos_in": len(photos),
        "photos_used": len(photos) - len(unused),
        "references": references,
        "unsure": sum(item["unsure"] for item in references),
        "styles": _styles(accepted, name, styles, files),
        "rejected": [_portrait(row, name, styles, files) for row in made if row["status"] != Status.OK],
        "accepted": len(accepted),
        "unused": unused,
        "reasons": reason_counts(Counter(item["reason"] for item in photos if item["status"] != Status.OK)),
    }


def card(view: View) -> View:
    """The part of a view that the index needs of a person; small, so that many thousands fit in memory."""
    best = max((item["portraits"][0] for item in view["styles"]), key=lambda item: item["similarity"], default=None)
    picture = best or next(iter(view["references"]), None)
    names = ("id", "page", "failed", "sentence", "photos_in", "photos_used", "accepted", "unsure")
    return {name: view[name] for name in names} | {
        "thumb": picture["thumb"] if picture else None,
        "similarity": best["similarity"] if best else None,
    }


def reason_counts(counts: Mapping[str, int]) -> list[View]:
    """`{sentence, count}` of each reason, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"sentence": _sentence(reason), "count": count} for reason, count in ordered]


def _reference(row: Row, photos: Sequence[Row], files: GalleryFiles) -> View:
    uri = next((item["uri"] for item in photos if item["photo_id"] == row["photo_id"]), "")
    return {
        "thumb": _thumb(portrait_thumb(files, row["crop_path"], 224)),
        "full": _href(row["crop_path"]),
        "name": uri or str(row["photo_id"])[:12],
        "unsure": row["verdict"] == Verdict.UNSURE,
        "verdict": row["verdict"] or "",
        "quality": float(row["quality_score"] or 0.0),
        "caption": row["caption"] or "",
    }


def _styles(accepted: Sequence[Row], name: str, styles: Mapping[str, Style], files: GalleryFiles) -> list[View]:
    """One entry for each style with an accepted portrait, in the order of `styles`, then any other."""
    present = {row["style"] for row in accepted}
    ordered = [style for style in styles if style in present] + sorted(present - set(styles))
    return [
        {
            "title": _title(style, styles),
            "description": styles[style].description if style in styles else "",
            "portraits": [_portrait(row, name, styles, files) for row in accepted if row["style"] == style],
        }
        for style in ordered
    ]


def _portrait(row: Row, name: str, styles: Mapping[str, Style], files: GalleryFiles) -> View:
    title, similarity = _title(row["style"], styles), float(row["similarity"] or 0.0)
    shown = bool(row["path"]) and row["reason"] != Reason.UNSAFE
    kind = f"Portrait {row['rank']}" if row["status"] == Status.OK else "Rejected portrait"
    return {
        "thumb": _thumb(portrait_thumb(files, row["path"])) if shown else None,
        "full": _href(row["path"]) if shown else "",
        "alt": f"{kind} of {name} in {title}, likeness {similarity:.2f}",
        "style": title,
        "rank": int(row["rank"] or 0),
        "similarity": similarity,
        "quality": float(row["quality_score"] or 0.0),
        "unsure": row["verdict"] == Verdict.UNSURE,
        "seed": row["seed"],
        "index": row["index"],
        "prompt": row["prompt"] or "",
        "sentence": _sentence(row["reason"]),
    }


def _photo(row: Row, album: Row, files: GalleryFiles) -> View:
    shown = row["reason"] != Reason.UNSAFE
    thumb = photo_thumb(files, album["album_uri"], row["uri"], row["rotation_deg"] or 0) if shown else None
    return {
        "thumb": _thumb(thumb) if thumb else None,
        "name": row["uri"],
        "sentence": _sentence(row["reason"]),
        "detail": row["detail"] or "",
        "failed": row["status"] == Status.FAILED,
    }


def _sentence(reason: str | None) -> str:
    """The reason in plain words; one this version does not know is shown as it is."""
    try:
        return Reason(reason or "").sentence()
    except ValueError:
        return str(reason)


def _title(style: str, styles: Mapping[str, Style]) -> str:
    return styles[style].title if style in styles else style


def _thumb(thumb: Thumb) -> View:
    return {"src": thumb.src, "width": thumb.width_px, "height": thumb.height_px}


def _href(path: str) -> str:
    """A path of the output, seen from the gallery's folder."""
    return "../" + quote(path)
