"""Styles of tenants' own: each tenant's by itself, named once, and gone when they are deleted."""

import threading
import time
from pathlib import Path

import pytest

from studiolo.errors import ConflictError, StoreError, UnacceptableError
from studiolo.service.database import Database
from studiolo.service.expiry import Expiry
from studiolo.service.queue import JobQueue
from studiolo.service.records import new_id
from studiolo.service.styles import Look, OwnStyle, StyleLora, Styles, style_path
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from tests.jobs.finished_job import empty_database
from tests.service.clock import Clock

LOOK = Look(title="Oil", prompt="an oil painting", weight=0.5)
LORA = StyleLora(sent_sha256="1" * 64, sha256="2" * 64, rank=4, layers=8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.write_bytes("mlflow.db", empty_database())
    return store


@pytest.fixture
def styles(database: Database, store: Store) -> Styles:
    return Styles(database, store, most=3)


def add(
    styles: Styles, name: str = "oil", tenant: str = "ten_a", look: Look = LOOK, lora: StyleLora = LORA
) -> OwnStyle:
    style_id = new_id("style")
    styles.store.write_bytes(style_path(style_id), b"a LoRA")
    return styles.add(tenant, style_id, name, look, lora)


def test_a_style_is_its_tenants_alone(styles: Styles, clock: Clock):
    oil, chalk, other = add(styles), add(styles, "chalk"), add(styles, tenant="ten_b")
    assert (oil.name, oil.look, oil.lora, oil.created_at) == ("oil", LOOK, LORA, clock.now)
    assert styles.all("ten_a") == [chalk, oil]
    assert styles.all("ten_b") == [other]
    assert styles.get("ten_a", oil.id) == styles.named("ten_a", "oil") == oil
    for found in (styles.get("ten_b", oil.id), styles.named("ten_b", "chalk"), styles.get("ten_a", "oil'; --")):
        assert found is None
    assert not styles.end("ten_b", oil.id)
    assert not styles.end("ten_a", new_id("style"))
    assert not styles.end("ten_a", "\0")
    assert styles.all("ten_a") == [chalk, oil]


def test_an_order_takes_its_words_and_weight(styles: Styles):
    style = add(styles).style()
    assert (style.name, style.title, style.words, style.multiplier_style) == ("oil", "Oil", "an oil painting", 0.5)
    assert not style.has_lora  # it is in the store
    assert add(styles, "plain", look=Look()).style().title == "plain"


def test_a_name_stands_for_one_style(styles: Styles):
    oil = add(styles)
    assert add(styles) == oil  # sent again
    for other in ({"look": Look(title="Oil")}, {"lora": LORA.model_copy(update={"sent_sha256": "3" * 64})}):
        with pytest.raises(ConflictError, match="another style called 'oil'"):
            add(styles, **other)
    assert styles.all("ten_a") == [oil]


def test_a_tenant_has_so_many(styles: Styles):
    for name in ("a", "b", "c"):
        add(styles, name)
    with pytest.raises(UnacceptableError, match="You have 3 styles"):
        add(styles, "d")
    add(styles, "d", tenant="ten_b")


def test_of_many_at_once_no_more_are_taken_than_may_be(styles: Styles):
    refused, barrier = [], threading.Barrier(6)

    def try_one(number: int) -> None:
        barrier.wait(60)
        try:
            add(styles, f"s{number}")
        except UnacceptableError:
            refused.append(number)

    threads = [threading.Thread(target=try_one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert (len(styles.all("ten_a")), len(refused)) == (3, 3)


def test_deleting_hides_it_at_once_and_goes_on_until_nothing_is_left(styles: Styles, store: Store):
    oil, chalk = add(styles), add(styles, "chalk")
    asked: list[str] = []

    def away(name: str) -> dict[str, int]:
        asked.append(name)
        raise StoreError("a sampler does not answer")

    assert styles.end("ten_a", oil.id)
    assert (styles.get("ten_a", oil.id), styles.named("ten_a", "oil"), styles.all("ten_a")) == (None, None, [chalk])
    with pytest.raises(ConflictError):
        add(styles)
    with pytest.raises(StoreError):
        styles.finish(away)
    assert styles.finish(lambda name: asked.append(name) or {}) == 1
    assert styles.finish(away) == 0
    assert asked == [oil.id, oil.id]
    assert store.list(f"styles/{oil.id}") == []
    assert add(styles).id != oil.id
    assert styles.end("ten_a", chalk.id)
    assert styles.end("ten_a", chalk.id)


def test_files_of_no_style_go_when_they_are_old(styles: Styles, store: Store, queue: JobQueue, clock: Clock):
    expiry, kept = Expiry(queue, store, MlflowTracker.beside(store)), add(styles)
    clock.now = time.time()
    store.write_bytes(style_path(new_id("style")), b"of a request that broke off")
    assert expiry.remove_orphans() == 0
    clock.move(7200)
    assert expiry.remove_orphans() == 1
    assert store.list("styles") == [style_path(kept.id)]
