"""A PostgreSQL server of our own, from Debian's package, that keeps nothing."""

import getpass
import itertools
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from tests.processes import run

USER = "postgres"


def _program(name: str) -> str:
    """Full path of one of the server's programs: Debian keeps them off the path."""
    found = shutil.which(name)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found and not versions:
        pytest.fail(f"{name} is not installed: `make test-slow` does it (apt-get install postgresql)")
    return str(versions[-1]) if versions else str(found)


def _as_server(*command: str) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", USER, "--", *command] if getpass.getuser() == "root" else list(command)


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@dataclass
class Cluster:
    """A server on this machine, stopped and started at will."""

    data: Path
    port: int
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextmanager
    def started(cls) -> Iterator["Cluster"]:
        """A server in a folder of its own, gone at the end."""
        with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
            if getpass.getuser() == "root":
                shutil.chown(folder, USER)
            data = Path(folder, "data")
            make = [_program("initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
            done = run(_as_server(*make))
            assert done.returncode == 0, done.stderr
            cluster = cls(data, _free_port())
            cluster.start()
            try:
                yield cluster
            finally:
                cluster.stop("immediate")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = self.data.parent / "log"
        done = run(_as_server(_program("pg_ctl"), "-D", str(self.data), "-l", str(log), "-o", options, "-w", "start"))
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self, how: str = "fast") -> None:
        """Stop it: `fast` breaks connections off, `immediate` is a crash."""
        run(_as_server(_program("pg_ctl"), "-D", str(self.data), "-m", how, "-w", "stop"))

    def checkpoint(self) -> None:
        """Write what the server has in memory to its files, and remove those that it needs no more."""
        self._execute("CHECKPOINT")

    def create_database(self) -> str:
        """URL of a new, empty database."""
        name = f"service_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def _execute(self, command: str) -> None:
        with psycopg.connect(f"host=127.0.0.1 port={self.port} user={USER}", autocommit=True) as connection:
            connection.execute(command.encode())
