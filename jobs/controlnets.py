"""`python -m jobs controlnets`: train ControlNets for a base."""

from pathlib import Path
from typing import Annotated

import typer


def controlnets(
    data: Annotated[Path, typer.Option(help="Folder of square face pictures (JPEG or PNG), at least 128 px.")],
    minutes: Annotated[
        float, typer.Option(help="Minutes to train, earlier runs into the same output included.", min=0)
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, sample sheets and the ControlNets.")] = Path(
        "out/controlnets"
    ),
    init: Annotated[Path | None, typer.Option(help="Base they are for; the packaged one when absent.")] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="JSONL with file, trigger and tags of each picture; made by the taggers when absent."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
) -> None:
    """Train ControlNets for a base, of poses with a face's landmarks and of edges; the result is in
    OUT/controlnets.

    The same command again goes on from the last checkpoint; with more minutes it trains on.
    """
    from jobs.controlnets_job import Run, run  # loads torch, which nobody waits for who only asks for help

    run(Run(data, minutes, out, init, captions, device, seed))
    typer.echo(str(out / "controlnets"))
