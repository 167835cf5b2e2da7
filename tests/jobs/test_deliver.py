import datetime
import io
import json
import re
import tracemalloc
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.__main__ import app
from jobs.deliver import _orders
from studiolo.albums.records import IDENTITY_SCHEMA, PORTRAIT_SCHEMA, Reason
from studiolo.errors import SettingsError, UsageError
from studiolo.identities.artifacts import identity_folder, safe_segment
from studiolo.portraits.approvals import APPROVALS, Approvals
from studiolo.portraits.delivery import NOTE, plan_delivery, write_delivery
from studiolo.portraits.order_file import ORDERED_SCHEMA
from studiolo.portraits.prints import PRINT_SCHEMA
from studiolo.provenance.credentials import Credentials
from studiolo.provenance.manifests import ManifestState, Signer, read_manifest, without_manifest
from studiolo.settings import ProvenanceSettings
from studiolo.storage.store import Store
from tests.jobs.finished_job import finished_job
from tests.portraits.job_rows import ODD_NAME, picture, png

ODD = ODD_NAME.replace("/", "-")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A finished job: 2 of 2 portraits in one style, 2 of 3 in the other, with a print each; one customer failed."""
    return finished_job(tmp_path, ("anna", ODD, "nobody"), {}, datetime.date.today(), failed="nobody")


def deliver(store: Store, to: Path, *options: str) -> int:
    signer = ["--development", str(to.parent / "provenance")]
    result = CliRunner().invoke(app, ["deliver", store.url, "--to", str(to), *signer, *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code


def decide(store: Store, **decisions: str) -> None:
    """Fill in the approvals: `studio_1="reject"` is the first portrait of anna in studio."""
    rows = store.read_bytes(APPROVALS).decode().splitlines()
    for name, decision in decisions.items():
        style, _, rank = name.replace("warm_film", "warm-film").rpartition("_")
        rows = [row.replace(f",,,anna,{style},{rank},", f",{decision},,anna,{style},{rank},") for row in rows]
    store.write_bytes(APPROVALS, "\n".join(rows).encode())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_for_each_customer_with_what_was_ordered(store: Store, tmp_path: Path):
    assert deliver(store, tmp_path / "to") == 3
    shots = ("studio-01", "studio-02", "warm-film-01", "warm-film-02")
    files = [*(f"portraits/{name}.png" for name in shots), *(f"prints/{name}-2x3@100.jpg" for name in shots)]
    assert names(tmp_path / "to" / "anna") == sorted(["index.html", "order.txt", *files])
    letter = (tmp_path / "to" / "anna" / "order.txt").read_text()
    assert "Studio" in letter
    assert "2 ordered, 2 delivered" in letter
    assert "3 ordered, 2 delivered\n  2 of 3 – of the other 3 candidates" in letter
    assert "Prints 2x3@100: 4 files" in letter
    failed = (tmp_path / "to" / "nobody" / "order.txt").read_text()
    assert "No picture of this album could be used" in failed
    assert "0 of 2 – no candidate was made" in failed
    with Image.open(tmp_path / "to" / "anna" / "prints" / "studio-01-2x3@100.jpg") as image:
        assert image.size == (200, 300)


def test_the_page_links_its_own_files_and_nothing_outside(store: Store, tmp_path: Path):
    deliver(store, tmp_path / "to")
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(value for name, value in attrs if name in ("href", "src") and value != "data:,")

    for customer in ("anna", safe_segment(ODD)):
        folder = tmp_path / "to" / customer
        Links().feed((folder / "index.html").read_text())
        assert {unquote(link) for link in found} == {name for name in names(folder) if "/" in name}
        found.clear()
    page = (tmp_path / "to" / safe_segment(ODD) / "index.html").read_text()
    assert "<b onclick" not in page


def test_each_person_of_an_album_has_a_part_of_its_delivery(tmp_path: Path):
    names_of = ("anna", "anna/other-1", "anna/other-2", "anna b")  # of which the last sorts between the first two
    store = finished_job(tmp_path, names_of, {}, datetime.date.today(), failed="anna/other-2")
    assert deliver(store, tmp_path / "to") == 3
    found = names(tmp_path / "to" / "anna")
    of_owner = [name for name in found if name.startswith(("portraits/", "prints/"))]
    assert len(of_owner) == 8
    assert [name for name in found if name.startswith("other-")] == [f"other-1/{name}" for name in of_owner]
    assert len(found) == 2 * 8 + 2
    for name in of_owner:  # each its own picture
        assert len({(tmp_path / "to" / "anna" / part / name).read_bytes() for part in ("", "other-1")}) == 2
    letter = (tmp_path / "to" / "anna" / "order.txt").read_text()
    of_each = "Studio: 2 ordered, 2 delivered\nWarm film: 3 ordered, 2 delivered\n  2 of 3 – of the other 3 candidates"
    assert letter.startswith(f"Portraits for anna\n\nanna\n{of_each}")
    assert f"\n\nanna/other-1\n{of_each}" in letter
    assert f"\n\nanna/other-2\n{Reason.NOTHING_USABLE.sentence()}\n\nStudio: 2 ordered, 0 delivered" in letter
    assert letter.endswith("Prints 2x3@100: 8 files\n")
    page = (tmp_path / "to" / "anna" / "index.html").read_text()
    assert [line for line in page.splitlines() if line.startswith("<h2>")] == [
        *(f"<h2>{name}</h2>" for name in names_of[:3]),
        "<h2>Prints</h2>",
    ]
    assert all(unquote(page).count(f'href="{name}"') == 1 for name in found if "/" in name)


def test_people_who_are_wanted_no_more_are_delivered_no_more(tmp_path: Path):
    store = finished_job(tmp_path, ("anna", "anna/other-1"), {}, datetime.date.today())
    deliver(store, tmp_path / "to")
    for name in ("other-1/notes.txt", "others/portraits/a.png"):
        place = tmp_path / "to" / "anna" / name
        place.parent.mkdir(exist_ok=True, parents=True)
        place.write_bytes(b"x")
    for table in ("identities", "portraits", "prints"):
        store.keep_rows(f"{table}.parquet", lambda row: row["identity_id"] == "anna")
    deliver(store, tmp_path / "to")
    assert {name for name in names(tmp_path / "to" / "anna") if name.startswith("other")} == {
        *("other-1/notes.txt", "others/portraits/a.png"),
    }


def test_files_that_no_delivery_wrote_are_neither_removed_nor_written_over(store: Store, tmp_path: Path):
    own = {name: f"of the customer: {name}".encode() for name in ("portraits/IMG_1.png", "prints/2x3.jpg")}
    own |= {"portraits/studio-07.png": png(picture(1)), "other-1/prints/a-01-4x5.jpg": b"\xff\xd8"}
    for name, content in own.items():
        Store(tmp_path / "to").write_bytes(f"anna/{name}", content)
    for again in range(2):
        assert deliver(store, tmp_path / "to") == 3, again
    assert {name: (tmp_path / "to" / "anna" / name).read_bytes() for name in own} == own
    for name in ("anna/index.html", "anna/portraits/studio-02.png", "anna.zip"):
        place = Store(tmp_path / "second")
        place.write_bytes(name, b"of the customer")
        with pytest.raises(UsageError, match="is no delivered file; move it away"):
            deliver(store, tmp_path / "second", *(["--zip"] if name.endswith(".zip") else []))
        assert [path for path in place.list() if path.startswith("anna")] == [name]
        assert place.read_bytes(name) == b"of the customer"
        place.remove(name)


@pytest.mark.parametrize("zipped", [(), ("--zip",)])
def test_an_older_delivery_without_notes_is_known_by_its_files(store: Store, tmp_path: Path, zipped: tuple[str, ...]):
    deliver(store, tmp_path / "to", *zipped)
    for album in ("anna", ODD):
        store.remove(f"{identity_folder(album)}/{NOTE}")
    Store(tmp_path / "to").write_bytes("anna/portraits/IMG_1.png", png(picture(1)))
    decide(store, studio_1="reject")
    deliver(store, tmp_path / "to", "--zip")  # the other form, of a folder
    deliver(store, tmp_path / "to")
    found = names(tmp_path / "to")
    assert not [name for name in found if name.endswith(".zip") or "anna/portraits/studio-01" in name]
    assert {"anna/portraits/IMG_1.png", "anna/portraits/studio-02.png", "anna/index.html"} < set(found)


def test_a_delivery_that_was_killed_is_known_to_the_next(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = Store.write_bytes

    def cut_off(self: Store, path: str, content: bytes) -> None:
        if path == "anna/prints/studio-01-2x3@100.jpg":
            raise RuntimeError("killed")
        whole(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_bytes", cut_off)
        with pytest.raises(RuntimeError):
            deliver(store, tmp_path / "to")
    (tmp_path / "to" / "anna" / "portraits" / "studio-01.png").write_bytes(b"retouched by the studio")
    decide(store, studio_1="reject")
    deliver(store, tmp_path / "to")
    assert not [name for name in names(tmp_path / "to" / "anna") if "studio-01" in name]


def test_what_goes_is_signed_and_says_nothing_of_the_customer(store: Store, tmp_path: Path):
    before = {path: store.read_bytes(path) for path in store.list("identities") if path.endswith((".png", ".jpg"))}
    deliver(store, tmp_path / "to")
    signer = Credentials.open(ProvenanceSettings(development=str(tmp_path / "provenance")))
    contents = {name: (tmp_path / "to" / "anna" / name).read_bytes() for name in names(tmp_path / "to" / "anna")}
    pictures = {name: content for name, content in contents.items() if name.endswith((".png", ".jpg"))}
    assert len(pictures) == 8
    for name, content in pictures.items():
        assert read_manifest(content, signer.ours) == ManifestState.OURS, name
        bare = without_manifest(content)
        assert bare in before.values()  # the picture itself, with its pixels, is the job's
        at = next(place for place, (one, other) in enumerate(zip(content, bare, strict=False)) if one != other)
        manifest = content[at : at + len(content) - len(bare)].lower()
        words = (b"anna", b"portraits/", b"identities", b"prompt", b"studio-0", b"warm", str(tmp_path).encode())
        assert not [word for word in words if word in manifest]
    assert {path: store.read_bytes(path) for path in before} == before


def test_of_what_is_drawn_into_a_template_a_part_is_said_to_be_made(store: Store, tmp_path: Path):
    order = next(iter(store.iter_rows("orders.parquet")))
    order["styles"] = [{**item, "template": item["style"] == "warm-film"} for item in order["styles"]]
    rows = {
        name: [row for row in store.iter_rows(f"{name}.parquet") if row["identity_id"] == order["album_id"]]
        for name in ("identities", "portraits", "prints")
    }
    plan, folder = plan_delivery(order, *rows.values(), Approvals(), False), safe_segment(order["album_id"])
    signer = Signer(Credentials.open(ProvenanceSettings(development=str(tmp_path / "provenance"))))
    write_delivery(store, Store(tmp_path / "to"), plan, False, signer)
    in_part = {
        name: b"/compositeWithTrainedAlgorithmicMedia" in (tmp_path / "to" / folder / name).read_bytes()
        for name in plan.files
    }
    assert in_part == {name: name.partition("/")[2].startswith("warm-film") for name in plan.files}
    assert set(in_part.values()) == {True, False}


def test_with_another_certificate_they_are_signed_anew(store: Store, tmp_path: Path):
    deliver(store, tmp_path / "to")
    name = tmp_path / "to" / "anna" / "portraits" / "studio-01.png"
    first = name.read_bytes()
    other = Credentials.open(ProvenanceSettings(development=str(tmp_path / "other")))
    deliver(store, tmp_path / "to", "--development", str(tmp_path / "other"))
    assert read_manifest(name.read_bytes(), other.ours) == ManifestState.OURS
    deliver(store, tmp_path / "to")
    assert name.read_bytes() == first


def test_half_a_certificate_delivers_nothing(store: Store, tmp_path: Path):
    with pytest.raises(SettingsError, match="both certificates and private_key"):
        deliver(store, tmp_path / "to", "--certificates", "chain.pem")
    with pytest.raises(SettingsError, match="No such file"):
        deliver(store, tmp_path / "to", "--certificates", "chain.pem", "--private-key", "key.pem")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("zipped", [(), ("--zip",)])
def test_again_it_writes_nothing(store: Store, tmp_path: Path, zipped: tuple[str, ...]):
    deliver(store, tmp_path / "to", *zipped)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "to").rglob("*")}
    deliver(store, tmp_path / "to", *zipped)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "to").rglob("*")} == before


def test_a_zip_holds_the_folder_and_is_the_same_for_the_same_job(store: Store, tmp_path: Path):
    deliver(store, tmp_path / "folders")
    deliver(store, tmp_path / "one", "--zip")
    deliver(store, tmp_path / "two", "--zip")
    assert names(tmp_path / "one") == sorted(["anna.zip", "nobody.zip", f"{safe_segment(ODD)}.zip"])
    for name in names(tmp_path / "one"):
        content = (tmp_path / "one" / name).read_bytes()
        assert (tmp_path / "two" / name).read_bytes() == content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
            inside = {entry: archive.read(entry) for entry in archive.namelist()}
        folder = name.removesuffix(".zip")
        wanted = {
            f"{folder}/{file}": (tmp_path / "folders" / folder / file).read_bytes()
            for file in names(tmp_path / "folders" / folder)
        }
        assert inside == wanted


HOSTILE = (
    "..",
    "../../etc",
    "/etc/passwd",
    "C:\\x",
    "a/../../b",
    "CON",
    "x\0y",
    "=1+1",
    "a\u202eb",
    "con.png",
    "-rf",
    "~",
)


def test_no_name_leads_a_delivery_out_of_its_folder(tmp_path: Path):
    """Names as a manifest may give them; in a zip, too, whoever unpacks it."""
    store = finished_job(tmp_path, ("anna",), {}, datetime.date.today())
    (order,) = [row for row in store.iter_rows("orders.parquet")]
    portraits = [row for row in store.iter_rows("portraits.parquet") if row["status"] == "ok"]
    (person,) = [row for row in store.iter_rows("identities.parquet")]
    signer = Signer(Credentials.open(ProvenanceSettings(development=str(tmp_path / "provenance"))))
    for name in HOSTILE:
        named = {
            **order,
            "album_id": name,
            "styles": [{**item, "style": name, "title": name} for item in order["styles"]],
        }
        rows = [{**row, "identity_id": name, "style": name} for row in portraits[:1]]
        plan = plan_delivery(named, [{**person, "identity_id": name}], rows, [], Approvals(), False)
        assert len(plan.files) == 1
        to = Store(tmp_path / "deep" / "to")
        write_delivery(store, to, plan, True, signer)
        (path,) = to.list()
        with zipfile.ZipFile(io.BytesIO(to.read_bytes(path))) as archive:
            folder = path.removesuffix(".zip")
            for inside in archive.namelist():
                assert re.fullmatch(r"[a-z0-9._-]+(/[a-z0-9._-]+)+", inside), inside
                assert inside.startswith(f"{folder}/")
                assert ".." not in inside.split("/")
        to.remove(path)
    assert {path.name for path in tmp_path.iterdir()} >= {"out", "deep"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] in ([], ["to"])


def test_what_is_rejected_stays_and_a_portrait_sent_before_goes_again(store: Store, tmp_path: Path):
    deliver(store, tmp_path / "to")
    (tmp_path / "to" / "anna" / "letter from the studio.txt").write_text("of the studio")
    decide(store, studio_1="reject")
    deliver(store, tmp_path / "to")
    found = names(tmp_path / "to" / "anna")
    assert not [name for name in found if "studio-01" in name]
    assert {"portraits/studio-02.png", "letter from the studio.txt"} < set(found)
    assert "1 of the 2 accepted was set aside" in (tmp_path / "to" / "anna" / "order.txt").read_text()


def test_approved_only_sends_what_was_approved(store: Store, tmp_path: Path):
    decide(store, studio_1="approve", studio_2="more", warm_film_1="reject")
    deliver(store, tmp_path / "to", "--approved-only")
    portraits = [name for name in names(tmp_path / "to" / "anna") if name.startswith("portraits")]
    assert portraits == ["portraits/studio-01.png", "portraits/studio-02.png"]
    assert "2 of the 2 accepted were not approved" in (tmp_path / "to" / "anna" / "order.txt").read_text()


def test_a_decision_on_another_picture_does_not_count(store: Store, tmp_path: Path):
    decide(store, studio_1="reject")
    changed = store.read_bytes(APPROVALS).decode().splitlines()
    rows = [row[:-64] + "0" * 64 if ",reject," in row else row for row in changed]
    store.write_bytes(APPROVALS, "\n".join(rows).encode())
    deliver(store, tmp_path / "to")
    assert (tmp_path / "to" / "anna" / "portraits" / "studio-01.png").is_file()


def test_a_place_where_removal_would_meet_albums_or_output_is_refused(store: Store, tmp_path: Path):
    for place in ("albums", "albums/anna", "out", "out/delivered", "."):
        with pytest.raises(UsageError, match="wanted a place apart"):
            deliver(store, tmp_path / place)
    with pytest.raises(SettingsError, match="holds no finished job"):
        deliver(Store(tmp_path / "nothing"), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_place_with_photos_of_a_manifest_is_refused(tmp_path: Path):
    store = finished_job(tmp_path, ("anna", "bert"), {}, datetime.date.today(), manifest=True)
    (tmp_path / "linked").mkdir()
    (tmp_path / "albums" / "bert" / "selfie.jpg").rename(tmp_path / "linked" / "selfie.jpg")
    (tmp_path / "albums" / "bert" / "selfie.jpg").symlink_to(tmp_path / "linked" / "selfie.jpg")
    for place in ("albums", "albums/anna", "albums/bert/new", "linked"):
        with pytest.raises(UsageError, match=r"an album is .*wanted a place apart"):
            deliver(store, tmp_path / place)
    assert not store.exists("deliveries.json")
    assert deliver(store, tmp_path / "to") == 3


def test_where_deliveries_went_is_written_down(store: Store, tmp_path: Path):
    deliver(store, tmp_path / "b")
    deliver(store, tmp_path / "a", "--zip")
    assert json.loads(store.read_bytes("deliveries.json")) == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_memory_does_not_grow_with_the_tables(tmp_path: Path):
    store, people, shots = Store(tmp_path), [f"p{number:04d}" for number in range(400)], range(5)

    def rows(schema: pa.Schema, many: range) -> Iterator[dict[str, object]]:
        for name in reversed(people):  # in no order that helps
            values = {"album_id": name, "identity_id": name, "prompt": "x" * 10_000}
            for _ in many:
                yield {column: values.get(column) for column in schema.names}

    tables = {"orders": ORDERED_SCHEMA, "identities": IDENTITY_SCHEMA}
    tables |= {"portraits": PORTRAIT_SCHEMA, "prints": PRINT_SCHEMA}
    for table, schema in tables.items():
        store.write_rows(f"{table}.parquet", rows(schema, shots if table == "portraits" else range(1)), schema)
    tracemalloc.start()
    found = [
        (order["album_id"], {row["identity_id"] for row in [*person, *portraits, *prints]}, len(portraits))
        for order, person, portraits, prints in _orders(store)
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(name, {name}, len(shots)) for name in people]
    assert peak < 10_000 * len(people) * len(shots) / 4


def test_the_tenth_person_comes_after_the_second(tmp_path: Path):
    people = ("anna", "anna/other-10", "anna/other-2")
    store = finished_job(tmp_path, people, {}, datetime.date.today())
    deliver(store, tmp_path / "to")
    pages = [tmp_path / "to" / "anna" / name for name in ("order.txt", "index.html")]
    for page in [*pages, tmp_path / "out" / "gallery" / "index.html"]:
        text = page.read_text()
        assert 0 < text.find("anna/other-2") < text.find("anna/other-10"), page.name
