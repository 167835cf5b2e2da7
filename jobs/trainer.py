"""`python -m jobs trainer`: the process that learns identities for the endpoint."""

from pathlib import Path
from typing import Annotated

import typer

from studiolo.service.endpoint import EndpointSettings


def trainer(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the endpoint's settings, the same for all its processes.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="In place of `trainer.device`.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="In place of `trainer.metrics_port`.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is queued any more.")] = False,
) -> None:
    """Learn the identities that the endpoint has accepted, until the process is told to end (SIGTERM).

    Then, and after a crash, the trainings go on from their last checkpoints in whichever trainer takes them up. Any
    number of trainers may run at once; those of one machine need a device and a port each.
    """
    settings = EndpointSettings.load(config, {})
    given = {"device": device, "metrics_port": metrics_port}
    own = settings.trainer.model_copy(update={name: value for name, value in given.items() if value is not None})
    from jobs.trainer_job import run  # loads torch, which nobody waits for who only asks for help

    run(settings.model_copy(update={"trainer": own}), once)
