"""Logs: lines of JSON that say whose request and job they are about, and nobody's words."""

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from studiolo.errors import StoreError
from studiolo.service.logs import answering, configure, current_request, working_on
from studiolo.service.queue import JobQueue
from tests.processes import run
from tests.service.rows import portraits

Lines = Callable[[], list[dict[str, Any]]]
ours = logging.getLogger("studiolo.tests")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What was logged so far; afterwards logging is as it was."""
    for name in ("DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "warning")
    monkeypatch.setenv("MLFLOW_CONFIGURE_LOGGING", "true")
    root, stream = logging.getLogger(), io.StringIO()
    hooks = sys.excepthook, threading.excepthook
    names = ["", *logging.root.manager.loggerDict]
    before, handlers = {name: logging.getLogger(name).level for name in names}, list(root.handlers)
    configure("DEBUG", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:] = handlers
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks


def test_a_line_says_when_who_what_and_about_which_job(queue: JobQueue, lines: Lines):
    job = queue.submit("ten_a", portraits(request_id="r-1"))
    nobodys = queue.submit("ten_a", portraits())
    with working_on(job):
        ours.info("half of %d", 8, extra={"stage": "sample", "steps": 4})
        with working_on(nobodys):
            ours.info("x")
    with answering("r-2"):
        assert current_request() == "r-2"
        ours.warning("y")
    ours.info("z")
    first, second, third, last = lines()
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "studiolo.tests",
        "message": "half of 8",
        "request_id": "r-1",
        "job_id": job.id,
        "stage": "sample",
        "steps": 4,
    }
    assert (second["job_id"], "request_id" in second) == (nobodys.id, False)
    assert (third["level"], third["request_id"], "job_id" in third) == ("warning", "r-2", False)
    assert {"request_id", "job_id"} & last.keys() == set()
    assert current_request() is None


def test_threads_keep_to_their_own_request(lines: Lines):
    with answering("mine"):
        context = copy_context()
        stranger = threading.Thread(target=lambda: ours.info("stranger"))
        helper = threading.Thread(target=context.run, args=(lambda: ours.info("helper"),))
        for thread in (stranger, helper):
            thread.start()
            thread.join(10)
    assert {line["message"]: line.get("request_id") for line in lines()} == {"stranger": None, "helper": "mine"}


def test_an_exceptions_words_stay_out_and_its_places_are_kept(lines: Lines):
    def inner() -> None:
        raise ValueError("a portrait of Anna SECRET")

    try:
        try:
            inner()
        except ValueError as error:
            raise KeyError("SECRET") from error
    except KeyError:
        ours.exception("it broke")
    (line,) = lines()
    assert "SECRET" not in json.dumps(line)
    assert [one["type"] for one in line["error"]] == ["builtins.KeyError", "builtins.ValueError"]
    assert line["error"][1]["at"][-1].endswith(" inner")
    assert "tests/service/test_logs.py:" in line["error"][0]["at"][0]


def test_what_our_own_errors_and_the_system_say_is_kept(lines: Lines):
    for error in (StoreError("store s3://x: away"), FileNotFoundError(2, "No such file", "SECRET.jpg")):
        ours.error("it broke", exc_info=error)
    assert [line["error"][0]["message"] for line in lines()] == ["store s3://x: away", "No such file"]
    assert "SECRET" not in json.dumps(lines())


def test_of_other_libraries_only_the_place_is_kept(lines: Lines):
    with answering("r-1"):
        logging.getLogger("somebody.else").warning("the prompt %s was cut", "SECRET", extra={"prompt": "SECRET"})
        logging.getLogger("httpx").info("HTTP Request: POST https://x.org/?token=SECRET")
    (line,) = lines()
    assert (line["logger"], line["request_id"]) == ("somebody.else", "r-1")
    assert line["message"].startswith("test_logs:")
    assert "SECRET" not in json.dumps(line)


_QUOTES = """
from studiolo.service.logs import configure
configure()
from diffusers.utils import logging as diffusers
from transformers.utils import logging as transformers
def warn():
    for library, name in ((diffusers, "diffusers"), (transformers, "transformers")):
        library.get_logger(f"{name}.x").warning("the part of your input was truncated: SECRET")
warn()
diffusers.set_verbosity_warning()
transformers.set_verbosity_warning()
configure()
warn()
"""


@pytest.mark.slow
def test_libraries_that_quote_prompts_are_silent_whenever_they_are_imported():
    """They have handlers of their own and settings of the whole process, so it is tried in one."""
    done = run([sys.executable, "-c", _QUOTES])
    assert (done.returncode, "SECRET" in done.stdout + done.stderr) == (0, False), done.stderr


def test_what_nobody_caught_is_a_line_without_its_words():
    """The hooks are the process's, so it is tried in one."""
    done = run([sys.executable, "-c", _UNCAUGHT])
    assert "SECRET" not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["warning", "critical", "critical"]
    types = [line["error"][0]["type"] for line in lines[1:]]
    assert types == ["builtins.KeyError", "builtins.ValueError"]
    assert lines[1]["error"][0]["at"][-1].endswith(" fail")
    assert done.returncode == 1


_UNCAUGHT = """
import threading, warnings
from studiolo.service.logs import configure
configure()
def fail():
    raise KeyError("SECRET")
warnings.warn("SECRET")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
raise ValueError("SECRET")
"""


@pytest.mark.slow
def test_mlflow_has_no_handlers_of_its_own():
    done = run([sys.executable, "-c", _MLFLOW])
    assert "SECRET" not in done.stdout + done.stderr
    assert [json.loads(line)["logger"] for line in done.stderr.splitlines()] == ["mlflow.x"] * 2


_MLFLOW = """
import logging
from studiolo.service.logs import configure
configure()
import mlflow
logging.getLogger("mlflow.x").error("SECRET")
mlflow.utils.logging_utils._configure_mlflow_loggers("mlflow")
configure()
logging.getLogger("mlflow.x").error("SECRET")
"""


def test_of_what_is_no_plain_value_only_the_type_is_kept(lines: Lines):
    ours.info("x", extra={"embedding": [0.25] * 128, "png": b"SECRET", "row": {"name": "SECRET"}, "many": "y" * 9000})
    (line,) = lines()
    assert (line["embedding"], line["png"], line["row"]) == ("list", "bytes", "dict")
    assert len(line["many"]) < 600


def test_configuring_again_replaces(lines: Lines):
    stream = io.StringIO()
    configure("WARNING", stream)
    ours.info("not this")
    ours.warning("this")
    assert lines() == []
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["this"]
