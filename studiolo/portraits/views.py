"""What the gallery shows of one person, gathered from the rows: a plain JSON value for the templates.

Every path in a view is relative to the gallery's folder and already quoted for a URL; every text is as it
came from the rows, and is escaped by the template.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from studiolo.albums.records import Fusion, Reason, Status, Verdict
from studiolo.identities.artifacts import safe_segment
from studiolo.portraits.styles import Style
from studiolo.portraits.thumbs import GalleryFiles, Thumb, photo_thumb, portrait_thumb

Row = Mapping[str, Any]
View = dict[str, Any]

_LACKING = {
    Reason.LOW_SIMILARITY: ("looked enough like the person", "not enough like the person"),
    Reason.NOT_ONE_FACE: ("showed exactly one clear face", "without exactly one clear face"),
    Reason.FACE_SIZE: ("showed the face in a sensible size", "with a face too small or too large"),
    Reason.UNSAFE: ("passed the safety check", "stopped by the safety check"),
}
"""What rejected candidates lack: after "none of them", and after a number of them."""

_NOT_SHOWN = (Reason.UNSAFE, Reason.CRASHED_WORKER, Reason.TOO_SLOW, Reason.TOO_MUCH_MEMORY, Reason.DECODER_DIED)
"""Reasons of photos without a thumbnail: not fit to see, or not to be opened again."""


def person_view(
    identity: Row,
    album: Row,
    portraits: Sequence[Row],
    styles: Mapping[str, Style],
    wanted: Mapping[str, int],
    files: GalleryFiles,
) -> View:
    """The view of one person, its thumbnails written. `wanted`: portraits ordered, by style.

    Rows of `IDENTITY_SCHEMA`, `ALBUM_SCHEMA` (with this person's photos) and `PORTRAIT_SCHEMA` (in any order). A
    photo without an outcome is shown as one, so the numbers always add up to what came in.
    """
    name = str(identity["identity_id"])
    photos = list(album["photos"] or [])
    references = [_reference(item, photos, files) for item in identity["references"] or []]
    made = sorted(portraits, key=lambda row: (row["style"], row["rank"] or 10**9, row["index"]))
    accepted = [row for row in made if row["status"] == Status.OK]
    failed = identity["status"] == Status.FAILED
    shown = _styles(made, name, styles, wanted, files) if made or not failed else []
    photos_at_fault = failed and identity["stage"] == "select"
    unused = [_photo(item, album, files) for item in photos if item["status"] != Status.OK]
    return {
        "id": name,
        "page": f"people/{quote(safe_segment(name))}.html",
        "failed": failed,
        "photos_at_fault": photos_at_fault,
        "sentence": _sentence(identity["reason"]),
        "detail": identity["detail"] or "",
        "trigger": identity["trigger"] or "",
        "photos_in": len(photos),
        "photos_used": len(photos) - len(unused),
        "references": references,
        "unsure": sum(item["unsure"] for item in references),
        "minor": next((item["detail"] or "" for item in photos if item.get("apparent_minor")), ""),
        "styles": shown,
        "short": sum(bool(style["shortfall"]) for style in shown),
        "wanted": sum(wanted.values()),
        "rejected": [_portrait(row, name, styles, files) for row in made if row["status"] == Status.DROPPED],
        "accepted": len(accepted),
        "unused": unused,
        "reasons": reason_counts(_reasons(photos)) if photos_at_fault else [],
    }


def card(view: View) -> View:
    """The part of a view that the index needs of a person; small, so that many thousands fit in memory."""
    firsts = (portrait for style in view["styles"] for portrait in style["portraits"][:1])
    best = max(firsts, key=lambda item: item["similarity"], default=None)
    picture = best or next(iter(view["references"]), None)
    names = ["id", "page", "failed", "sentence", "photos_in", "photos_used", "accepted", "wanted", "short"]
    names += ["unsure", "minor"]
    return {name: view[name] for name in names} | {
        "thumb": picture["thumb"] if picture else None,
        "similarity": best["similarity"] if best else None,
    }


def reason_counts(counts: Mapping[str, int]) -> list[View]:
    """`{sentence, count}` of each reason, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"sentence": _sentence(reason), "count": count} for reason, count in ordered]


def _reasons(rows: Sequence[Row]) -> Counter[str]:
    return Counter(str(row["reason"]) for row in rows if row["status"] != Status.OK)


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


def _styles(
    made: Sequence[Row], name: str, styles: Mapping[str, Style], wanted: Mapping[str, int], files: GalleryFiles
) -> list[View]:
    """One entry for each style ordered, whatever came of it."""
    views = []
    for style, count in wanted.items():
        rows = [row for row in made if row["style"] == style]
        accepted = [row for row in rows if row["status"] == Status.OK]
        views.append(
            {
                "title": _title(style, styles),
                "description": styles[style].description if style in styles else "",
                "portraits": [_portrait(row, name, styles, files) for row in accepted],
                "shortfall": shortfall(len(accepted), count, _reasons(rows)),
            }
        )
    return views


def shortfall(accepted: int, wanted: int, rejected: Mapping[str, int]) -> str:
    """What a customer reads of an order with too few portraits; empty when there are as many as wanted.

    `rejected` counts the order's rejected candidates by reason.
    """
    if accepted >= wanted:
        return ""
    head, total, other = f"{accepted} of {wanted} – ", sum(rejected.values()), "other " if accepted else ""
    causes = [(_LACKING.get(Reason(reason), (reason, reason)), count) for reason, count in sorted(rejected.items())]
    if rejected.get(Reason.CRASHED_WORKER):
        return f"{head}our program broke off each time it came to this order"
    if not total:
        return f"{head}no {other}candidate was made"
    if total == 1:
        return f"{head}the only {other}candidate was {causes[0][0][1]}"
    if len(causes) == 1:
        return f"{head}none of the {other}{total} candidates {causes[0][0][0]}"
    parts = (f"{count} {'was' if count == 1 else 'were'} {words[1]}" for words, count in causes)
    return f"{head}of the {other}{total} candidates, {', '.join(parts)}"


def _portrait(row: Row, name: str, styles: Mapping[str, Style], files: GalleryFiles) -> View:
    title, similarity = _title(row["style"], styles), float(row["similarity"] or 0.0)
    shown = bool(row["path"]) and row["reason"] != Reason.UNSAFE
    kind = f"Portrait {row['rank']}" if row["status"] == Status.OK else "Rejected portrait"
    return {
        "thumb": _thumb(portrait_thumb(files, row["path"], face_xy=row.get("face_xy"))) if shown else None,
        "full": _href(row["path"]) if shown else "",
        "alt": f"{kind} of {name} in {title}, likeness {similarity:.2f}",
        "style": title,
        "rank": int(row["rank"] or 0),
        "similarity": similarity,
        "similarity_unfused": float(row["similarity_unfused"] or 0.0) if row["fusion"] == Fusion.DONE else None,
        "unfused": Fusion(row["fusion"]).sentence(),
        "quality": float(row["quality_score"] or 0.0),
        "unsure": row["verdict"] == Verdict.UNSURE,
        "seed": row["seed"],
        "index": row["index"],
        "prompt": row["prompt"] or "",
        "sentence": _sentence(row["reason"]),
    }


def _photo(row: Row, album: Row, files: GalleryFiles) -> View:
    shown = row["reason"] not in _NOT_SHOWN
    thumb = photo_thumb(files, album["album_id"], row["uri"], row["rotation_deg"] or 0) if shown else None
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
