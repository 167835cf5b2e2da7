"""`python -m jobs COMMAND`: every entry point of the application."""

import sys

import typer

from jobs.base import base
from jobs.controlnets import controlnets
from jobs.dataset import dataset
from jobs.deliver import deliver
from jobs.keys import keys
from jobs.models import models
from jobs.retain import retain
from jobs.samples import samples
from jobs.serve import serve
from jobs.studio import studio
from jobs.style import style
from jobs.synthesise import synthesise
from jobs.train import train
from jobs.trainer import trainer
from studiolo.errors import StudioloError, UsageError

app = typer.Typer(
    help="Studiolo: photo albums in, identity-preserving portraits out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(studio)
app.command()(train)
app.command()(deliver)
app.command()(retain)
app.add_typer(dataset, name="dataset")
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")
app.command()(serve)
app.command()(trainer)
app.command()(base)
app.command()(controlnets)
app.command()(samples)
app.command()(style)
app.command()(synthesise)


def main() -> None:
    """Run a command. An error raised on purpose is its message and 1, or 2 for a request that cannot be carried out."""
    try:
        app()
    except UsageError as error:
        sys.exit(_complain(error, 2))
    except StudioloError as error:
        sys.exit(_complain(error, 1))


def _complain(error: StudioloError, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
