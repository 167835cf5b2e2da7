"""The documentation says what is true: generated pages are current, links resolve, commands exist."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs import reference
from studiolo.datasets.card import column_table
from studiolo.datasets.settings import DatasetSettings
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.webhooks import new_secret, signed
from studiolo.settings import Settings, StudioSettings
from web import edits, events, identities, jobs, openai_images, portraits, provenance, service, styles

ROOT = Path(__file__).parents[1]
COMMANDS = ("README.md", "CONTRIBUTING.md", "docs")


def _pages(*places: str) -> list[Path]:
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path] if path.exists() else []
    return found


PAGES = _pages("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "studiolo", "benchmarks", "deploy")


@pytest.mark.parametrize("name", reference.PAGES)
def test_generated_pages_are_current(name: str) -> None:
    path = reference.FOLDER / name
    assert path.is_file(), "run `python -m jobs.reference`"
    assert path.read_text(encoding="utf-8") == reference.PAGES[name](), "run `python -m jobs.reference`"


@pytest.mark.parametrize(
    ("page", "settings"),
    [
        (reference.settings_markdown, StudioSettings(albums="a", out="b")),
        (reference.service_markdown, EndpointSettings()),
        (reference.dataset_markdown, DatasetSettings.load(None, {"sources": ["synthetic:count=1"], "out": "b"})),
    ],
    ids=["studio", "service", "dataset"],
)
def test_the_settings_page_has_every_setting_with_a_meaning(page: Callable[[], str], settings: Settings) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| ([^|]*) \|$", page(), re.MULTILINE)

    def leaves(values: dict[str, object], prefix: str = "") -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    assert {name for name, _ in rows} == set(leaves(settings.model_dump()))
    assert [name for name, meaning in rows if not meaning.endswith(".")] == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    broken = []
    for link in links:
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        lies_here = target.exists() and target.is_relative_to(ROOT)
        if not lies_here or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    assert _broken_links(page) == []


def test_a_broken_link_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_docs.ROOT" if __name__ == "test_docs" else f"{__name__}.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](gone.md) [b](#a-title) [c](#nowhere) ![d](../out.png) `[e](code.md)` [f](https://x)"
    )
    assert _broken_links(page) == ["gone.md", "#nowhere", "../out.png"]


def _code(pages: list[Path]) -> str:
    """Everything in code marks, the only place where a command is meant literally."""
    texts = [page.read_text(encoding="utf-8") for page in pages]
    return "\n".join(code for text in texts for code in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?<![\w-])make ([a-z][a-z-]*)", _code(_pages(*COMMANDS))))
    assert {"demo", "test"} <= named
    assert named - targets == set()


def test_every_job_named_exists_with_its_options() -> None:
    from jobs.__main__ import app

    command = typer.main.get_command(app)
    uses = re.findall(r"python -m jobs((?: [^\s`|&;\\]+| \\\n)*)", _code(_pages(*COMMANDS)))
    uses += re.findall(r"python -m jobs((?: [^\s`|&;\\]+)*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    problems = [problem for use in uses if (problem := _problem(command, use.replace("\\", " ").split()))]
    assert uses, "the README names no job"
    assert problems == []


def _problem(command: object, words: list[str]) -> str | None:
    """What is wrong with `words` after `python -m jobs`: an unknown command or an unknown option."""
    here, trail = command, ""
    for word in words:
        if word.startswith(("[", "...")):
            return None
        if word.startswith("-"):
            known = {option for parameter in here.params for option in parameter.opts + parameter.secondary_opts}  # type: ignore[attr-defined]
            if word.split("=")[0] not in known | {"--help"}:
                return f"{trail}: no option {word}"
        elif hasattr(here, "commands"):
            if word not in here.commands:
                return f"{trail}: no command {word}" if re.fullmatch(r"[a-z][a-z-]*", word) else None
            here, trail = here.commands[word], f"{trail} {word}"
    return None


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        ("studio --albums x --out=y", None),
        ("models pull ID", None),
        ("models show ID --help", None),
        ("[OPTIONS] COMMAND", None),
        ("stduio --albums x", ": no command stduio"),
        ("models push", " models: no command push"),
        ("studio --ablums x", " studio: no option --ablums"),
    ],
)
def test_a_wrong_command_would_be_found(use: str, problem: str | None) -> None:
    app, models = typer.Typer(), typer.Typer()

    @app.command()
    def studio(albums: str = typer.Option(), out: str = typer.Option("")) -> None: ...

    models.command("pull")(lambda: None)
    models.command("show")(lambda: None)
    app.add_typer(models, name="models")
    assert _problem(typer.main.get_command(app), use.split()) == problem


def test_the_page_on_data_sets_has_the_cards_table_of_columns() -> None:
    assert column_table() in (ROOT / "docs/datasets.md").read_text(encoding="utf-8")


ENDPOINT = ROOT / "docs/endpoint.md"


def test_the_check_of_webhooks_that_is_shown_takes_ours_and_no_other() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", ENDPOINT.read_text(encoding="utf-8"), re.DOTALL)
    shown: dict[str, Any] = {}
    exec(code, shown)
    secret, body, now = new_secret(), b'{"id":"job_1"}', int(time.time())
    headers = signed(secret, "hook_1", now, body)
    assert shown["is_ours"](secret, headers, body)
    assert not shown["is_ours"](secret, headers, body + b" ")
    assert not shown["is_ours"](new_secret(), headers, body)
    assert not shown["is_ours"](secret, signed(secret, "hook_1", now - 3600, body), body)


def test_every_route_named_exists() -> None:
    routes = {
        re.sub(r"{\w+}", "*", route.path)
        for module in (edits, events, identities, jobs, openai_images, portraits, provenance, service, styles)
        for route in module.router.routes
    }
    code = _code(_pages(*COMMANDS))
    named = {re.sub(r"\b[A-Z]+\b|{\w+}|\b\d+$", "*", path) for path in re.findall(r"/v1/[\w{}/]+", code)}
    assert len(named) > 5
    assert named - routes == set()


def test_every_module_named_exists() -> None:
    named = set(re.findall(r"python -m ((?:jobs|benchmarks|pipelines)\.[\w.]+)", _code(_pages(*COMMANDS))))
    missing = [name for name in named if not (ROOT / (name.replace(".", "/") + ".py")).exists()]
    assert [name for name in missing if "NAME" not in name] == []
