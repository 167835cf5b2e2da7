"""The job behind `python -m jobs controlnets`."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from diffusers import StableDiffusionPipeline

from jobs.base_job import SEEING, check, say, write_captions
from jobs.machine import versions
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import save_controlnets
from studiolo.keys import unit_key
from studiolo.perception.detect import EmbeddedDetector
from studiolo.perception.mesh import EmbeddedMesher
from studiolo.perception.regions import EmbeddedPersonMask
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from studiolo.training.checkpoints import Budget, load_checkpoint, save_checkpoint
from studiolo.training.controlnet import ControlNetSettings, ControlNetTrainer, controlled_sheet
from studiolo.training.faces import View, read_faces, views_of
from studiolo.training.loop import train_until_spent
from studiolo.training.sights import Examples, make_examples
from studiolo.weights.cards import load_card
from studiolo.weights.fetch import pull


@dataclass(frozen=True)
class Run:
    """What the command was told; see `jobs.controlnets`."""

    data: Path
    minutes: float
    out: Path
    init: Path | None = None
    captions: Path | None = None
    device: str = "cpu"
    seed: int = 0


def run(wanted: Run) -> None:
    """Train and save. Raises `SettingsError` before any work, `TrainingError` when the loss diverges."""
    check(wanted.data, wanted.init, wanted.captions, wanted.device)
    store = Store(wanted.out)
    with store.lock("controlnets"):
        base = load_base(wanted.init or pull("embedded-base"))
        settings = ControlNetSettings()
        examples = _examples(wanted, base, settings)
        say(f"{len(examples.views)} views with a clear face")
        tracker = MlflowTracker.beside(store)
        params = {"data": wanted.data, "views": len(examples.views), "minutes": wanted.minutes, "seed": wanted.seed}
        with tracker.run(f"controlnets {wanted.out.resolve()}", "controlnets", {**params, **versions()}) as run_id:
            _train(wanted, base, examples, settings, tracker, run_id)


def _examples(wanted: Run, base: StableDiffusionPipeline, settings: ControlNetSettings) -> Examples:
    """Those of an earlier run into the same output, made of the same, or new ones."""
    path = wanted.out / "examples.pt"
    captions = wanted.captions or write_captions(wanted.data, wanted.out / "captions.jsonl")
    base_files = str(wanted.init.resolve()) if wanted.init else load_card("embedded-base").key()
    inputs = [str(wanted.data.resolve()), hashlib.sha256(captions.read_bytes()).hexdigest(), base_files, wanted.seed]
    key = unit_key("examples", [*inputs, settings.views_per_face], {"seeing": SEEING}, {})
    state = load_checkpoint(path)
    if state is not None and state.get("key") == key:
        return Examples.from_state(state)
    side_px = base.unet.config.sample_size * base.vae_scale_factor
    rng = np.random.default_rng(wanted.seed)
    faces = read_faces(wanted.data, captions, EmbeddedPersonMask.open(pull("selfie-segmentation")))

    def views() -> Iterator[View]:
        for face in faces:
            yield from views_of(face, settings.views_per_face, side_px, rng)

    detector, mesher = EmbeddedDetector.open(pull("yunet")), EmbeddedMesher.open(pull("face-mesh"))
    examples = make_examples(base, views(), detector, mesher, SEEING, np.random.default_rng(wanted.seed))
    save_checkpoint(path, {**examples.state_dict(), "key": key})
    return examples


def _train(
    wanted: Run,
    base: StableDiffusionPipeline,
    examples: Examples,
    settings: ControlNetSettings,
    tracker: MlflowTracker,
    run_id: str,
) -> None:
    budget = Budget(minutes=wanted.minutes)
    trainer = ControlNetTrainer(base, examples, settings, budget, seed=wanted.seed, device=wanted.device)
    curve: list[tuple[int, float]] = []
    gains: dict[str, list[tuple[int, float]]] = {}

    def on_metric(step: int, loss: float) -> None:
        curve.append((step, loss))
        say(f"step {step}, loss {loss:.4f}, {100 * budget.progress:.0f}% of {wanted.minutes:g} minutes")

    def on_checkpoint(step: int) -> None:
        networks = trainer.averaged()
        sheet = controlled_sheet(base, networks, examples)
        content = cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()
        Store(wanted.out).write_bytes(f"sheets/{step:07d}.png", content)
        tracker.log_artifact(run_id, f"sheets/{step:07d}.png", content)
        for name, share in trainer.gains().items():
            say(f"step {step}, loss lower by {100 * share:.2f}% where {name} is shown")
            gains.setdefault(f"gain_{name}", []).append((step, share))
        tracker.log_metrics(run_id, {"loss": curve, **gains})
        save_controlnets(networks, wanted.out / "controlnets")

    train_until_spent(
        trainer,
        wanted.out / "controlnets.pt",
        settings.checkpoint_minutes,
        on_metric=on_metric,
        on_checkpoint=on_checkpoint,
    )
