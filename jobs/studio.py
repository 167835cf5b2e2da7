"""`python -m jobs studio`: albums in, ranked portraits and a gallery out."""

from pathlib import Path
from typing import Annotated

import typer

from studiolo.settings import StudioSettings


def studio(
    albums: Annotated[
        str | None,
        typer.Option(help="URL of a folder of album folders, or of a manifest (Parquet, CSV, JSONL)."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="URL of the output.")] = None,
    styles: Annotated[str | None, typer.Option(help="Styles ordered for everyone, separated by commas.")] = None,
    per_style: Annotated[int | None, typer.Option(help="Portraits wanted in each style.")] = None,
    orders: Annotated[
        str | None, typer.Option(help="URL of an order file (YAML, CSV, JSONL): what each customer ordered.")
    ] = None,
    templates: Annotated[
        str | None, typer.Option(help="URL of a folder of pictures that an order file's `edits` name.")
    ] = None,
    retention_days: Annotated[
        int | None, typer.Option(help="Days after an album's first job until `retain` erases it.")
    ] = None,
    suite: Annotated[str | None, typer.Option(help="Model suite.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole job.")] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI; a database beside the output when absent, where that is on this disk."),
    ] = None,
    commercial: Annotated[bool | None, typer.Option(help="Refuse models whose licence forbids commercial use.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try one album, say what the job would take, and write nothing.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of the settings; the options above win.")
    ] = None,
) -> None:
    """Turn albums into ranked portraits with a gallery.

    Ends with 0 when all is done, 3 when some identities failed (the gallery says why), 1 when the job failed, 2 when
    the request cannot be carried out. The same command again goes on where an interrupted one stopped.
    """
    options = {
        "albums": albums,
        "out": out,
        "styles": styles,
        "per_style": per_style,
        "orders": orders,
        "templates": templates,
        "retention_days": retention_days,
        "suite": suite,
        "seed": seed,
        "tracking_uri": tracking_uri,
    }
    settings = StudioSettings.load(config, {**options, "commercial": commercial})
    # Both load torch, which nobody waits for who only asks for help.
    if dry_run:
        from jobs.estimate import dry_run as run
    else:
        from jobs.studio_job import run
    raise typer.Exit(run(settings))
