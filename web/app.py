"""The HTTP application over the service's library. All state is in SQL and the store."""

from fastapi import FastAPI

import studiolo
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.erasure import Elsewhere
from studiolo.service.live import Live, LiveMemory
from studiolo.service.service import Service
from web import edits, errors, events, identities, jobs, openai_images, portraits, provenance, service, styles
from web.document import describe
from web.endpoint import Endpoint
from web.errors import Problem
from web.gate import Gate

_PROBLEM = {"model": Problem, "description": "Why it was refused."}


def create_app(
    opened: Service,
    settings: EndpointSettings | None = None,
    live: Live | None = None,
    elsewhere: Elsewhere | None = None,
) -> FastAPI:
    """The application over the parts of a service; any number of them may run at once.

    `live` is where the progress of running jobs is asked for, `elsewhere` forgets an erased identity in other
    processes; without it erasures are only begun.
    """
    app = FastAPI(
        title="Studiolo",
        version=studiolo.__version__,
        description="Photo albums in, identity-preserving portraits out.",
        docs_url=None,
        redoc_url=None,
        responses={"4XX": _PROBLEM, "5XX": _PROBLEM},
    )
    settings = settings or EndpointSettings()
    app.state.endpoint = Endpoint(opened, settings, live or LiveMemory(), elsewhere)
    app.add_middleware(Gate, service=opened, settings=settings)
    errors.install(app)
    for module in (service, jobs, events, styles, portraits, edits, identities, openai_images, provenance):
        app.include_router(module.router)
    describe(app)
    return app
