"""The rules of the house, proved on the syntax tree, function bodies included.

Imports run one way: studiolo <- actors <- pipelines <- jobs; studiolo <- web; studiolo, actors, web <-
serve_app.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY, APPLICATION = "studiolo", ("actors", "pipelines", "jobs", "web", "serve_app")

MAY_IMPORT = {
    "studiolo": {"studiolo"},
    "actors": {"studiolo", "actors"},
    "pipelines": {"studiolo", "actors", "pipelines"},
    "jobs": {"studiolo", "actors", "pipelines", "jobs"},
    "web": {"studiolo", "web"},
    "serve_app": {"studiolo", "actors", "web"},
    "benchmarks": {"studiolo", "actors", "pipelines", "jobs", "benchmarks"},
}
"""Which of our own top-level names each may import."""

ONLY_IN = {
    "ray": ("pipelines/", "jobs/", "serve_app.py", "tests/", "benchmarks/"),
    "mlflow": ("studiolo/storage/tracking.py", "tests/"),
    "fastapi": ("web/", "serve_app.py", "tests/", "benchmarks/plain_server.py"),
    "starlette": ("web/", "serve_app.py", "tests/"),
    "uvicorn": ("web/", "serve_app.py", "tests/", "benchmarks/plain_server.py"),
    "python_multipart": ("web/", "tests/"),
    "openai": ("tests/", "benchmarks/"),
    "gradio": ("web/", "serve_app.py", "tests/"),
    "sqlalchemy": ("studiolo/service/", "tests/", "benchmarks/"),
    "alembic": ("studiolo/service/", "tests/"),
    "c2pa": ("studiolo/provenance/manifests.py", "tests/"),
    "prometheus_client": ("studiolo/service/metrics.py", "tests/", "benchmarks/cluster.py"),
    "torchvision": (),
}
"""Where a package may be imported."""

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 500


def _sources() -> list[str]:
    """Relative paths of all Python files of the project."""
    places = [*MAY_IMPORT, "tests"]
    files = [path for place in places for path in sorted((ROOT / place).rglob("*.py"))]
    files += [ROOT / f"{place}.py" for place in places if (ROOT / f"{place}.py").exists()]
    return [path.relative_to(ROOT).as_posix() for path in files]


SOURCES = _sources()


def imported(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import in `tree`, however it is written."""
    package = path.removesuffix(".py").removesuffix("/__init__").split("/")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            if not node.module:
                yield from ((node.lineno, f"{module}.{alias.name}".lstrip(".")) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def import_violations(source: str, path: str) -> list[str]:
    """Imports of `source` at `path` that the rules forbid, one sentence each."""
    layer = path.split("/")[0].removesuffix(".py")
    allowed = MAY_IMPORT.get(layer)
    problems = []
    for line, module in imported(ast.parse(source), path):
        top = module.split(".")[0]
        if allowed is not None and top in MAY_IMPORT and top not in allowed:
            problems.append(f"{path}:{line}: {layer} may not import {module}")
        if top in ONLY_IN and not path.startswith(ONLY_IN[top]):
            problems.append(f"{path}:{line}: {top} may be imported only in {', '.join(ONLY_IN[top]) or 'nothing'}")
    return problems


def length_violations(source: str, path: str) -> list[str]:
    """Modules and functions of `source` that are longer than the house allows."""
    lines = source.count("\n") + (not source.endswith("\n"))
    problems = [f"{path}: {lines} lines, at most {MAX_MODULE_LINES}"] if lines > MAX_MODULE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                problems.append(f"{path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}")
    return problems


@pytest.mark.parametrize("path", SOURCES)
def test_imports_run_one_way(path: str) -> None:
    assert import_violations((ROOT / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize("path", SOURCES)
def test_functions_and_modules_keep_their_limits(path: str) -> None:
    assert length_violations((ROOT / path).read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("studiolo/storage/store.py", "import ray"),
        ("studiolo/storage/store.py", "def f():\n    if True:\n        from ray.data import Dataset"),
        ("studiolo/albums/people.py", "from actors.perceiver import Perceiver"),
        (
            "studiolo/albums/people.py",
            "class A:\n    def f(self):\n        import importlib\n        importlib.import_module('jobs')",
        ),
        ("studiolo/albums/people.py", "__import__('pipelines.studio')"),
        ("studiolo/storage/ledger.py", "import mlflow.entities"),
        ("studiolo/service/keys.py", "from starlette.requests import Request"),
        ("actors/perceiver.py", "import ray as r"),
        ("actors/perceiver.py", "from pipelines import studio"),
        ("actors/perceiver.py", "async def f():\n    import jobs.studio"),
        ("actors/perceiver.py", "import mlflow"),
        ("pipelines/studio.py", "from jobs.progress import Progress"),
        ("jobs/studio.py", "import fastapi"),
        ("jobs/studio.py", "import web.routes"),
        ("web/routes.py", "from actors import perceiver"),
        ("web/routes.py", "import ray"),
        ("web/routes.py", "from sqlalchemy.orm import Session"),
        ("studiolo/storage/ledger.py", "import alembic"),
        ("web/routes.py", "import serve_app"),
        ("studiolo/service/uploads.py", "import python_multipart"),
        ("serve_app.py", "import jobs"),
        ("serve_app.py", "lambda: __import__('pipelines')"),
        ("tests/test_x.py", "import torchvision"),
    ],
)
def test_a_planted_import_is_caught(path: str, source: str) -> None:
    assert len(import_violations(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("studiolo/storage/tracking.py", "def f():\n    from mlflow import MlflowClient"),
        (
            "studiolo/albums/people.py",
            "from . import records\nfrom ..errors import StoreError\nimport rayleigh",
        ),
        ("pipelines/studio.py", "import ray\nfrom actors import perceiver\nfrom studiolo import settings"),
        ("serve_app.py", "from ray import serve\nimport fastapi\nimport studiolo"),
    ],
)
def test_allowed_imports_pass(path: str, source: str) -> None:
    assert import_violations(source, path) == []


PAGE_MAY_IMPORT = {
    *("studiolo.albums.decode", "studiolo.albums.isolation", "studiolo.albums.records"),
    *("studiolo.errors", "studiolo.settings", "studiolo.service.endpoint"),
    *("studiolo.perception.detect", "studiolo.perception.suite", "studiolo.perception.upright"),  # to find faces
    *("studiolo.service.identities", "studiolo.service.records"),
    *("web.asgi", "web.errors", "web.page", "web.types"),
}
"""Words, settings, and how a picture that was dropped is looked at: what the page does, it asks `/v1` to do."""
PAGE_MAY_NAME = {
    "studiolo.perception.detect": {"Detection", "Detector"},
    "studiolo.perception.suite": {"open_detector"},
    "studiolo.perception.upright": {"make_upright"},
    "studiolo.service.identities": {"IdentityState"},
    "studiolo.service.records": {"Kind", "State"},
}
"""Of some of these modules, no more than this."""


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("web/page/")])
def test_the_page_is_a_client_of_the_routes(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    ours = {module for _, module in imported(tree, path) if module.split(".")[0] in MAY_IMPORT}
    assert {module for module in ours if not module.startswith("web.page.")} <= PAGE_MAY_IMPORT
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in PAGE_MAY_NAME:
            assert {alias.name for alias in node.names} <= PAGE_MAY_NAME[node.module]


def test_what_is_too_long_is_caught() -> None:
    long_function = "async def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
    assert length_violations(long_function, "a.py") == ["a.py:1: f has 61 lines, at most 60"]
    assert length_violations("x = 1\n" * (MAX_MODULE_LINES + 1), "a.py") == ["a.py: 501 lines, at most 500"]
    assert length_violations("x = 1\n" * MAX_MODULE_LINES, "a.py") == []


def test_all_parts_of_the_house_are_looked_at() -> None:
    assert {path.split("/")[0] for path in SOURCES} >= {
        "studiolo",
        "actors",
        "pipelines",
        "jobs",
        "web",
        "tests",
        "serve_app.py",
    }


def _tracked_texts() -> Iterator[tuple[str, str]]:
    """(path, content) of every text file that is, or is about to be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    for name in sorted(set(listing.stdout.decode().split("\0")) - {""}):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content[:8192]:
                yield name, content.decode("utf-8", errors="replace")


_MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root)" + r"(?:/|\b)(?!\w)")


def test_no_text_names_a_path_of_one_machine() -> None:
    this = Path(__file__).relative_to(ROOT).as_posix()
    found = [
        f"{name}:{number}"
        for name, text in _tracked_texts()
        if name != this
        for number, line in enumerate(text.splitlines(), 1)
        if _MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("line", ["open('/work/shared/x')", "cd /root", 'path = "/root/.cache"', "see /work/main."])
def test_a_planted_path_is_caught(line: str) -> None:
    assert _MACHINE_PATH.search(line)


@pytest.mark.parametrize(
    "line", ["a piece of work/play", "net/work/", "https://x.org/a/root/b", "tmp/rooted", "/workers/"]
)
def test_other_words_are_not_paths(line: str) -> None:
    assert not _MACHINE_PATH.search(line)
