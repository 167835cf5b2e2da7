"""`python -m jobs samples`: albums of synthetic people to try Studiolo with."""

from pathlib import Path
from typing import Annotated

import typer

from studiolo.albums.samples import PEOPLE, sample_albums


def samples(
    out: Annotated[Path, typer.Option(help="Folder to write the albums into.")] = Path("data/samples"),
    people: Annotated[int, typer.Option(help=f"How many people, 1 to {len(PEOPLE)}.")] = 3,
) -> None:
    """Write the albums of some synthetic people, and one album in which nothing is usable."""
    for folder in sample_albums(out, people):
        typer.echo(f"{folder}\t{sum(path.is_file() for path in folder.iterdir())} files")
