"""`faulty://`: a folder behind fsspec that fails one write in `FAULTY_EVERY`, counted over all processes."""

import fcntl
import os
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

EVERY, COUNT = "FAULTY_EVERY", "FAULTY_COUNT"
"""Environment: one write in so many fails; the file in which each leaves a byte."""

ENTRY_POINT = "[fsspec.specs]\nfaulty = tests.storage.faulty:FaultyFileSystem\n"


class FaultyFileSystem(LocalFileSystem):
    """To a `Store` this is an object store: one call writes a file."""

    protocol = "faulty"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return super()._strip_protocol(str(path).removeprefix("faulty://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"faulty://{self._strip_protocol(name)}"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        with open(os.environ[COUNT], "ab") as count:
            fcntl.flock(count, fcntl.LOCK_EX)
            count.write(b".")
            count.flush()
            number = os.fstat(count.fileno()).st_size
        if number % int(os.environ[EVERY]) == 0:
            raise TimeoutError("503 Slow Down")
        self.makedirs(self._parent(path), exist_ok=True)
        super().pipe_file(path, value, mode, **options)

    def put_file(self, lpath: str, rpath: str, *_: Any, **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())


def install(folder: Path) -> dict[str, str]:
    """Environment for processes that shall know `faulty://`; what they need lies in `folder`."""
    information = folder / "faulty-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINT)
    root = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join([str(folder), root]), COUNT: str(folder / "writes")}
