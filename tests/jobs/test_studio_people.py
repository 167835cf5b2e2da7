"""Several people of one album on real models: more are made when more are wanted, and nothing is made anew."""

import csv
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs import studio_job
from jobs.__main__ import app
from studiolo.albums.records import Reason
from studiolo.identities.artifacts import safe_segment
from studiolo.portraits.approvals import APPROVALS
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store

pytestmark = pytest.mark.timeout(900)

OWNER, SECOND, THIRD = "family", "family/other-1", "family/other-2"


@pytest.fixture(scope="module")
def albums(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One album: three photos of one person, two of another."""
    folder = tmp_path_factory.mktemp("people") / "albums" / OWNER
    folder.mkdir(parents=True)
    for person, names in (("P001", ("portrait", "selfie", "expression-02-happy")), ("P002", ("portrait", "selfie"))):
        for name in names:
            shutil.copy(people / person / f"{name}.jpg", folder / f"{person}-{name}.jpg")
    return folder.parent


def run(settings: StudioSettings, order: str) -> int:
    Path(str(settings.orders)).write_text(f"default: {{styles: [studio], {order}}}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio_job, "stop", lambda: None)  # the session's cluster stays up
        return studio_job.run(settings)


@pytest.fixture(scope="module")
def nights(albums: Path, quick_config: Path, ray_cluster: float) -> tuple[Store, list[int], list[dict[str, Any]]]:
    """The output after two nights with one and with three people wanted; exit codes; after each what was there."""
    places = {"albums": str(albums), "out": str(albums.parent / "out"), "orders": str(albums.parent / "orders.yaml")}
    settings, store = StudioSettings.load(quick_config, places), Store(albums.parent / "out")
    codes, left = [], []
    for order in ("people: 1", "people: 3, prints: [2x3@100]"):
        codes.append(run(settings, order))
        names = ("albums", "identities", "portraits", "prints", "face_loras", "references")
        tables = {name: store.read_table(f"{name}.parquet").to_pylist() for name in names}
        files = {path: store.read_bytes(path) for path in store.list() if path.startswith(("identities/", "ledger/"))}
        left.append({**tables, "files": files, "summary": store.read_json("summary.json")})
    return store, codes, left


def test_people_who_are_not_found_fail_alone(nights):
    _, codes, (one, three) = nights
    assert codes == [0, 3]
    assert [(row["identity_id"], row["status"], row["reason"]) for row in one["identities"]] == [(OWNER, "ok", "")]
    assert [(row["identity_id"], row["status"], row["reason"]) for row in three["identities"]] == [
        (OWNER, "ok", ""),
        (SECOND, "ok", ""),
        (THIRD, "failed", Reason.FEWER_PEOPLE),
    ]
    summary = three["summary"]
    assert (summary["identities"], summary["identities_failed"]) == (3, 1)
    assert (summary["orders"], summary["orders_short"], summary["portraits_wanted"]) == (3, 1, 3)


def test_every_photo_is_in_one_row_with_one_outcome(nights):
    for left, refused in zip(nights[2], (2, 0), strict=True):
        photos = Counter(photo["uri"] for row in left["albums"] for photo in row["photos"])
        assert photos == Counter(photo["uri"] for row in nights[2][0]["albums"] for photo in row["photos"])
        assert len(photos) == left["summary"]["photos_in"] == 5
        reasons = Counter(photo["reason"] for row in left["albums"] for photo in row["photos"])
        assert reasons == Counter({"": 5 - refused, Reason.OTHER_PERSON: refused})
    of_second = next(row for row in nights[2][1]["albums"] if row["identity_id"] == SECOND)
    assert {photo["uri"][:4] for photo in of_second["photos"]} == {"P002"}


def test_more_people_are_made_and_nothing_is_made_anew(nights):
    one, three = nights[2]
    assert one["files"].items() < three["files"].items()
    added = three["files"].keys() - one["files"].keys()
    assert Counter(path.split("/")[2] for path in added if path.startswith("ledger")) == Counter(
        {"album": 1, "identity": 1, "order": 1, "print": 2}
    )
    assert {path.split("/")[2] for path in added if path.startswith("identities")} == {"other-1", "prints"}
    assert {row["identity_id"]: row["resumed"] for row in three["face_loras"]} == {OWNER: True, SECOND: False}
    for name in ("portraits", "references"):
        assert [row for row in three[name] if row["identity_id"] == OWNER] == one[name]
        assert {row["identity_id"] for row in three[name]} == {OWNER, SECOND}
    assert len({row["seed"] for row in three["portraits"]}) == len(three["portraits"])


def test_each_has_a_page_prints_and_rows_to_approve(nights):
    store, _, (_, three) = nights
    assert store.list("gallery/people") == sorted(
        f"gallery/people/{safe_segment(name)}.html" for name in (OWNER, SECOND, THIRD)
    )
    rows = list(csv.DictReader(io.StringIO(store.read_bytes(APPROVALS).decode())))
    assert [row["album_id"] for row in rows] == [OWNER, SECOND]
    assert [row["path"].split("/portraits")[0] for row in rows] == [f"identities/{name}" for name in (OWNER, SECOND)]
    assert {row["portrait_id"] for row in three["prints"]} == {row["portrait_id"] for row in rows}


def test_they_are_delivered_together_and_erased_together(nights, tmp_path: Path):
    store = nights[0]
    signer = ["--development", str(tmp_path / "provenance")]
    result = CliRunner().invoke(app, ["deliver", store.url, "--to", str(tmp_path / "to"), *signer])
    assert result.exit_code == 3
    assert f"short: {OWNER} ({THIRD}, Studio: 0 of 1" in result.output
    delivered = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*.png")}
    assert delivered == {"family/portraits/studio-01.png", "family/other-1/portraits/studio-01.png"}
    assert CliRunner().invoke(app, ["retain", store.url, "--albums", OWNER]).exit_code == 0
    assert store.list("identities") == store.list("ledger") == store.list("gallery/people") == []
    assert not list((tmp_path / "to").rglob("*.*"))
