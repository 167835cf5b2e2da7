"""`python -m jobs deliver`: what a finished job made, in a folder or zip for each customer."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from studiolo.errors import SettingsError, StoreError, UsageError

DELIVERIES = "deliveries.json"
"""Where deliveries went, for `python -m jobs retain`."""

NAMED = 10
"""So many customers whose orders fall short are named."""

Row = dict[str, Any]


def deliver(
    out: Annotated[str, typer.Argument(help="URL of a studio job's output.", metavar="OUT")],
    to: Annotated[str, typer.Option(help="URL of the folder that gets a folder or zip for each customer.")],
    zipped: Annotated[bool, typer.Option("--zip", help="A zip for each customer instead of a folder.")] = False,
    approved_only: Annotated[
        bool,
        typer.Option(
            help="Only portraits that approvals.csv approves; else all accepted ones that it does not reject."
        ),
    ] = False,
    certificates: Annotated[
        str | None,
        typer.Option(help="PEM file with the certificate that signs the pictures, then those up to its authority."),
    ] = None,
    private_key: Annotated[str | None, typer.Option(help="PEM file with its private key.")] = None,
    timestamp_url: Annotated[
        str | None, typer.Option(help="Timestamp authority that is asked at each signature; no network without.")
    ] = None,
    development: Annotated[
        str | None,
        typer.Option(
            help="Folder of the certificate made for development, which signs when none is named (out/provenance)."
        ),
    ] = None,
) -> None:
    """Hand out accepted portraits and prints, with a page and a text that says what fell short.

    Each picture carries a C2PA manifest which says that a model made it, and nothing about the customer.

    Ends with 0 when every order is complete, 3 when some fall short (named; their text says why), 1 when it failed, 2
    when the request cannot be carried out. The same command again writes what changed.
    """
    from studiolo.provenance.credentials import Credentials
    from studiolo.provenance.manifests import Signer
    from studiolo.settings import ProvenanceSettings
    from studiolo.storage.store import Store

    store = Store(out)
    named = {"certificates": certificates, "private_key": private_key, "timestamp_url": timestamp_url}
    settings = ProvenanceSettings.load(None, {**named, "development": development})
    if not store.exists("summary.json"):
        raise SettingsError(f"deliver: {store.url} holds no finished job (no summary.json); run the studio job first")
    signer = Signer(Credentials.open(settings))
    with store.lock("deliver"):
        short = _deliver_all(store, to, zipped, approved_only, signer)
    for line in short[:NAMED]:
        print(f"short: {line}", file=sys.stderr)
    if len(short) > NAMED:
        print(f"short: {len(short) - NAMED} more, see each order.txt", file=sys.stderr)
    print(Store(to).url)
    raise typer.Exit(3 if short else 0)


def _deliver_all(store: Any, to: str, zipped: bool, approved_only: bool, signer: Any) -> list[str]:
    """Write every customer's delivery; one line for each of which something is short."""
    from jobs.studio_check import read_approvals
    from studiolo.portraits.delivery import plan_delivery, write_delivery
    from studiolo.storage.store import Store

    _check_apart(store, to)
    approvals, place = read_approvals(store), Store(to)
    known = set(store.read_json(DELIVERIES)) if store.exists(DELIVERIES) else set()
    store.write_json(DELIVERIES, sorted(known | {place.url}))  # first: what is handed out must be found again
    short: list[str] = []
    for order, people, portraits, prints in _orders(store):
        album = order["album_id"]
        if not people:
            raise StoreError(f"deliver: {store.url} knows no person of album {album!r}; run the studio job to its end")
        delivery = plan_delivery(order, people, portraits, prints, approvals, approved_only)
        write_delivery(store, place, delivery, zipped, signer)
        if delivery.short:
            short.append(f"{album} ({'; '.join(delivery.short)})")
    return short


def _orders(store: Any) -> Iterator[tuple[Row, list[Row], list[Row], list[Row]]]:
    """Each order with its people, portraits and prints; in memory are those of one at a time."""
    import pyarrow as pa

    from studiolo.albums.records import IDENTITY_SCHEMA, PORTRAIT_SCHEMA
    from studiolo.identities.artifacts import album_of
    from studiolo.portraits.order_file import ORDERED_SCHEMA
    from studiolo.portraits.prints import PRINT_SCHEMA
    from studiolo.storage.spool import Spool, beside

    orders = Spool(ORDERED_SCHEMA, "album_id").filled(store.iter_rows("orders.parquet"))
    ordered = {order["album_id"] for order in orders}
    parts = []
    album_column = pa.field("album_id", pa.string())
    schemas = {"identities": IDENTITY_SCHEMA}
    schemas |= {"portraits": PORTRAIT_SCHEMA.append(album_column), "prints": PRINT_SCHEMA.append(album_column)}
    for name, schema in schemas.items():
        rows = ({**row, "album_id": album_of(row["identity_id"])} for row in store.iter_rows(f"{name}.parquet"))
        own = Spool(schema, "album_id", "identity_id").filled(row for row in rows if row["album_id"] in ordered)
        parts.append(beside(orders, own, lambda row: row["album_id"]))
    for (order, people), (_, portraits), (_, prints) in zip(*parts, strict=True):
        yield order, people, portraits, prints


def _check_apart(store: Any, to: str) -> None:
    """Refuses a folder in which deliveries, and later their removal, would meet the output or a customer's photos."""
    from studiolo.albums.sources import folders_of
    from studiolo.storage.places import overlap

    albums: set[str] = set()
    for row in store.iter_rows("albums.parquet", ["album_uri", "photos.list.element.uri"]):
        albums |= folders_of(row["album_uri"], [photo["uri"] for photo in row["photos"]])
    for what, place in (("the output", store.url), *(("an album", album) for album in sorted(albums))):
        if overlap(place, to):
            raise UsageError(f"deliver: got the folder {to!r}, and {what} is {place!r}; wanted a place apart from it")
