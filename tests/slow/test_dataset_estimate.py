"""What a dry run says before a job of any size, and that it leaves nothing behind."""

import re
from pathlib import Path

import pytest

from jobs.dataset_estimate import dry_run
from studiolo.datasets.settings import AnnotationSettings, DatasetSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    lines = [
        re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines() if "  " in line
    ]
    return {name: rest for name, rest in lines}


def test_a_dry_run_plans_from_a_few_pictures_and_writes_nothing(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"sources": ["synthetic:count=1000000,side=128"], "out": str(tmp_path / "out"), "cpus": 2}
    assert dry_run(DatasetSettings.load(None, values)) == 0
    plan = said(capsys)
    assert plan["pictures"] == "1000000"
    assert plan["shards"] == str(-(-1_000_000 // AnnotationSettings().rows_per_shard))
    assert plan["slots"].startswith("2 actors x 1 CPUs = 2 of 2")
    seconds = float(plan["a picture"].partition(" s")[0])
    hours = float(plan["annotate"].removesuffix(" h"))
    assert hours == pytest.approx(seconds * 1_000_000 / 2 / 3600, rel=0.2)
    assert float(plan["caption"].partition(" h")[0]) > 0
    assert plan["caption"].endswith("by grammar")
    assert float(plan["disk"].partition(" GiB")[0]) > 1
    assert not (tmp_path / "out").exists()

    dry_run(DatasetSettings.load(None, {**values, "sources": ["synthetic:count=1,side=128"], "captioner": "openai"}))
    assert said(capsys)["caption"] == "not tried, by openai"
