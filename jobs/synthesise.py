"""`python -m jobs synthesise`: synthetic faces for the embedded base to learn from."""

from pathlib import Path
from typing import Annotated

import typer


def synthesise(
    count: Annotated[int, typer.Option(help="How many faces.", min=1)],
    out: Annotated[Path, typer.Option(help="Folder for the pictures, NUMBER.jpg.")],
    seed_start: Annotated[
        int, typer.Option(help="Number of the first face; a number is always the same face.", min=0)
    ] = 0,
    side: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=128, max=1024)] = 160,
) -> None:
    """Make synthetic faces, for `base --data`. For evaluation only: the model has learned from FFHQ, whose terms
    forbid commercial use.

    The same command again makes what is missing. On several cores, run a command for each with numbers of its own.
    """
    from jobs.synthesise_job import Run, run  # loads OpenVINO, which nobody waits for who only asks for help

    run(Run(count, out, seed_start, side))
    typer.echo(str(out))
