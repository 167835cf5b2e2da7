"""The online endpoint: `serve run serve_app:app`, then `POST /portraits`.

Two deployments: `Api` speaks HTTP and checks requests, `PortraitModel` keeps the base and its engine warm and
is scaled with the load. There are no keys, quotas or safety checks here yet: keep it inside your own network.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pydantic
from fastapi import FastAPI, Header, HTTPException, Response
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

import studiolo
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Events, Order, Portrait
from studiolo.portraits.files import encode_portrait
from studiolo.settings import GenerationSettings
from studiolo.weights.fetch import pull

BASE_CARD = "embedded-base"
IDENTITY = "anonymous"
"""Part of the seed of every candidate; no face-LoRA is loaded here yet."""


class PortraitRequest(pydantic.BaseModel):
    """Body of `POST /portraits`."""

    model_config = pydantic.ConfigDict(extra="forbid", use_attribute_docstrings=True)

    prompt: str = pydantic.Field(min_length=1, max_length=500)
    """What the picture shows."""
    negative_prompt: str = pydantic.Field("", max_length=500)
    """What it should not show."""
    seed: int = pydantic.Field(0, ge=0, lt=2**31)
    """The same request with the same seed gives the same picture."""
    steps: int = pydantic.Field(30, ge=1, le=100)
    """Denoising steps."""
    guidance_scale: float = pydantic.Field(GenerationSettings().guidance_scale, ge=1, le=20)
    """Classifier-free guidance scale."""
    count: int = pydantic.Field(1, ge=1, le=4)
    """Pictures wanted."""


class PortraitImage(pydantic.BaseModel):
    """One picture of the answer."""

    seed: int
    """Seed of this picture."""
    png_base64: str
    """The PNG file, its settings inside, in base64."""


class PortraitAnswer(pydantic.BaseModel):
    """Answer of `POST /portraits` as JSON."""

    model: str
    """Id of the base's model card."""
    portraits: list[PortraitImage]
    """As many as were asked for, in the order of their index."""


Generate = Callable[[PortraitRequest], Awaitable[PortraitAnswer]]


class PortraitModel:
    """Keeps one engine warm on a replica; requests share its slots."""

    def __init__(self, slots: int) -> None:
        self._engine = Engine.configured(load_base(pull(BASE_CARD)), GenerationSettings(slots=slots))
        # Of the two threads for each request one waits for its pictures, the other may have to stop it.
        self._threads = ThreadPoolExecutor(2 * _ongoing(slots), thread_name_prefix="request")

    async def generate(self, request: PortraitRequest) -> PortraitAnswer:
        """Make the pictures of `request`, off the event loop. One whose client goes away frees its slots."""
        settings = request.model_dump() | {"eta": GenerationSettings().eta}
        events = self._engine.submit(Order(identity_id=IDENTITY, **settings))
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._answer, events, settings)
        except asyncio.CancelledError:
            loop.run_in_executor(self._threads, events.close)
            raise

    @staticmethod
    def _answer(events: Events, settings: dict[str, Any]) -> PortraitAnswer:
        images = []
        for event in events:
            if isinstance(event, Portrait):
                content = encode_portrait(event.rgb_u8, settings | {"seed": event.seed, "base": BASE_CARD})
                images.append(PortraitImage(seed=event.seed, png_base64=base64.b64encode(content).decode()))
        return PortraitAnswer(model=BASE_CARD, portraits=images)


def _ongoing(slots: int) -> int:
    """Requests a replica works on at once: as many again as have a slot wait inside, so that none stays idle."""
    return 2 * slots


class Api:
    """HTTP in front of the model."""

    def __init__(self, model: DeploymentHandle) -> None:
        self._model = model

    async def generate(self, request: PortraitRequest) -> PortraitAnswer:
        """Pass `request` to a replica of the model."""
        return await self._model.generate.remote(request)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return http_app(self.generate)


def http_app(generate: Generate) -> FastAPI:
    """The routes, over any function that makes portraits."""
    http = FastAPI(title="Studiolo", version=studiolo.__version__)

    @http.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the endpoint takes requests."""
        return {"status": "ok", "version": studiolo.__version__}

    png: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}}}

    @http.post("/portraits", response_model=PortraitAnswer, responses=png)
    async def portraits(
        request: PortraitRequest, accept: Annotated[str, Header()] = "application/json"
    ) -> PortraitAnswer | Response:
        """Make portraits: PNG files in base64 as JSON, or with `Accept: image/png` one picture itself."""
        as_png = accept.split(";")[0].strip() == "image/png"
        if as_png and request.count != 1:
            detail = f"image/png holds one picture: got count {request.count}, wanted 1 (JSON holds several)"
            raise HTTPException(422, detail)
        try:
            answer = await generate(request)
        except BackPressureError:
            detail = "all replicas are busy and the queue is full; try again later"
            raise HTTPException(503, detail, headers={"Retry-After": "5"}) from None
        if as_png:
            return Response(base64.b64decode(answer.portraits[0].png_base64), media_type="image/png")
        return answer

    return http


def build(slots: int = 4, max_replicas: int = 4) -> serve.Application:
    """The application: `slots` pictures at a time on a replica, 1 to `max_replicas` replicas."""
    model = serve.deployment(
        PortraitModel,
        name="PortraitModel",
        # More requests than slots: the scaler sees the load before the replica is full.
        autoscaling_config=AutoscalingConfig(
            min_replicas=1, max_replicas=max_replicas, target_ongoing_requests=slots, downscale_delay_s=120
        ),
        max_ongoing_requests=_ongoing(slots),
        max_queued_requests=32,
        ray_actor_options={"num_cpus": 1},
    )
    api = serve.deployment(
        serve.ingress()(Api), name="Api", max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}
    )
    return api.bind(model.bind(slots))


app = build()
