"""`python -m jobs models`: list, pull, verify and show the models Studiolo can use."""

import logging
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from studiolo.errors import SettingsError
from studiolo.weights import cards, fetch
from studiolo.weights.cards import ModelCard

models = typer.Typer(no_args_is_help=True, help="Models and their licences: list, pull, verify, show.")

Ids = Annotated[list[str] | None, typer.Argument(help="Card ids, see `list`.")]
Suite = Annotated[str | None, typer.Option(help=f"All cards of a suite: {', '.join(cards.SUITES)}.")]


@models.command("list")
def list_models(suite: Suite = None) -> None:
    """One line a model: id, what it does, commercial use, whether it is here, licence, source."""
    chosen = [cards.load_card(card_id) for card_id in cards.suite(suite)] if suite else cards.all_cards()
    console = Console()
    rows = [_row(card) for card in chosen]
    if console.is_terminal:
        table = Table("model", "does", "commercial use", "here", "licence")
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*row[:5])
        console.print(table)
    else:
        for row in rows:
            typer.echo("\t".join(row))
    if suite:
        _say_about(suite)


@models.command()
def pull(ids: Ids = None, suite: Suite = None) -> None:
    """Fetch what is missing or damaged and verify all of it, by sha256."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    for card in _choose(ids, suite):
        done = "verified" if fetch.cached(card.id) else "fetched"
        typer.echo(f"{card.id}\t{done}\t{fetch.pull_card(card, thorough=True)}")
    if suite:
        _say_about(suite)


@models.command()
def verify(ids: Ids = None, suite: Suite = None) -> None:
    """Hash the files of the given models, or of all that are here; exit 1 when one is missing or differs."""
    chosen = _choose(ids, suite) if ids or suite else [card for card in cards.all_cards() if fetch.is_placed(card)]
    problems = [problem for card in chosen for problem in fetch.verify_card(card)]
    for problem in problems:
        typer.echo(str(problem), err=True)
    typer.echo(f"{len(chosen)} models verified, {len(problems)} problems")
    if problems:
        raise typer.Exit(1)


@models.command()
def show(card_id: Annotated[str, typer.Argument(metavar="ID", help="Card id, see `list`.")]) -> None:
    """Everything on one card, and where its files are."""
    card = cards.load_card(card_id)
    for name, value in card.model_dump(mode="json", exclude={"files"}).items():
        typer.echo(f"{name}: {_plain(value)}")
    typer.echo(f"folder: {fetch.folder_of(card)}")
    typer.echo(f"here: {_here(card)}")
    for file in card.files:
        typer.echo(f"file: {file.name}  sha256 {file.sha256 or 'recorded at the first download'}")


def _choose(ids: Sequence[str] | None, suite: str | None) -> list[ModelCard]:
    if not ids and not suite:
        raise SettingsError(f"models: name card ids or --suite ({', '.join(cards.SUITES)})")
    names = [*(ids or ()), *(cards.suite(suite) if suite else ())]
    return [cards.load_card(card_id) for card_id in dict.fromkeys(names)]


def _row(card: ModelCard) -> tuple[str, ...]:
    return card.id, card.capability, str(card.commercial_use), _here(card), card.licence, card.source


def _here(card: ModelCard) -> str:
    return "yes" if fetch.cached(card.id) else "damaged" if fetch.is_placed(card) else "no"


def _plain(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "-" if text in ("", "None") else text


def _say_about(suite: str) -> None:
    typer.echo(f"suite {suite}: {cards.SUITE_NOTES[suite]}", err=True)
