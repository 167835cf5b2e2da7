"""`python -m jobs train`: albums in, a face-LoRA a person out."""

from pathlib import Path
from typing import Annotated

import typer

from studiolo.settings import StudioSettings


def train(
    albums: Annotated[
        str | None,
        typer.Option(help="URL of a folder of album folders, or of a manifest (Parquet, CSV, JSONL)."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="URL of the output.")] = None,
    suite: Annotated[str | None, typer.Option(help="Model suite.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole job.")] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow tracking URI; a database beside the output when absent, where that is on this disk."),
    ] = None,
    commercial: Annotated[bool | None, typer.Option(help="Refuse models whose licence forbids commercial use.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of the settings; the options above win.")
    ] = None,
) -> None:
    """Turn albums into face-LoRAs, many in one pass, and stop there.

    A studio job with the same output and settings goes on from here. Ends as `studio` does: 0, 3, 1 or 2.
    """
    options = {"albums": albums, "out": out, "suite": suite, "seed": seed, "tracking_uri": tracking_uri}
    settings = StudioSettings.load(config, {**options, "commercial": commercial})
    from jobs.train_job import run  # loads torch, which nobody waits for who only asks for help

    raise typer.Exit(run(settings))
