"""What the processes of the endpoint log: one JSON object a line, each with the request and the job it is about.

Logs are kept long, copied far and read by many, so they hold no image, embedding, key, prompt or name. What our own
code says is written with that in mind and kept whole. The words of other libraries and of exceptions may quote a
caller, so of those only the place is kept.
"""

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from studiolo.errors import DatabaseError, DeviceMemoryError, LeaseLostError, StoreError, WeightsError
from studiolo.service.records import Job

OURS = frozenset({"studiolo", "actors", "pipelines", "jobs", "web", "serve_app", "__main__"})
"""First parts of the names of our own loggers."""
_TALK = ("httpx", "httpcore", "uvicorn.access", "alembic")
"""Loggers that write a line for everything they do, with whole URLs in it."""
_QUOTING = ("diffusers", "transformers")
"""Libraries that write by handlers of their own, prompts that were too long among it: they are silenced."""
_MLFLOW = "mlflow"
_SPEAKING = (DatabaseError, DeviceMemoryError, LeaseLostError, StoreError, WeightsError)
"""Errors whose messages name places and ids and no caller's words."""
_LONGEST = 500
_FRAMES = 20
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_log = logging.getLogger(__name__)
_ids: ContextVar[Mapping[str, str]] = ContextVar("ids", default={})  # noqa: B039 - nobody changes it


def current_request() -> str | None:
    """The id of the request that is being answered or worked for."""
    return _ids.get().get("request_id")


@contextmanager
def answering(request_id: str) -> Iterator[None]:
    """Lines within the `with` are about a request; threads it is handed to with its context are included."""
    with _about({"request_id": request_id}):
        yield


@contextmanager
def working_on(job: Job) -> Iterator[None]:
    """Lines within the `with` are about a job, and about the request that made it."""
    request = {} if job.request_id is None else {"request_id": job.request_id}
    with _about({**request, "job_id": job.id}):
        yield


@contextmanager
def _about(ids: Mapping[str, str]) -> Iterator[None]:
    token = _ids.set(ids)
    try:
        yield
    finally:
        _ids.reset(token)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message, ids, and the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, ASCII, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.name.partition(".")[0] in OURS:
            line |= {"message": _short(record.getMessage()), **_ids.get(), **_fields(record)}
        else:
            line |= {"message": f"{record.module}:{record.lineno}", **_ids.get()}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = list(_chain(record.exc_info[1]))
        return json.dumps(line)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Have this process log JSON lines to `stream`, standard error when None; calling it again replaces that.

    Warnings and exceptions that nobody caught, in any thread, are such lines, too.
    """
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    for name in _TALK:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _QUOTING:
        os.environ[f"{name.upper()}_VERBOSITY"] = "critical"  # it is read when the library is imported
        logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"  # it is read when the library is imported
    logging.getLogger(_MLFLOW).handlers.clear()
    logging.getLogger(_MLFLOW).propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("an exception that nobody caught", exc_info=(kind, error, trace))


def _uncaught_in_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None and not isinstance(what.exc_value, SystemExit):
        _uncaught(what.exc_type, what.exc_value, what.exc_traceback)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to know it by."""


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`: plain values; of anything else only its type. Ray adds marks of its own, with `_`."""
    given = {name: value for name, value in vars(record).items() if name not in _USUAL and name[0] != "_"}
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _short(str(value)) if isinstance(value, str) else type(value).__name__


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _chain(error: BaseException) -> Iterator[dict[str, Any]]:
    """An exception and what caused it, outermost first: types and places."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        told: dict[str, Any] = {"type": f"{type(one).__module__}.{type(one).__qualname__}"}
        if isinstance(one, _SPEAKING):
            told["message"] = _short(str(one))
        elif isinstance(one, OSError) and one.strerror:
            told["message"] = one.strerror
        yield told | {"at": _places(one.__traceback__)}
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _places(trace: TracebackType | None) -> list[str]:
    """`file:line function`, the innermost last."""
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}" for frame in frames]
