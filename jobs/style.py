"""`python -m jobs style`: pictures of one look in, a style out."""

from pathlib import Path
from typing import Annotated

import typer


def style(
    pictures: Annotated[Path, typer.Option(help="Folder with pictures of the look.")],
    words: Annotated[str, typer.Option(help="What the look is called in prompts, such as 'an oil painting'.")],
    name: Annotated[str, typer.Option(help="How the style is ordered.")],
    out: Annotated[Path, typer.Option(help="Folder of styles, for NAME.json and NAME.safetensors.")] = Path(
        "out/styles"
    ),
    base: Annotated[str, typer.Option(help="Card of the base it is for.")] = "embedded-base",
    steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 800,
    rank: Annotated[
        int, typer.Option(help="Rank; with a face-LoRA's at most `generation.rank_budget`.", min=1, max=128)
    ] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the training.", min=0)] = 0,
) -> None:
    """Learn a look from pictures, as a style-LoRA.

    OUT is a `style_folder`, of the studio job or the endpoint; the file alone is for `POST /v1/styles`. Pictures that
    cannot be read are named and left out.
    """
    from jobs.style_job import Run, run  # loads torch, which nobody waits for who only asks for help

    typer.echo(str(run(Run(pictures, words, name, out, base, steps, rank, seed))))
