"""Drafts through a sampler with the tiny base: what the engine makes, previews, face-LoRAs from a store, and speed."""

import hashlib
import io
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.sampler import LoraFiles, Sampler
from benchmarks.workloads import write_loras
from studiolo.errors import SettingsError, UnacceptableError, WeightsError
from studiolo.generation.controlnets import EDGES, POSE, controlnet_for
from studiolo.generation.engine import Order as EngineOrder
from studiolo.generation.engine import Portrait
from studiolo.generation.tiny import tiny_base
from studiolo.perception.pose import Pose
from studiolo.portraits.edit_passes import engine_order
from studiolo.portraits.edit_templates import TemplateFace
from studiolo.portraits.edits import EditOrder, EditPass
from studiolo.portraits.orders import Order, to_engine
from studiolo.portraits.rounds import Draft, Drawing, Drawn, Subject
from studiolo.portraits.styles import load_style
from studiolo.service.database import Database, migrate
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Kind
from studiolo.service.speeds import Speeds
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import sha256_of

pytestmark = pytest.mark.timeout(60)
SETTINGS = GenerationSettings(steps=4, slots=2, precision="float32")
STYLE = load_style("studio")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def sampler(store: Store) -> Sampler:
    sampler = Sampler(store, "tiny-base", SETTINGS, MemoryMeters())
    sampler.use(tiny_base())
    return sampler


def draft(lora: tuple[str, str] | None = None, steps: int = 4, preview_s: float = 0.0) -> Draft:
    order = Order(
        identity_id="anna", style="studio", count=3, seed=7, generation=SETTINGS.model_copy(update={"steps": steps})
    )
    subject = Subject("a woman") if lora is None else Subject("a woman", (), *lora)
    return Draft(order, STYLE, subject, 3, 2, preview_s=preview_s)


def put_lora(store: Store, folder: Path) -> tuple[str, str]:
    """A face-LoRA of the tiny base in the store: its path and sha256."""
    (file,) = write_loras(tiny_base(), folder, 1)
    store.write_bytes("anna.safetensors", file.read_bytes())
    return "anna.safetensors", sha256_of(file)


def test_a_draft_is_the_engines_order(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    lora = put_lora(store, tmp_path)
    events = [*sampler.sample(draft(lora))]
    drawn = [event for event in events if isinstance(event, Drawn)]
    fields = to_engine(
        draft().order,
        STYLE,
        {"trigger": "a woman", "common_tags": ()},
        face_lora_path=str(store.local_path(lora[0])),
        count=3,
        first_index=2,
        fits=sampler.engine.fits,
    )
    direct = [event for event in sampler.engine.submit(EngineOrder(**fields)) if isinstance(event, Portrait)]
    assert [(one.index, one.seed) for one in drawn] == [(one.index, one.seed) for one in direct]
    assert all(np.array_equal(a.rgb_u8, b.rgb_u8) for a, b in zip(drawn, direct, strict=True))
    assert {one.prompt for one in drawn} == {fields["prompt"]}
    last = [event for event in events if isinstance(event, Drawing)][-1]
    assert (last.done, last.total, last.preview) == (12, 12, None)


def test_previews_are_small_pictures_now_and_then(sampler: Sampler) -> None:
    seldom = [event.preview for event in sampler.sample(draft(preview_s=60)) if isinstance(event, Drawing)]
    often = [event.preview for event in sampler.sample(draft(preview_s=1e-9)) if isinstance(event, Drawing)]
    assert [one is not None for one in seldom] == [True] + [False] * (len(seldom) - 1)
    shown = [png for png in often if png is not None]
    assert len(shown) < len(often)  # of no candidate's last steps: nobody has judged yet what it shows
    assert often[-1] is None
    pictures = [np.asarray(Image.open(io.BytesIO(png))) for png in shown]
    assert {picture.shape for picture in pictures} == {(64, 64, 3)}
    assert not np.array_equal(pictures[0], pictures[1])


def test_closing_a_draft_from_another_thread_frees_its_slots(sampler: Sampler) -> None:
    sampling = sampler.sample(draft(steps=900))
    threading.Timer(0.2, sampling.close).start()
    began_s = time.monotonic()
    assert all(isinstance(event, Drawing) for event in sampling)
    assert time.monotonic() - began_s < 20
    sampling.close()
    assert sampler.engine._requests == []
    assert len([event for event in sampler.sample(draft()) if isinstance(event, Drawn)]) == 3


def test_face_loras_of_an_object_store_are_copied_checked_bounded_and_forgotten() -> None:
    store, contents = Store(f"memory://{uuid.uuid4().hex}"), {}
    for name in ("anna", "ben", "cleo"):
        store.write_bytes(f"{name}.safetensors", name.encode())
        contents[name] = hashlib.sha256(name.encode()).hexdigest()
    loras = LoraFiles(store, kept=2)
    paths = {name: loras.get(name, f"{name}.safetensors", sha256).path for name, sha256 in contents.items()}
    assert [path.exists() for path in paths.values()] == [False, True, True]
    assert all(path.is_symlink() for path in paths["ben"].parent.iterdir())  # into memory: a kill leaves no copy
    store.remove("ben.safetensors")
    assert loras.get("ben", "ben.safetensors", contents["ben"]).path.read_bytes() == b"ben"
    assert loras.forget("ben") == ([contents["ben"]], 1)
    assert loras.forget("ben") == ([], 0)
    assert not paths["ben"].exists()
    with pytest.raises(WeightsError, match="train or send it again"):
        loras.get("cleo", "cleo.safetensors", contents["anna"])
    assert loras.get("anna", "anna.safetensors", contents["anna"]).path.read_bytes() == b"anna"


def test_a_face_lora_that_is_held_stays_when_others_take_its_place() -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    loras, held = LoraFiles(store, kept=1), []
    for name in ("anna", "ben"):
        store.write_bytes(f"{name}.safetensors", name.encode())
        held.append(loras.get(name, f"{name}.safetensors", hashlib.sha256(name.encode()).hexdigest()))
    paths = [one.path for one in held]
    assert [path.read_bytes() for path in paths] == [b"anna", b"ben"]
    held.clear()
    assert [path.exists() for path in paths] == [False, True]


def test_a_slow_read_of_the_store_holds_no_other_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    lora, read, begun, go_on = put_lora(store, tmp_path), store.read_bytes, threading.Event(), threading.Event()

    def slow(path: str) -> bytes:
        begun.set()
        go_on.wait(60)
        return read(path)

    monkeypatch.setattr(store, "read_bytes", slow)
    sampler = Sampler(store, "tiny-base", SETTINGS, MemoryMeters())
    sampler.use(tiny_base())
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sampler.sample, draft(lora))
        assert begun.wait(60)
        assert len([event for event in sampler.sample(draft()) if isinstance(event, Drawn)]) == 3
        sampler.forget("ben")
        assert not waiting.done()
        sampler.forget("anna")
        go_on.set()
        with pytest.raises(UnacceptableError, match="not there any more"):
            waiting.result(60)
    assert sampler.forget("anna") == {"copies of face-LoRAs": 0, "adapters": 0, "prompts": 0}
    assert [*Path(sampler._loras._folder.name).iterdir()] == []  # nor what was read meanwhile


def test_a_face_lora_that_changed_in_place_is_refused(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    path, sha256 = put_lora(store, tmp_path)
    store.write_bytes(path, b"another")
    with pytest.raises(WeightsError, match=sha256[:12]):
        sampler.sample(draft((path, sha256)))


def test_nothing_is_left_of_a_person_who_is_forgotten(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    lora = put_lora(store, tmp_path)
    assert len([*sampler.sample(draft(lora))]) > 3
    assert sampler.forget("ben")["adapters"] == 0
    assert [*sampler.sample(draft(lora))]
    assert sampler.forget("anna") == {"copies of face-LoRAs": 0, "adapters": 1, "prompts": 2}
    assert sampler.forget("anna") == {"copies of face-LoRAs": 0, "adapters": 0, "prompts": 0}
    assert store.exists(lora[0])  # the store's own file is the erasure's
    with pytest.raises(UnacceptableError, match="not there any more"):
        sampler.sample(draft(lora))


def test_a_draft_of_a_person_who_is_forgotten_ends(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    sampling = sampler.sample(draft(put_lora(store, tmp_path), steps=900))
    next(sampling)
    assert sampler.forget("anna")["adapters"] == 1
    assert sampler.engine._requests == []
    assert all(isinstance(event, Drawing) for event in sampling)


def test_an_adapter_is_forgotten_whose_file_is_gone(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    path, sha256 = put_lora(store, tmp_path)
    assert [*sampler.sample(draft((path, sha256)))]
    store.write_bytes(path, b"another")
    with pytest.raises(WeightsError):
        sampler.sample(draft((path, sha256)))
    assert sampler.forget("anna")["adapters"] == 1


def test_one_fault_that_ends_several_drafts_is_one(sampler: Sampler) -> None:
    once, again = ZeroDivisionError(), ZeroDivisionError()
    for error in (once, once, once, again):
        sampler.note(error)
    sampler.check()
    sampler.note(ZeroDivisionError())
    with pytest.raises(WeightsError, match="start it again"):
        sampler.check()


def test_it_says_how_fast_it_is_and_how_full_and_leaves(sampler: Sampler, tmp_path: Path) -> None:
    migrate(url := f"sqlite:///{tmp_path}/speeds.db")
    speeds, stop = Speeds(Database(url)), threading.Event()
    assert [*sampler.sample(draft())]
    reporter = threading.Thread(target=sampler.report, args=(speeds, stop, 0.02))
    reporter.start()
    meters = sampler.meters
    assert isinstance(meters, MemoryMeters)
    give_up_s = time.monotonic() + 60
    while meters.total("studiolo_denoising_steps_total") < 12:
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    stop.set()
    reporter.join(60)
    work = sampler.engine.work()
    assert (work.steps, work.turns) == (12, 8)  # three candidates through two slots
    assert meters.values("studiolo_slot_occupancy")[0] == 12 / 16
    measured = speeds.database.read(lambda session: speeds.steps_per_s(session, Kind.PORTRAITS))
    assert measured == pytest.approx(work.steps / work.busy_s)


def test_it_is_not_well_after_draft_upon_draft_failed(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        with pytest.raises(SettingsError):
            sampler.sample(draft(steps=5000))
    sampler.check()
    monkeypatch.setattr(sampler.engine._batcher, "_fill", lambda *_: 1 / 0)
    for _ in range(3):
        sampler.check()
        with pytest.raises(ZeroDivisionError):
            next(sampler.sample(draft()))
    with pytest.raises(WeightsError, match="start it again"):
        sampler.check()


def test_it_is_not_well_when_a_step_hangs(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, turn = threading.Event(), sampler.engine._batcher.turn
    monkeypatch.setattr(sampler.engine._batcher, "turn", lambda requests: go_on.wait(30) and turn(requests))
    with monkeypatch.context() as hasty:
        hasty.setattr("actors.sampler._STALL_S", 0.1)
        time.sleep(0.2)
        sampler.check()  # it has nothing to do
    sampling = sampler.sample(draft())
    sampler.check()
    monkeypatch.setattr("actors.sampler._STALL_S", 0.1)
    time.sleep(0.3)
    with pytest.raises(WeightsError, match="no step"):
        sampler.check()
    go_on.set()
    assert [*sampling]
    sampler.check()


def face(side_px: int = 64) -> TemplateFace:
    """Of a template, as it comes from another process: nothing of it may be written to."""
    rng = np.random.default_rng(0)
    mask = np.zeros((side_px, side_px), bool)
    mask[20:45, 21:40] = True
    crop, joints = rng.integers(0, 256, (side_px, side_px, 3), np.uint8), rng.uniform(20, 40, (5, 2))
    parts = (np.eye(2, 3), crop, joints, rng.uniform(20, 40, (68, 2)))
    for part in (*parts, mask):
        part.setflags(write=False)
    return TemplateFace(*parts, Pose(0, 0, 0), mask)


def test_both_passes_of_an_edit_are_the_engines_orders(sampler: Sampler, store: Store, tmp_path: Path) -> None:
    base = tiny_base()
    networks = {name: controlnet_for(base.unet).requires_grad_(False).eval() for name in (POSE, EDGES)}
    sampler.use(base, networks)
    path, sha256 = put_lora(store, tmp_path)
    subject = Subject("a woman", (), path, sha256)
    order = EditOrder(identity_id="anna", template_sha256="0" * 64, count=2, seed=7, generation=SETTINGS)
    passes = [EditPass(order, face()), EditPass(order, face(), face().landmarks_px)]
    for shown, done in zip(passes, (3 * 4, 3 * 2), strict=True):
        asked = Draft(order.portraits, order.style, subject, 3, 2, preview_s=1e-9, edit=shown)
        events = [*sampler.sample(asked)]
        drawn = [event for event in events if isinstance(event, Drawn)]
        wanted = engine_order(sampler.engine, shown, subject, str(store.local_path(path)), 3, 2)
        direct = [event for event in sampler.engine.submit(wanted) if isinstance(event, Portrait)]
        assert [(one.index, one.seed) for one in drawn] == [(one.index, one.seed) for one in direct]
        assert all(np.array_equal(a.rgb_u8, b.rgb_u8) for a, b in zip(drawn, direct, strict=True))
        steps = [event for event in events if isinstance(event, Drawing)]
        assert (steps[-1].done, steps[-1].total) == (done, done)
        assert steps[0].preview is not None
    assert sampler.forget("anna")["adapters"] == 1


def test_without_controlnets_an_edit_is_refused(sampler: Sampler) -> None:
    order = EditOrder(identity_id="anna", template_sha256="0" * 64, generation=SETTINGS)
    asked = Draft(order.portraits, order.style, Subject("a woman"), 1, 0, edit=EditPass(order, face()))
    with pytest.raises(SettingsError, match="pose"):
        sampler.sample(asked)
