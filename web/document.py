"""The OpenAPI document: FastAPI's, with problems under the type they are sent as, and examples that tests carry out."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from web import examples
from web.errors import REQUEST_ID

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def describe(app: FastAPI) -> None:
    """Have the app publish this document at `/openapi.json`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
            )
            for operation in (one for path in found["paths"].values() for one in path.values()):
                for status, response in operation["responses"].items():
                    response.setdefault("headers", {})[REQUEST_ID] = _REQUEST_ID_HEADER
                    if status in ("4XX", "5XX"):
                        response["content"] = {"application/problem+json": {"schema": _PROBLEM}}
            for name, example in examples.ANSWERS.items():  # FastAPI leaves nulls out of those in the models
                found["components"]["schemas"][name]["example"] = example
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


_REQUEST_ID_HEADER = {
    "description": "The request's name: yours, when you sent one in the same header, else ours.",
    "schema": {"type": "string"},
}
_TAGS = [
    {"name": "identities", "description": "People: learned from an album, with their consent, and erased."},
    {"name": "portraits", "description": "Portraits of people in styles or in words."},
    {"name": "edits", "description": "People in the place of somebody in a picture that is sent."},
    {"name": "styles", "description": "Looks that portraits are made in: ours, and your own."},
    {"name": "jobs", "description": "What was accepted, and how it goes on."},
    {"name": "provenance", "description": "Whether a picture was made here."},
    {"name": "openai", "description": "OpenAI's routes for pictures."},
    {"name": "service", "description": "The service itself."},
]
