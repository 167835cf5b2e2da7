"""Where something of a person is left."""

from pathlib import Path


def traces(folder: Path, *marks: str | bytes) -> list[str]:
    """Files below `folder` whose name or bytes hold one of the marks."""
    wanted = [mark.encode() if isinstance(mark, str) else mark for mark in marks]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files for mark in wanted if mark in str(path).encode() or mark in path.read_bytes()]
