"""What the Ray cluster of an installation says of itself."""

import logging
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from ray.serve.context import _set_global_client

from benchmarks.installation import APPLICATION


class Cluster:
    """A look at the Ray cluster of an application that `Installation.serving` started."""

    @classmethod
    @contextmanager
    def joined(cls, process: "subprocess.Popen[bytes]") -> Iterator["Cluster"]:
        """Be a driver of it as long as the `with`."""
        commands = []
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                commands.append(" ".join(child.cmdline()))
        addresses = [found[1] for command in commands if (found := re.search(r"--gcs-address=(\S+)", command))]
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(addresses[0], namespace="serve", log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield cls()
        finally:
            ray.shutdown()
            _set_global_client(None)  # else Serve asks the controller of this cluster when the next one is joined

    def replicas(self, deployment: str) -> int:
        """How many run, as Serve's status says."""
        found = serve.status().applications[APPLICATION].deployments[deployment].replica_states
        return int(found.get("RUNNING", 0))

    def gauge(self, name: str) -> list[float]:
        """What each process last told a gauge; Ray passes it on every ten seconds or so."""
        (node,) = ray.nodes()
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        lines = [line for line in httpx.get(url, timeout=10).text.splitlines() if line.startswith(f"ray_{name}{{")]
        families = text_string_to_metric_families("\n".join(lines))  # all of the page takes half a second
        return [sample.value for family in families for sample in family.samples]
