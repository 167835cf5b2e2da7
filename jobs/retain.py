"""`python -m jobs retain`: erase what was made of albums whose last day has passed."""

import datetime
import sys
from typing import Annotated, Any

import typer

from studiolo.errors import SettingsError, nearest


def retain(
    out: Annotated[str, typer.Argument(help="URL of a studio job's output.", metavar="OUT")],
    albums: Annotated[
        str | None, typer.Option(help="Albums to erase now, separated by commas; else those whose last day has passed.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased, and erase nothing.")] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow tracking URI of the job; the database beside the output when absent.")
    ] = None,
) -> None:
    """Erase references, face-LoRAs, portraits, prints, records, tracked runs and deliveries of albums.

    The customers' own albums are not touched. Gallery and summary are made anew; erased.jsonl keeps a line an album.
    Ends with 0 when all is erased, 1 when it failed, 2 when the request cannot be carried out. The same command again
    finishes what was interrupted.
    """
    from jobs.studio_check import read_approvals
    from studiolo.storage import retention
    from studiolo.storage.store import Store
    from studiolo.storage.tracking import MlflowTracker

    store = Store(out)
    if not store.exists(retention.RETENTION):
        raise SettingsError(f"retain: {store.url} holds no job's output (no {retention.RETENTION}); check the path")
    tracker = MlflowTracker.beside(store, tracking_uri)
    with store.lock("retain"):
        read_approvals(store)  # a file that cannot be read is refused before anything goes
        wanted = _wanted(store, albums)
        found = retention.survey(store, wanted, tracker, _deliveries(store))
        for album, item in found.items():
            counts = ", ".join(f"{count} {name}" for name, count in item.counts.items())
            print(f"{'would erase' if dry_run else 'erasing'}: {album} ({counts})")
        if found and not dry_run:
            _erase(store, found, tracker)
    albums_found = "1 album" if len(found) == 1 else f"{len(found)} albums"
    print(f"{albums_found} {'would be erased' if dry_run else 'erased'}", file=sys.stderr)


def _wanted(store: Any, albums: str | None) -> set[str]:
    """Albums to erase: those named or due, and those of an erasure that was interrupted."""
    from studiolo.storage import retention

    if albums is None:
        return set(retention.due(store, datetime.date.today()))
    known, wanted = retention.known_albums(store), set()
    for album in filter(None, map(str.strip, albums.split(","))):
        if album in known:
            wanted.add(album)
        elif not retention.was_erased(store, album):
            raise SettingsError(f"retain: no album is called {album!r}; {nearest(album, known)}")
    return wanted | retention.unfinished(store)


def _deliveries(store: Any) -> list[str]:
    """Delivery folders that are there; one that is not is named, for what lies in it cannot be erased."""
    from jobs.deliver import DELIVERIES
    from studiolo.albums.sources import is_local
    from studiolo.storage.store import Store

    urls = store.read_json(DELIVERIES) if store.exists(DELIVERIES) else []
    there = []
    for url in urls:
        if is_local(url) and not Store(url).local_path("x").parent.is_dir():  # type: ignore[union-attr]
            print(f"warning: the delivery folder {url} is not there; nothing in it was erased", file=sys.stderr)
        else:
            there.append(url)
    return there


def _erase(store: Any, found: Any, tracker: Any) -> None:
    from jobs.publish import refresh
    from studiolo.storage import retention

    retention.begin(store, found, datetime.datetime.now(datetime.UTC))
    retention.erase(store, found, tracker)
    refresh(store)
    retention.finish(store)
