"""`summary.json`: the job's figures, with nothing unaccounted for."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import Any

from studiolo.albums.records import Status
from studiolo.errors import StudioloError

Row = Mapping[str, Any]


def summary(
    albums: Iterable[Row],
    identities: Iterable[Row],
    portraits: Iterable[Row],
    *,
    wanted: Mapping[str, Mapping[str, int]],
    other_similarities: Iterable[float],
    seconds_by_stage: Mapping[str, float],
    peak_rss_gib: float,
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Figures of one job, as JSON values.

    `albums`, `identities`, `portraits` are rows of `ALBUM_SCHEMA` (an album's photos may be spread over several),
    `IDENTITY_SCHEMA` and `PORTRAIT_SCHEMA`, an order that failed as a whole one row of status `failed`; each is read
    once, so generators do. `wanted` are the portraits ordered of each person, by album and style: an order is a person
    and a style, and short when fewer were accepted, be it that the person failed. `other_similarities` are calibrated
    similarities (0..1) of accepted portraits to other identities' references. A median of nothing is None. Raises
    `StudioloError` when a photo or portrait has no outcome: then something was lost.
    """
    photos, photo_reasons = _count_photos(albums)
    persons: list[tuple[str, str]] = []
    people, people_reasons = _count("identity", "identity_id", _noting(identities, persons))
    accepted: Counter[tuple[str, str]] = Counter()
    own, unfused = array("d"), array("d")

    def looked_at() -> Iterator[Row]:
        for row in portraits:
            if row["status"] == Status.OK:
                accepted[row["identity_id"], row["style"]] += 1
                own.append(row["similarity"])
                unfused.append(row["similarity_unfused"])
            yield row

    made, portrait_reasons = _count("portrait", "portrait_id", looked_at())
    orders = [(person, style, count) for person, album in persons for style, count in wanted[album].items()]
    return {
        "photos_in": photos.total(),
        "photos_ok": photos[Status.OK],
        "photos_dropped": photos[Status.DROPPED],
        "photos_failed": photos[Status.FAILED],
        "identities": people.total(),
        "identities_failed": people[Status.FAILED],
        "orders": len(orders),
        "orders_short": sum(accepted[identity_id, style] < count for identity_id, style, count in orders),
        "orders_failed": made[Status.FAILED],
        "portraits_wanted": sum(count for *_, count in orders),
        "portraits_accepted": made[Status.OK],
        "portraits_rejected": made[Status.DROPPED],
        "similarity_own_median": _median(own),
        "similarity_own_unfused_median": _median(unfused),
        "similarity_other_median": _median(map(float, other_similarities)),
        "seconds_by_stage": {name: round(float(value), 3) for name, value in seconds_by_stage.items()},
        "peak_rss_gib": round(float(peak_rss_gib), 3),
        "versions": dict(sorted(versions.items())),
        "reasons": {"photos": photo_reasons, "identities": people_reasons, "portraits": portrait_reasons},
    }


def _noting(identities: Iterable[Row], names: list[tuple[str, str]]) -> Iterator[Row]:
    for row in identities:
        names.append((row["identity_id"], row["album_id"]))
        yield row


def _count_photos(albums: Iterable[Row]) -> tuple[Counter[str], dict[str, int]]:
    """Outcomes of all photos; a photo counted twice is as wrong as one that is lost."""
    seen: set[str] = set()
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for album in albums:
        photos = album["photos"] or []
        counted, why = _count("photo", "photo_id", photos)
        ids = {photo["photo_id"] for photo in photos}
        if len(ids) != len(photos) or seen & ids:
            raise StudioloError(f"summary: album {album['album_id']!r} holds a photo id that was counted already")
        seen |= ids
        statuses += counted
        reasons.update(why)
    return statuses, dict(sorted(reasons.items()))


def _count(kind: str, id_field: str, rows: Iterable[Row]) -> tuple[Counter[str], dict[str, int]]:
    """Rows by status and by reason; each must have a status, and a reason when it is not ok."""
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for row in rows:
        status, reason = row["status"], row["reason"] or ""
        if status not in set(Status) or (status != Status.OK and not reason):
            raise StudioloError(
                f"summary: {kind} {row[id_field]!r} has status {status!r} and reason {reason!r}; wanted "
                f"one of {', '.join(Status)}, with a reason when it is not ok; the stage before lost it"
            )
        statuses[status] += 1
        if reason:
            reasons[reason] += 1
    return statuses, dict(sorted(reasons.items()))


def _median(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return round(median(numbers), 4) if numbers else None
