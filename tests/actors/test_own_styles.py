"""Styles of tenants' own, drawn: beside a face-LoRA, from the store, and no more once they are deleted."""

import hashlib
import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.sampler import Sampler
from studiolo.errors import UnacceptableError
from studiolo.generation.engine import Order as EngineOrder
from studiolo.generation.engine import Portrait
from studiolo.generation.lora_files import inspect_lora
from studiolo.generation.tiny import tiny_base
from studiolo.portraits.orders import to_engine
from studiolo.portraits.rounds import Draft, Drawn, StoredLora
from studiolo.service.records import new_id
from studiolo.service.styles import Look, StyleLora, style_path
from studiolo.storage.store import Store
from tests.actors.house import House
from tests.actors.test_sampler import STYLE, draft, put_lora, sampler, store
from tests.generation.test_lora_files import layers_by_torch
from tests.loras import attention, file, kohya

__all__ = ["sampler", "store"]
pytestmark = pytest.mark.timeout(60)

LAYERS = layers_by_torch(tiny_base())


def put_style(store: Store, scale: float = 1.0) -> StoredLora:
    """A style-LoRA of the tiny base in the store, as the endpoint keeps it."""
    tensors = {
        name: np.float32(scale) * values
        for name, values in kohya(attention(LAYERS, ("to_k", "to_v")), alpha=None).items()
    }
    kept = inspect_lora(io.BytesIO(file(tensors)), LAYERS, 16)
    style_id = new_id("style")
    store.write_bytes(style_path(style_id), kept.content)
    return StoredLora(style_id, style_path(style_id), kept.sha256)


def pictures(sampler: Sampler, one: Draft) -> list[bytes]:
    return [event.rgb_u8.tobytes() for event in sampler.sample(one) if isinstance(event, Drawn)]


def test_face_and_style_act_together_as_in_the_engine(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    face, style = put_lora(store, tmp_path), put_style(store)
    both = pictures(sampler, replace(draft(face), style_lora=style))
    fields = to_engine(
        draft().order,
        STYLE,
        {"trigger": "a woman", "common_tags": ()},
        face_lora_path=str(store.local_path(face[0])),
        style_lora_path=str(store.local_path(style.path)),
        count=3,
        first_index=2,
        fits=sampler.engine.fits,
    )
    direct = [event for event in sampler.engine.submit(EngineOrder(**fields)) if isinstance(event, Portrait)]
    assert both == [event.rgb_u8.tobytes() for event in direct]
    assert both != pictures(sampler, draft(face))
    assert both != pictures(sampler, replace(draft(), style_lora=style))


def test_a_forgotten_style_is_drawn_no_more_and_others_are(sampler: Sampler, store: Store) -> None:
    gone, stays = put_style(store), put_style(store)
    running = sampler.sample(replace(draft(steps=900), style_lora=gone))
    threading.Timer(0.2, sampler.forget, [gone.whose]).start()
    assert not [event for event in running if isinstance(event, Drawn)]
    with pytest.raises(UnacceptableError, match="style") as refused:
        sampler.sample(replace(draft(), style_lora=gone))
    assert refused.value.reason == "style"
    assert len(pictures(sampler, replace(draft(), style_lora=stays))) == 3
    assert len(pictures(sampler, draft())) == 3


def test_a_mad_lora_spoils_its_own_pictures_alone(sampler: Sampler, store: Store) -> None:
    """Finite numbers, but so large that all that comes of them is none: the neighbours in the batch do not see them."""
    alone = pictures(sampler, draft(steps=8))
    mad = sampler.sample(replace(draft(steps=100), style_lora=put_style(store, 1e18)))
    next(mad)
    assert pictures(sampler, draft(steps=8)) == alone
    mad.close()
    with pytest.raises(UnacceptableError, match="no finite values"):
        pictures(sampler, replace(draft(), style_lora=put_style(store, 1e18)))
    sampler.check()
    assert pictures(sampler, draft(steps=8)) == alone


def test_a_job_in_a_style_of_ones_own(house: House) -> None:
    service = house.service
    stored = put_style(service.store)
    lora = StyleLora(sent_sha256="0" * 64, sha256=stored.sha256, rank=4, layers=8)
    own = service.styles.add("ten_shop", stored.whose, "oil", Look(prompt="oil", weight=1.5), lora)
    house.dispatcher()
    asked = {"style": "oil", "style_id": own.id, "prompt": "a photo of a person", "seed": 5}
    done = house.ended(house.order(asked))
    assert done.state == "succeeded"
    (picture,) = house.pictures(done)
    assert picture == house.pictures(house.ended(house.order(asked)))[0]
    assert done.result is not None
    content = service.store.read_bytes(done.result["images"][0]["path"])
    assert stored.sha256.encode() in content  # the portrait says what it was made with
    weaker = service.styles.add("ten_shop", new_id("style"), "oil-2", Look(prompt="oil", weight=0.1), lora)
    service.store.write_bytes(style_path(weaker.id), service.store.read_bytes(stored.path))
    other = house.ended(house.order(asked | {"style_id": weaker.id}))
    assert house.pictures(other) != [picture]
    assert service.styles.end("ten_shop", own.id)
    assert service.styles.finish(house.sampler.forget) == 1
    gone = house.ended(house.order(asked))
    assert (gone.state, gone.reason) == ("failed", "style")


def test_a_style_whose_file_was_changed_is_not_drawn(sampler: Sampler, store: Store) -> None:
    style = put_style(store)
    store.write_bytes(style.path, store.read_bytes(style.path) + b"x")
    assert hashlib.sha256(store.read_bytes(style.path)).hexdigest() != style.sha256
    with pytest.raises(Exception, match="not the file with the sha256"):
        sampler.sample(replace(draft(), style_lora=style))
