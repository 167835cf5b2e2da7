"""The threat model names every door, and each attack the tests that try it; all of these tests there are."""

import ast
import re
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
DOORS = (
    "Keys",
    "Ids in URLs",
    "Headers",
    "JSON bodies",
    "Uploads",
    "Photos by URL",
    "Names",
    "Prompts",
    "Safetensors",
    "Order files",
    "Webhooks",
    "Store paths",
    "The provenance route",
    "The studio page",
)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@lru_cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def rows(door: str) -> list[str]:
    """The table of a door, without its head."""
    (section,) = re.findall(rf"^## {door}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_door_has_attacks_and_every_attack_a_test_that_there_is() -> None:
    for door in DOORS:
        assert rows(door), door
        for row in rows(door):
            tried, outcome, tests = (cell.strip() for cell in row.strip("|").split(" | "))
            named = NAMED.findall(tests)
            assert tried, row
            assert outcome, row
            assert named, row
            assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_every_test_of_hostile_things_is_named() -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_hostile_*.py")]
    paths += ["tests/web/test_polyglots.py", "tests/web/test_cross_tenant.py"]
    named = set(NAMED.findall(PAGE))
    missing = [(path, name) for path in paths for name in names_in(path) if name.startswith("test_")]
    assert [one for one in missing if one not in named] == []
