"""`python -m jobs base`: train the embedded base."""

from pathlib import Path
from typing import Annotated

import typer


def base(
    data: Annotated[Path, typer.Option(help="Folder of square face pictures (JPEG or PNG), at least 128 px.")],
    minutes: Annotated[
        float, typer.Option(help="Minutes to train, earlier runs into the same output included.", min=0)
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, sample sheets and the packaged base.")] = Path(
        "out/base"
    ),
    init: Annotated[Path | None, typer.Option(help="Base to start from; the packaged one when absent.")] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="JSONL with file, trigger and tags of each picture; made by the taggers when absent."),
    ] = None,
    autoencoder_share: Annotated[
        float,
        typer.Option(
            help="Share of the minutes spent on the autoencoder first; new latents, new denoiser.", min=0, max=1
        ),
    ] = 0.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
) -> None:
    """Train the embedded base: its autoencoder, then its denoiser and text encoder; the result is in
    OUT/base.

    The same command again goes on from the last checkpoint; with more minutes it trains on.
    """
    from jobs.base_job import Run, run  # loads torch, which nobody waits for who only asks for help

    run(Run(data, minutes, out, init, captions, autoencoder_share, device, seed))
    typer.echo(str(out / "base"))
