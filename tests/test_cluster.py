"""cluster.yaml passes Ray's own validation and agrees with the rest of the project."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def prepared(raw: dict[str, Any]) -> dict[str, Any]:
    config = prepare_config(copy.deepcopy(raw))
    validate_config(config)
    return config


def test_ray_accepts_it(prepared: dict[str, Any]) -> None:
    nodes = prepared["available_node_types"]
    assert set(nodes) == {"head", "cpu_worker", "gpu_worker"}
    assert nodes["head"]["max_workers"] == 0
    for name in ("cpu_worker", "gpu_worker"):
        assert 0 <= nodes[name]["min_workers"] <= nodes[name]["max_workers"] <= prepared["max_workers"]
    assert nodes["gpu_worker"]["resources"]["GPU"] == 1


def test_ray_would_refuse_a_misspelt_one(raw: dict[str, Any]) -> None:
    broken = copy.deepcopy(raw)
    broken["available_node_types"]["cpu_worker"]["max_wrokers"] = 2
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(broken))
    headless = copy.deepcopy(raw)
    headless["head_node_type"] = "hed"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(headless))


def test_what_it_carries_exists(raw: dict[str, Any]) -> None:
    local = [path for path in raw["file_mounts"].values() if not path.startswith("~")]
    assert [path for path in local if not (ROOT / path).exists()] == []
    carried = {Path(path).name for path in local}
    assert {"studiolo", "actors", "pipelines", "jobs", "serve_app.py"} <= carried


def test_its_images_have_the_pinned_ray(raw: dict[str, Any]) -> None:
    pinned = re.search(r"^ray(?:\[.*\])?==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    gpu_image = raw["available_node_types"]["gpu_worker"]["docker"]["worker_image"]
    for image in (raw["docker"]["image"], gpu_image):
        assert image.startswith(f"rayproject/ray:{pinned[1]}-py311-")


def test_every_node_asks_for_the_token(raw: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        (start,) = (command for command in raw[f"{role}_start_ray_commands"] if "ray start" in command)
        assert "RAY_AUTH_MODE=token" in start


def test_a_job_finds_cpus_to_plan_with(raw: dict[str, Any]) -> None:
    nodes = raw["available_node_types"].values()
    assert sum(node.get("min_workers", 0) * node["resources"]["CPU"] for node in nodes) >= 2


def test_its_nodes_have_all_that_is_not_for_development(raw: dict[str, Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"-e '\.\[(.*)\]'", "\n".join(raw["setup_commands"]))
    installed = {package for extra in named.split(",") for package in extras[extra]}
    assert installed >= {package for extra, packages in extras.items() if extra != "dev" for package in packages}


def test_its_commands_join_it_with_its_token() -> None:
    comments = re.findall(r"^# (.*)$", (ROOT / "cluster.yaml").read_text(), re.MULTILINE)
    commands = [line for line in comments if "cd studiolo &&" in line]
    assert len(commands) == 2
    assert all("RAY_ADDRESS=auto RAY_AUTH_MODE=token" in command for command in commands)
