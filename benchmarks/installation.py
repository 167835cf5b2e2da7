"""An installation of the endpoint on this machine, in a folder of its own, started as a user starts one."""

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from jobs.serve import environment
from studiolo.service.endpoint import EndpointSettings

APPLICATION = "studiolo"
"""What it is called in Serve's status."""


@dataclass(frozen=True)
class Installation:
    """Settings and commands of the processes; all they write is below `folder` and `ray_folder`."""

    folder: Path
    ray_folder: Path
    """Of Ray's sessions and logs: its sockets need a short path."""
    port: int
    settings: EndpointSettings

    @classmethod
    @contextmanager
    def prepared(cls, folder: Path, values: Mapping[str, Any]) -> Iterator["Installation"]:
        """The files that the processes start from; `values` are settings beside the places, which lie in `folder`."""
        places = {
            "database": f"sqlite:///{folder}/service.db",
            "store": f"{folder}/store",
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "receipt_key": f"{folder}/receipts.pem",
            "provenance": {"development": f"{folder}/provenance"},
        }
        settings = EndpointSettings.load(None, {**places, **values})
        ray_folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        try:
            made = cls(folder, ray_folder, free_port(), settings)
            (folder / "tmp").mkdir(parents=True, exist_ok=True)
            made._config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
            made._serve_config.write_text(yaml.safe_dump(made._serve()))
            yield made
        finally:
            shutil.rmtree(ray_folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def serve_command(self) -> list[str]:
        """Starts a local Ray cluster and the application on it."""
        return [str(Path(sys.executable).with_name("serve")), "run", str(self._serve_config)]

    @property
    def trainer_command(self) -> list[str]:
        """Starts the process that learns identities."""
        return [sys.executable, "-m", "jobs", "trainer", "--config", str(self._config)]

    def environment(self, **more: str) -> dict[str, str]:
        """For both, as `python -m jobs serve` starts them; `more` goes before what this process has."""
        here = {
            "TMPDIR": str(self.folder / "tmp"),
            "RAY_TMPDIR": str(self.ray_folder),
            "RAY_object_spilling_directory": str(self.ray_folder),
            "RAY_ADDRESS": "local",
            "RAY_AUTH_MODE": "disabled",  # nothing outside this machine reaches it
            "HF_HUB_OFFLINE": "1",
        }
        return {**environment(), **here, **more}

    def ready(self) -> bool:
        """Whether it takes requests."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    @contextmanager
    def serving(self, limit_s: float = 180.0) -> Iterator["subprocess.Popen[bytes]"]:
        """The application without the trainer, from when it takes requests; nothing of it is left afterwards."""
        log_path = self.folder / "serve.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                self.serve_command, cwd=self.folder, env=self.environment(), stdout=log, stderr=log
            )
        try:
            give_up_s = time.monotonic() + limit_s
            while not self.ready():
                if process.poll() is not None or time.monotonic() > give_up_s:
                    raise RuntimeError(f"the endpoint did not start: {log_path.read_text(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield process
        finally:
            end(process)

    @property
    def _config(self) -> Path:
        return self.folder / "endpoint.yaml"

    @property
    def _serve_config(self) -> Path:
        return self.folder / "serve.yaml"

    def _serve(self) -> dict[str, Any]:
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "serve_app:build",
            "args": {"config": str(self._config)},
        }
        http = {"host": "127.0.0.1", "port": self.port}
        return {"proxy_location": "HeadOnly", "http_options": http, "applications": [application]}


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ctrl-C, and what of it has not ended after half a minute is killed."""
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _, left = psutil.wait_procs(below, timeout=10)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])
