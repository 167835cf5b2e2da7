"""A portrait server as demos have it: FastAPI before diffusers' pipeline, one request at a time.

For each request the person's face-LoRA is loaded into the pipeline and unloaded afterwards; candidates are drawn in
batches, finished and judged with the same models and rules as the endpoint's, and the answer holds the pictures. What
comes meanwhile waits for its turn. It knows no keys, no queue that outlives it, and no deadlines.

    python -m benchmarks.plain_server FOLDER PORT

FOLDER holds `people.json` (by id the `LearnedVersion`), `generation.json` (`GenerationSettings`) and `store/`.
"""

import base64
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import uvicorn
from diffusers.utils import logging as diffusers_logging
from fastapi import Body, FastAPI
from numpy.typing import NDArray

from actors.finisher import Finish, PortraitFinisher, Sitter
from actors.plans import TRIGGER
from benchmarks.people import SUITE
from benchmarks.workloads import open_base
from studiolo.generation.base import fits
from studiolo.generation.engine import candidate_seed
from studiolo.identities.learned import LearnedVersion
from studiolo.portraits.files import encode_portrait
from studiolo.portraits.finishing import Finished
from studiolo.portraits.orders import Order, to_engine
from studiolo.portraits.requests import PortraitRequest
from studiolo.portraits.rounds import Drawn, acceptance_of, work_off
from studiolo.portraits.styles import Style
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store

RgbU8 = NDArray[np.uint8]


class PlainServer:
    """Makes one request's portraits at a time."""

    def __init__(self, folder: Path, settings: GenerationSettings) -> None:
        diffusers_logging.set_verbosity_error()  # it says of each file that it has no part for the text encoder
        self._store, self._settings = Store(folder / "store"), settings
        people = json.loads((folder / "people.json").read_text())
        self._people = {name: LearnedVersion.model_validate(person) for name, person in people.items()}
        self._pipeline = open_base("embedded")
        self._finisher = PortraitFinisher(self._store, SUITE, settings)
        self._finisher.open()
        self._turn = threading.Lock()

    def portraits(self, wanted: PortraitRequest) -> list[bytes]:
        """PNG files of the accepted candidates, best first."""
        order, style = wanted.order("plain", self._settings), wanted.look()
        person = None if wanted.identity_id is None else self._people[wanted.identity_id]
        generation, sitter = order.generation, sitter_of(order, person)
        how = Finish(style.words, style.greyscale, generation.upscale, generation.fusion)

        def finish(rgb_u8: RgbU8) -> Finished:
            return self._finisher.finish(rgb_u8, sitter, how)

        def draw(count: int, first_index: int) -> Iterator[Drawn]:
            return self._drawn(order, style, person, range(first_index, first_index + count))

        with self._turn:
            outcome = work_off(order, acceptance_of(order, likeness=person is not None), draw, finish)
        best = [outcome.made[item.candidate.index] for item in outcome.ranked if item.rank > 0]
        return [encode_portrait(made.portrait.rgb_u8, {"seed": made.seed, "prompt": made.prompt}) for made in best]

    def _drawn(self, order: Order, style: Style, person: LearnedVersion | None, indices: range) -> Iterator[Drawn]:
        """The candidates, as many in a batch as the endpoint's lane has slots."""
        row: dict[str, Any] = {"trigger": TRIGGER, "common_tags": []} if person is None else person.model_dump()
        fields = to_engine(order, style, row, fits=lambda prompt: fits(self._pipeline.tokenizer, prompt))
        pictures: list[RgbU8] = []
        seeds = [candidate_seed(order.seed, order.identity_id, index) for index in indices]
        with self._face_lora(person, order.generation.face_weight * style.multiplier_human):
            for start in range(0, len(seeds), self._settings.slots):
                pictures += self._batch(fields, seeds[start : start + self._settings.slots])
        for index, seed, rgb_u8 in zip(indices, seeds, pictures, strict=True):
            yield Drawn(index, seed, fields["prompt"], rgb_u8)

    @torch.inference_mode()
    def _batch(self, fields: dict[str, Any], seeds: Sequence[int]) -> list[RgbU8]:
        pictures = self._pipeline(
            [fields["prompt"]] * len(seeds),
            negative_prompt=[fields["negative_prompt"]] * len(seeds),
            num_inference_steps=fields["steps"],
            guidance_scale=fields["guidance_scale"],
            eta=fields["eta"],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
        ).images
        return [*(pictures * 255).round().astype(np.uint8)]

    @contextmanager
    def _face_lora(self, person: LearnedVersion | None, weight: float) -> Iterator[None]:
        """The pipeline has the person's face-LoRA."""
        if person is None:
            yield
            return
        with self._store.as_local_file(person.lora_path) as path:
            self._pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="face")
        self._pipeline.set_adapters(["face"], [weight])
        try:
            yield
        finally:
            self._pipeline.unload_lora_weights()


def sitter_of(order: Order, person: LearnedVersion | None) -> Sitter:
    """What the finisher needs of a person."""
    if person is None:
        return Sitter(order.identity_id)
    return Sitter(
        order.identity_id,
        tuple(one.crop_path for one in person.references),
        tuple(one.quality_score for one in person.references),
        np.asarray([one.embedding for one in person.references], np.float32),
    )


def create_app(server: PlainServer) -> FastAPI:
    """The two routes."""
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/portraits")
    def portraits(body: Annotated[dict[str, Any], Body()]) -> dict[str, list[str]]:
        fields = {name: value for name, value in body.items() if name in PortraitRequest.model_fields}
        pictures = server.portraits(PortraitRequest.model_validate(fields))
        return {"images": [base64.b64encode(picture).decode() for picture in pictures]}

    return app


def main() -> None:
    """Open the models and serve."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    settings = GenerationSettings.model_validate_json((folder / "generation.json").read_text())
    uvicorn.run(create_app(PlainServer(folder, settings)), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
