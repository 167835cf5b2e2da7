"""`python -m jobs keys`: API keys of the endpoint."""

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from studiolo.service.database import Database

keys = typer.Typer(
    no_args_is_help=True, help="Keys of the endpoint: create, list, revoke API keys; show the receipts' key."
)

Url = Annotated[str | None, typer.Option("--database", help="URL of the endpoint's database; else the settings'.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with the endpoint's settings.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Name of the customer; made when there is none of that name.")],
    database: Url = None,
    config: Config = None,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0.001, help="Days until it expires; else never.")] = None,
    requests_per_s: Annotated[float | None, typer.Option(min=0.001, help="Requests a second.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Requests at once, after a pause.")] = None,
    portraits_per_day: Annotated[int | None, typer.Option(min=0, help="Portraits in a day.")] = None,
    identities_per_day: Annotated[int | None, typer.Option(min=0, help="Trainings in a day.")] = None,
    open_jobs: Annotated[int | None, typer.Option(min=1, help="Jobs that wait or run at a time.")] = None,
) -> None:
    """Make a key and print it, alone on the last line: it is shown this once.

    Before it stands the secret that the customer's webhooks are signed with. Limits that are not given are those of
    the endpoint's settings. The database is made, or brought up to date, if need be.
    """
    from studiolo.service.keys import KeyLimits, Keys

    limits = KeyLimits(
        requests_per_s=requests_per_s,
        burst=burst,
        portraits_per_day=portraits_per_day,
        identities_per_day=identities_per_day,
        open_jobs=open_jobs,
    )
    new = Keys(_database(database, config)).create(tenant, name, limits, days)
    typer.echo(f"webhook secret of {new.key.tenant}: {new.webhook_secret}")
    typer.echo(new.token)


@keys.command("list")
def list_keys(database: Url = None, config: Config = None) -> None:
    """One line a key: prefix, customer, name, state, day made, day it expires, own limits."""
    from studiolo.service.keys import Keys

    for key in Keys(_database(database, config)).all():
        limits = " ".join(f"{name}={value:g}" for name, value in key.limits.model_dump(exclude_none=True).items())
        days = (_day(key.created_at), _day(key.expires_at))
        typer.echo("\t".join([key.prefix, key.tenant, key.name or "-", key.state(time.time()), *days, limits or "-"]))


@keys.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="Prefix of the key, see `list`: what stands between its underscores.")],
    database: Url = None,
    config: Config = None,
) -> None:
    """End a key at once and for good."""
    from studiolo.service.keys import Keys

    key = Keys(_database(database, config)).revoke(prefix)
    typer.echo(f"revoked: {key.prefix} of {key.tenant}")


@keys.command()
def receipts(
    file: Annotated[str | None, typer.Option(help="Path of the key; else the settings'.")] = None,
    config: Config = None,
) -> None:
    """Name and public half of the key that receipts of erasures are signed with: what whoever checks one needs."""
    from studiolo.service.endpoint import EndpointSettings
    from studiolo.service.receipts import ReceiptKey

    key = ReceiptKey.open(Path(file or EndpointSettings.load(config, {}).receipt_key))
    typer.echo(key.name)
    typer.echo(key.public_pem.decode(), nl=False)


def _database(url: str | None, config: Path | None) -> "Database":
    from studiolo.service.database import Database, migrate
    from studiolo.service.endpoint import EndpointSettings

    url = url or EndpointSettings.load(config, {}).database
    migrate(url)
    return Database(url)


def _day(at: float | None) -> str:
    return "-" if at is None else datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat()
