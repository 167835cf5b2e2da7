"""`python -m jobs serve`: the endpoint on this machine, Ray Serve and a trainer, until Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from studiolo.service.endpoint import EndpointSettings

ROOT = Path(__file__).resolve().parents[1]
SERVE = "import sys, serve_app; serve_app.run(*sys.argv[1:])"
"""Program of the process that runs Serve; replicas find its classes below the module's own name."""
_LOOK_S = 0.2
_AFTER_DRAIN_S = 60.0
_OBJECT_STORE_MIB = 256
_MEMORY = Path("/dev/shm")

_HELP = """\
The endpoint starts (a minute, the first time longer). It takes requests when `curl {url}/readyz` says so. Then:

  KEY=$({python} -m jobs keys create demo --database {database} | tail -1)
  curl {url}/v1/portraits -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\
      -d '{{"prompt": "a portrait of a smiling woman", "wait_s": 60}}'

In a browser: {url}/studio/ and that key.

Ctrl-C ends it; what was accepted goes on at the next start."""


@dataclass(frozen=True)
class Part:
    """A process of the endpoint, and the signal that ends it in order."""

    command: Sequence[str]
    ends_by: signal.Signals


def serve(
    config: Annotated[
        Path | None, typer.Option(help="YAML file with the endpoint's settings, the same for all its processes.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of this machine that is listened at.", min=1, max=65535)] = 8000,
) -> None:
    """Answer HTTP on this machine, show the studio page, make portraits and learn identities, until Ctrl-C.

    Ray Serve with `serve_app.py` and one trainer (`python -m jobs trainer`) run below this process. When one of them
    ends, so does the other, and the exit code is 1. Told to end, it lets jobs of portraits in hand end for
    `dispatcher.drain_s`.
    """
    settings = EndpointSettings.load(config, {}).placed(Path.cwd())
    python, place = sys.executable, [] if config is None else [str(config.absolute())]
    parts = [
        Part([python, "-c", SERVE, str(port), *place], signal.SIGINT),
        Part([python, "-m", "jobs", "trainer", *(word for one in place for word in ("--config", one))], signal.SIGTERM),
    ]
    short, url = os.path.relpath(python), f"http://127.0.0.1:{port}"
    typer.echo(_HELP.format(url=url, python=short if len(short) < len(python) else python, database=settings.database))
    end_s = settings.dispatcher.drain_s + _AFTER_DRAIN_S
    raise typer.Exit(run_together(parts, environment(), end_s))


def environment() -> dict[str, str]:
    """For Serve and the trainer: the application is found, and Ray keeps to this machine and its memory."""
    usual = {
        "RAY_ADDRESS": "local",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(_OBJECT_STORE_MIB * 2**20),
    }
    if _MEMORY.is_dir():
        usual["RAY_object_spilling_directory"] = str(_MEMORY)  # pictures pass through Ray's store, and go to no disk
    if os.environ.get("RAY_ADDRESS", "local") == "local":
        usual["RAY_AUTH_MODE"] = "disabled"  # nothing outside this machine reaches it
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**usual, **os.environ, "PYTHONPATH": path}


def run_together(parts: Sequence[Part], environment: Mapping[str, str], end_s: float) -> int:
    """Run all `parts` until this process is told to end (0), or one of them ends (1); then end the others in order.

    What has not ended after `end_s` is killed. Signals of the terminal reach this process alone.
    """
    told: list[int] = []  # no Event: its lock may be held when a signal comes
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, _: told.append(number)) for one in numbers}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for part in parts:
            processes.append(subprocess.Popen(part.command, env=dict(environment), start_new_session=True))
        while not told and all(process.poll() is None for process in processes):
            time.sleep(_LOOK_S)
        ended = [process for process in processes if process.poll() is not None]
        for process in ended:
            typer.echo(f"{' '.join(map(str, process.args))} ended with {process.returncode}", err=True)  # type: ignore[arg-type]
        return 1 if ended else 0
    finally:
        _end(parts, processes, end_s)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(parts: Sequence[Part], processes: Sequence["subprocess.Popen[bytes]"], end_s: float) -> None:
    for part, process in zip(parts, processes, strict=False):
        if process.poll() is None:
            process.send_signal(part.ends_by)
    give_up_s = time.monotonic() + end_s
    for process in processes:
        try:
            process.wait(max(0.0, give_up_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
