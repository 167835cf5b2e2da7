"""A dry run on a real album: figures, and nothing written."""

import re
import time

import pytest

from jobs.estimate import _work, dry_run
from jobs.studio_check import ordered
from studiolo.errors import PlanError, StudioloError
from studiolo.settings import StudioSettings


def test_it_says_what_the_job_would_take_and_writes_nothing(small_albums, quick_config, tmp_path, capsys):
    settings = StudioSettings.load(quick_config, {"albums": str(small_albums), "out": str(tmp_path / "out")})
    started = time.monotonic()
    assert dry_run(settings) == 0
    said = capsys.readouterr().out
    figures = dict(re.findall(r"^ *(\w+) +(\S.*)$", said, re.MULTILINE))
    assert (figures["albums"], figures["people"], figures["photos"]) == ("3", "3", "8")
    assert figures["portraits"].startswith("00:")
    assert "3 ordered, 6 candidates" in said
    assert 1 < float(figures["memory"].split()[0]) < 8
    assert re.fullmatch(r"\d\d:\d\d:\d\d", figures["time"])
    assert "measured on album 'P00" in said
    assert time.monotonic() - started < 600
    assert not (tmp_path / "out").exists()


def test_each_person_is_a_training_and_orders_of_its_own(tmp_path):
    for album in ("anna", "ben"):
        (tmp_path / "albums" / album).mkdir(parents=True)
        (tmp_path / "albums" / album / "photo.jpg").write_bytes(b"")
    (tmp_path / "orders.yaml").write_text(
        "default: {styles: {plain: 2}}\n"
        "albums: [{album_id: anna, styles: {studio: 3, plain: 1}, people: 3, prints: [4x5, 5x7]}]"
    )
    places = {name: str(tmp_path / name) for name in ("albums", "out")} | {"orders": str(tmp_path / "orders.yaml")}
    settings = StudioSettings.load(None, places)
    work = _work(settings, ordered(settings))
    assert (work.albums, work.people, work.photos) == (2, 4, 2)
    assert sorted(work.orders) == [1, 1, 1, 2, 3, 3, 3]
    assert work.prints == 3 * 2 * 4


def test_what_the_job_would_refuse_the_dry_run_refuses(small_albums, quick_config, tmp_path):
    places = {"albums": str(small_albums), "out": str(tmp_path / "out"), "cpus": 1}
    settings = StudioSettings.load(quick_config, {**places, "perception": {"cpus_per_actor": 2}})
    with pytest.raises(PlanError, match="perception"):
        dry_run(settings)


def test_without_a_person_there_is_nothing_to_measure(weights, quick_config, tmp_path):
    (tmp_path / "albums" / "nobody").mkdir(parents=True)
    (tmp_path / "albums" / "nobody" / "photo.jpg").write_bytes(b"")
    settings = StudioSettings.load(quick_config, {"albums": str(tmp_path / "albums"), "out": str(tmp_path / "out")})
    with pytest.raises(StudioloError, match="none of the albums 'nobody' gave a person"):
        dry_run(settings)
