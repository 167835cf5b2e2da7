"""`python -m jobs dataset`: pictures of faces in, an annotated data set out."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from studiolo.datasets.settings import DatasetSettings
from studiolo.errors import SettingsError, nearest

Out = Annotated[str, typer.Argument(help="URL of a dataset job's output.", metavar="URL")]

dataset = typer.Typer(invoke_without_command=True)


@dataset.callback()
def make(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            help="A source of pictures, as KIND:PLACE;option=value; may be given several times. A folder, glob,"
            " manifest or tars by path or URL; ffhq:, celeba: or sfhq: with the folder as published;"
            " synthetic:count=N,seed=S. Options: name, licence, weight, limit, labels.",
            metavar="SPEC",
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="URL of the output.")] = None,
    opt_out: Annotated[
        str | None, typer.Option(help="URL of a table of what may not be used: content hashes, face embeddings.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Model suite.")] = None,
    captioner: Annotated[str | None, typer.Option(help="Who writes the captions: grammar, llava or openai.")] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Write the release in this form, too: consistentid or webdataset; may be given several times.",
            metavar="FORM",
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI; a database beside the output when absent, where that is on this disk."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try a few pictures, say what the job would take, and write nothing.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of the settings; the options above win.")
    ] = None,
) -> None:
    """Annotate and caption pictures of faces region by region, decide which to keep, and write them as Parquet.

    Ends with 0 when all is done, 3 when some pictures failed (decisions.parquet says why), 1 when the job failed, 2
    when the request cannot be carried out. The same command again goes on where an interrupted one stopped. Further
    sources, or other settings of the release, make another release of the same annotations.
    """
    if context.invoked_subcommand:
        return
    said = {"out": out, "opt_out": opt_out, "suite": suite, "captioner": captioner, "tracking_uri": tracking_uri}
    settings = DatasetSettings.load(config, {**said, "sources": sources or None, "formats": formats or None})
    # Both load models or Ray, which nobody waits for who only asks for help.
    if dry_run:
        from jobs.dataset_estimate import dry_run as run
    else:
        from jobs.dataset_job import run
    raise typer.Exit(run(settings))


@dataset.command()
def verify(
    out: Out,
    release: Annotated[str | None, typer.Option(help="Name of a release; the last one when absent.")] = None,
) -> None:
    """Check a release against itself: schemas, hashes, counts, pictures, masks, embeddings, splits, duplicates.

    Prints a line a problem; ends with 1 when there is one, 2 when there is no such release.
    """
    from studiolo.datasets.releases import find
    from studiolo.datasets.verify import verify as check
    from studiolo.storage.store import Store

    store = Store(out)
    name, record = find(store, release)
    problems = 0
    for problem in check(store, name, record):
        problems += 1
        typer.echo(problem)
    print(f"release {name}: {record['counts']['rows']} rows verified, {problems} problems", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


@dataset.command()
def erase(
    out: Out,
    identity: Annotated[str, typer.Option(help="Identity as decisions.parquet has it, such as unknown/ROW_ID.")],
) -> None:
    """Erase a person from shards and all releases; only what holds them is rewritten, and a receipt is left.

    The pictures' hashes go onto the output's opt-out list, so that no later run brings them back; the sources
    themselves are not touched. Prints the receipt's path. The same command again finishes what was interrupted.
    """
    from studiolo.datasets import erase as erasing
    from studiolo.datasets import releases
    from studiolo.datasets.describe import describe
    from studiolo.storage.store import Store

    store = Store(out)
    releases.find(store)
    with store.lock("dataset erase") as lock:
        finished = erasing.finish(store)
        rows = erasing.rows_of(store, identity)
        if rows:
            finished.append(erasing.erase(store, rows, erasing.why(identity)))
        for name, record in releases.finished(store).items():
            lock.check()
            list(describe(store, name, record))
    if not finished:
        known = erasing.identities(store)
        raise SettingsError(f"dataset erase: no identity is called {identity!r}; {nearest(identity, known)}")
    for receipt in finished:
        typer.echo(receipt)


@dataset.command()
def compare(
    out: Out,
    one: Annotated[str, typer.Argument(help="Name of a release.", metavar="ONE")],
    other: Annotated[str, typer.Argument(help="Name of another one.", metavar="OTHER")],
) -> None:
    """Say how many pictures went from what to what between two releases: a split, a reason, or absent."""
    from studiolo.datasets.compare import compare as compared
    from studiolo.datasets.releases import find
    from studiolo.storage.store import Store

    store = Store(out)
    moves, changes = compared(store, find(store, one)[0], find(store, other)[0])
    for (before, after), count in sorted(moves.items(), key=lambda item: (item[0][0] == item[0][1], -item[1], item[0])):
        typer.echo(f"{count}\t{before}\t{after}")
    for what, count in sorted(changes.items()):
        typer.echo(f"{count}\tkept in both\tanother {what}")
