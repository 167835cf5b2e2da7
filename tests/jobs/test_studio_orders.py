"""A job with an order file on real models: what is ordered is made, in a picture too, printed, and made more of."""

import csv
import datetime
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs import studio_job
from jobs.__main__ import app
from studiolo.portraits.approvals import APPROVALS, BATCH, more_first_index
from studiolo.portraits.files import decode_portrait
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store

pytestmark = pytest.mark.timeout(900)

ORDERS = """\
default: none
albums:
  - album_id: P001
    styles: {studio: 2, plain: 1}
    edits: {party: 1}
    prints: [4x5@100, 3x2@100]
    delete_after: 2099-12-31
"""


def run(settings: StudioSettings) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio_job, "stop", lambda: None)  # the session's cluster stays up
        return studio_job.run(settings)


@pytest.fixture(scope="module")
def finished(small_albums, quick_config, tmp_path_factory, ray_cluster):
    """Settings and store of a finished job of one of three albums."""
    folder = tmp_path_factory.mktemp("ordered")
    (folder / "orders.yaml").write_text(ORDERS)
    (folder / "templates").mkdir()
    template = Image.open(small_albums / "P002" / "portrait.jpg").convert("RGB").resize((480, 480))
    template.save(folder / "templates" / "party.png")
    places = {name: str(folder / name) for name in ("out", "templates")}
    places |= {"albums": str(small_albums), "orders": str(folder / "orders.yaml")}
    settings = StudioSettings.load(quick_config, places)
    assert run(settings) == 0
    return settings, Store(folder / "out")


def rows(store: Store, name: str) -> list[dict]:
    return store.read_table(f"{name}.parquet").to_pylist()


def test_what_is_ordered_is_made_and_nothing_else(finished):
    _, store = finished
    assert [row["album_id"] for row in rows(store, "albums")] == ["P001"]
    accepted = [row["style"] for row in rows(store, "portraits") if row["status"] == "ok"]
    assert sorted(accepted) == ["party", "plain", "studio", "studio"]
    summary = store.read_json("summary.json")
    assert (summary["orders"], summary["portraits_wanted"], summary["orders_short"]) == (3, 4, 0)


def test_in_a_picture_the_face_alone_is_drawn(finished):
    settings, store = finished
    (row,) = [row for row in rows(store, "portraits") if row["style"] == "party" and row["status"] == "ok"]
    rgb_u8, inside = decode_portrait(store.read_bytes(row["path"]))
    with Image.open(Path(settings.templates) / "party.png") as template:
        changed = (rgb_u8 != np.asarray(template)).any(axis=-1)
    assert inside["controlnets"] == "embedded-controlnets"
    assert 0.02 < changed.mean() < 0.5
    assert not changed[[0, -1]].any()
    assert not changed[:, [0, -1]].any()
    pages = [path for path in store.list("gallery") if path.endswith(".html")]
    assert any("In party" in store.read_bytes(path).decode() for path in pages)


def test_every_accepted_portrait_has_its_prints_or_a_reason(finished):
    _, store = finished
    accepted = {row["portrait_id"] for row in rows(store, "portraits") if row["status"] == "ok"}
    prints = rows(store, "prints")
    assert {(row["portrait_id"], row["print"]) for row in prints} == {
        (portrait, size) for portrait in accepted for size in ("4x5@100", "3x2@100")
    }
    for row in prints:
        assert (row["status"] == "ok") == bool(row["path"])
        assert row["status"] == "ok" or row["reason"] in ("crop_cuts_face", "not_one_face")
        if row["path"]:
            with Image.open(store.local_path(row["path"])) as image:
                assert image.size == {"4x5@100": (400, 500), "3x2@100": (300, 200)}[row["print"]]


def test_more_like_this_makes_more_and_nothing_anew(finished):
    settings, store = finished
    before = {path: store.read_bytes(path) for path in store.list("identities")}
    orders = set(store.list("ledger/done/order"))
    table = list(csv.DictReader(io.StringIO(store.read_bytes(APPROVALS).decode())))
    assert {row["decision"] for row in table} == {""}
    chosen = next(row for row in table if row["style"] == "studio" and row["rank"] == "1")
    content = (
        store.read_bytes(APPROVALS).decode().replace(f"{chosen['portrait_id']},,", f"{chosen['portrait_id']},more,")
    )
    store.write_bytes(APPROVALS, content.encode())
    assert run(settings) == 0
    made = rows(store, "portraits")
    alike = [row for row in made if row["index"] >= BATCH]
    assert {row["index"] // BATCH * BATCH for row in alike} == {more_first_index(chosen["portrait_id"])}
    assert sorted(row["rank"] for row in alike if row["status"] == "ok") == [3, 4]
    assert len(set(store.list("ledger/done/order")) - orders) == 1
    assert orders < set(store.list("ledger/done/order"))
    assert {path: store.read_bytes(path) for path in before} == before
    assert rows(store, "face_loras")[0]["resumed"]


def test_an_album_that_was_erased_is_not_made_again(finished, tmp_path: Path):
    settings, store = finished
    assert CliRunner().invoke(app, ["retain", store.url, "--albums", "P001"]).exit_code == 0
    assert store.list("identities") == store.list("ledger") == []
    orders = tmp_path / "orders.yaml"
    orders.write_text("default: none\nalbums: [{album_id: P001}]")
    from jobs.studio_check import check_request
    from studiolo.errors import SettingsError

    with pytest.raises(SettingsError, match="1 are left out because of their dates"):
        check_request(settings.model_copy(update={"orders": str(orders)}))
    assert list(check_request(settings).orders) == ["P001"]  # this order names a day to come
    assert datetime.date.today() < check_request(settings).orders["P001"].delete_after
