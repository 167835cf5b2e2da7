"""Pictures of the studio page for docs/page.md, of what a studio job made: after `make demo`,
`python -m tests.slow.page_pictures out/demo data/samples docs/images`
"""

import hashlib
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from studiolo.identities.learned import photo_verdicts
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.live import LiveMemory, Progress
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Consent, Job, Kind, NewJob, Person, new_id
from studiolo.service.service import Service
from tests.service.test_service import settings as service_settings
from tests.slow.studio_page import EmbeddedHouse
from tests.slow.visitor import LONG_MS, PHONE, SOON_MS, Visitor, launched, visiting
from tests.web.page.pictures import group
from tests.web.server import served
from web.app import create_app
from web.page.app import create_page

Row = dict[str, Any]
_COLOURS = 256
_LOADED = """Promise.all([document.fonts.ready, ...[...document.images].map((one) => {
    one.loading = "eager";
    return one.decode().catch(() => null);
})])"""


class Made:
    """What a studio job left, put into a service as its own workers would have."""

    def __init__(self, out: Path, service: Service, tenant_id: str) -> None:
        self.out, self.service, self.tenant_id = out, service, tenant_id

    def rows(self, table: str) -> list[Row]:
        """Of one of its tables."""
        return list(pq.read_table(self.out / f"{table}.parquet").to_pylist())

    def person(self, name: str, called: str) -> str:
        """Somebody of the job, learned; the identity."""
        (album,) = [row for row in self.rows("albums") if row["album_id"] == name]
        consent = Consent(given_by=called, statement="Portraits may be made of me from these photos.", given_at=0.0)
        request = {"photos": [{} for _ in album["photos"]]}
        person, steps = Person(name=called, consent=consent), self.learned(name)["steps"]
        new = NewJob(kind=Kind.IDENTITY, request=request, steps=steps, identity_id=new_id("id"), person=person)
        job = self.service.queue.submit(self.tenant_id, new)
        self.finish(name)
        return str(job.identity_id)

    def learned(self, name: str) -> Row:
        """The row of a face-LoRA."""
        return next(row for row in self.rows("face_loras") if row["identity_id"] == name)

    def finish(self, name: str) -> None:
        """End the training that is next with what came of somebody's in the job; its files go into the store."""
        (lease,) = self.service.queue.lease([Kind.IDENTITY], "trainer", 60)
        (album,) = [row for row in self.rows("albums") if row["album_id"] == name]
        numbered = [{**photo, "uri": str(number)} for number, photo in enumerate(album["photos"], 1)]
        numbers = {photo["photo_id"]: int(photo["uri"]) for photo in numbered}
        references = [
            {**{key: row[key] for key in ("crop_path", "quality_score", "verdict", "embedding")}, "photo": number}
            for row in self.rows("references")
            if row["identity_id"] == name and (number := numbers.get(row["photo_id"]))
        ]
        photos = [verdict.model_dump(mode="json") for verdict in photo_verdicts(numbered)]
        lora = self.learned(name)
        record = {
            **{"lora_path": lora["path"], "lora_sha256": lora["sha256"], "steps": lora["steps"]},
            **{"trigger": album["trigger"], "references": references, "photos": photos, "curve": self.curve(name)},
        }
        for path in (lora["path"], *(one["crop_path"] for one in references)):
            self.service.store.write_bytes(path, (self.out / path).read_bytes())
        within = self.service.identities.learned(lease, record)
        self.service.queue.complete(lease, {"photos": photos}, within=within)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """The loss of somebody's training, as the job tracked it."""
        query = (
            "select m.step, m.value from metrics m join tags t on t.run_uuid = m.run_uuid"
            " where m.key = 'loss' and t.key = 'mlflow.runName' and t.value = ? order by m.step"
        )
        with closing(sqlite3.connect(self.out / "mlflow.db")) as database:
            return [(int(step), float(loss)) for step, loss in database.execute(query, (name,))]

    def order(self, identity_id: str, style: str, count: int) -> Job:
        """An order that waits."""
        request = {"identity_id": identity_id, "style": style, "count": count}
        new = NewJob(kind=Kind.PORTRAITS, request=request, steps=240, units=count, identity_id=identity_id)
        return self.service.queue.submit(self.tenant_id, new)

    def deliver(self, name: str, style: str) -> None:
        """End the order that is next with somebody's portraits in a style."""
        (lease,) = self.service.queue.lease([Kind.PORTRAITS], "painter", 60)
        found = [row for row in self.rows("portraits") if (row["identity_id"], row["style"]) == (name, style)]
        images = []
        for number, row in enumerate(sorted(found, key=lambda row: -row["similarity"])):
            content, path = (self.out / row["path"]).read_bytes(), f"{lease.folder}/{number:03d}.png"
            self.service.store.write_bytes(path, content)
            width, height = Image.open(self.out / row["path"]).size
            sizes = {"width_px": width, "height_px": height, "seed": row["seed"]}
            judged = {"similarity": row["similarity"], "verdict": row["verdict"]}
            images.append({"path": path, "sha256": hashlib.sha256(content).hexdigest(), **sizes, **judged})
        self.service.queue.complete(lease, {"images": images})


def settings_of(service: Service) -> EndpointSettings:
    """The usual ones."""
    return EndpointSettings.model_validate(service.settings.model_dump())


@contextmanager
def working(service: Service) -> Iterator[None]:
    """Orders are worked off by the embedded models."""
    house = EmbeddedHouse(service, settings_of(service))
    house.dispatcher()
    try:
        yield
    finally:
        house.close()


@contextmanager
def page_over(service: Service, live: LiveMemory) -> Iterator[str]:
    """The page, over a service without workers."""
    settings = settings_of(service)
    with served(create_app(service, settings, live, lambda _: {})) as url, served(create_page(settings, url)) as page:
        yield page


def main(out: str, albums: str, into: str) -> None:
    """All pictures."""
    with tempfile.TemporaryDirectory() as place:
        service, live = Service.open(service_settings(Path(place)), MemoryMeters()), LiveMemory()
        token = service.keys.create("studio").token
        made = Made(Path(out), service, service.keys.authenticate(token).tenant_id)
        with page_over(service, live) as url, sync_playwright() as playwright:
            browser = launched(playwright)
            desk = visiting(browser, url, token)
            walk(desk, made, live, sorted((Path(albums) / "P002").glob("*.jpg")), Path(into))
            with working(service):
                edit(desk, Path(albums), Path(place), Path(into))
            phones(visiting(browser, url, token, PHONE), Path(place), Path(into))
            browser.close()
            print("complaints:", desk.complaints, "elsewhere:", desk.elsewhere)
        service.close()


def walk(desk: Visitor, made: Made, live: LiveMemory, photos: list[Path], folder: Path) -> None:
    """Through all tabs on a desk."""
    page = desk.page
    anna = made.person("P001", "Anna")
    desk.sign_in()
    desk.drop(photos)
    desk.consent("Berta")
    shot(desk, folder / "page-album.png")
    made.order(anna, "studio", 4)
    made.deliver("P001", "studio")
    made.order(anna, "black-and-white", 4)
    made.deliver("P001", "black-and-white")
    desk.open("Portraits")
    expect(page.locator("#styles input")).to_have_count(14, timeout=SOON_MS)
    desk.order("Anna", "warm-film", 4)
    expect(page.locator("#making")).to_contain_text("Next in the queue", timeout=SOON_MS)
    made.deliver("P001", "warm-film")
    expect(page.locator("#results .portraits img")).to_have_count(4, timeout=SOON_MS)
    shot(desk, folder / "page-portraits.png")
    desk.open("Album")
    desk.send()
    expect(page.locator("#person h3")).to_have_text("Berta", timeout=SOON_MS)
    drawing = made.order(anna, "pencil", 2)
    (lease,) = made.service.queue.lease([Kind.PORTRAITS], "painter", 600)
    made.service.queue.extend(lease, 600, steps_done=60)
    live.tell(drawing.id, Progress(1, "denoise", 60, 240))
    made.order(anna, "watercolour", 4)
    for tab, name, part in (("Jobs", "jobs", "#jobs .job"), ("My data", "data", "#kept table")):
        desk.open(tab)
        expect(page.locator(part).first).to_be_visible(timeout=SOON_MS)
        shot(desk, folder / f"page-{name}.png")
    made.finish("P002")
    desk.open("Album")
    expect(page.locator("#person .badge.ready")).to_be_visible(timeout=SOON_MS)


def edit(desk: Visitor, albums: Path, place: Path, folder: Path) -> None:
    """Somebody drawn in a picture of two others."""
    page, path = desk.page, place / "two friends.jpg"
    path.write_bytes(group(albums, ("P002/selfie.jpg", "P003/selfie.jpg")))
    desk.open("Edit")
    desk.drop_template(path, faces=2)
    page.get_by_label("As whom").first.click()
    page.get_by_role("option", name="Anna").click()
    desk.edit("Face 2 (right)", count=2)
    expect(page.locator("#edits .edits img").first).to_be_visible(timeout=LONG_MS)
    for number, slider in enumerate(page.locator("#edits input").all()):
        slider.fill(str((70, 0)[number]))
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    shot(desk, folder / "page-edit.png")


def phones(phone: Visitor, place: Path, folder: Path) -> None:
    """Three tabs on a phone, side by side."""
    phone.sign_in()
    expect(phone.page.locator("#person .badge")).to_be_visible(timeout=SOON_MS)
    shots = []
    for tab, part in (("Album", "#photos"), ("Portraits", "#styles label"), ("Jobs", "#jobs .job")):
        phone.open(tab)
        expect(phone.page.locator(part).first).to_be_visible(timeout=SOON_MS)
        path = place / f"{tab}.png"
        shot(phone, path, whole=False)
        print(tab, "fits" if phone.narrow() else "IS TOO WIDE")
        shots.append(Image.open(path).convert("RGB"))
    gap, (width, height) = 24, shots[0].size
    sheet = Image.new("RGB", (len(shots) * (width + gap) + gap, height + 2 * gap), "#d9d3c8")
    for number, one in enumerate(shots):
        sheet.paste(one, (gap + number * (width + gap), gap))
    save(sheet, folder / "page-phone.png")


def shot(visitor: Visitor, path: Path, whole: bool = True) -> None:
    """The page as it is, when all its pictures are there."""
    page = visitor.page
    page.evaluate("scrollTo(0, 0)")
    page.evaluate(_LOADED)
    page.wait_for_timeout(600)
    page.screenshot(path=path, full_page=whole)
    save(Image.open(path).convert("RGB"), path)


def save(picture: Image.Image, path: Path) -> None:
    """A small PNG."""
    picture.quantize(_COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
