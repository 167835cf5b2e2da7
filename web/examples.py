"""The examples of the OpenAPI document. A test carries each request out and compares the answer with its example."""

import json
from typing import Any

from fastapi.openapi.models import Example

JOB_ID = "job_019a0000000000000000000000000000"
IDENTITY_ID = "id_019a0000000000000000000000000000"
STYLE_ID = "style_019a0000000000000000000000000000"
_KEY_ID = "key_019a0000000000000000000000000000"
_REQUEST_ID = "8c1f0f6e3a0c4b0e9d5a7b2f4c6d8e10"

PORTRAITS: dict[str, Example] = {
    "in a style": {"value": {"style": "studio", "count": 2, "seed": 7}},
    "of a person": {
        "value": {
            "identity_id": IDENTITY_ID,
            "style": "black-and-white",
            "prompt": "in a dark coat",
            "threshold": 0.5,
            "webhook_url": "https://shop.example.com/hooks/portraits",
        }
    },
    "answered when it is done": {
        "value": {"prompt": "a portrait of a smiling woman", "size_px": 256, "deadline_s": 60, "wait_s": 30}
    },
}
OPENAI: dict[str, Example] = {
    "a person of the base": {"value": {"model": "embedded-base", "prompt": "a portrait of a man", "n": 1}},
    "somebody learned": {
        "value": {"prompt": "a portrait in a garden", "user": IDENTITY_ID, "response_format": "b64_json"}
    },
}
EDIT = {"identity_id": IDENTITY_ID, "face": "0.5,0.4", "count": 1, "seed": 7, "prompt": "smiling"}
OPENAI_EDIT = {"prompt": "smiling", "identity_id": IDENTITY_ID, "n": 1}
ALBUM = {
    "name": "Anna",
    "consent_given_by": "Anna",
    "consent_statement": "Portraits may be made of me.",
    "consent_given_at": 1794000000,
}
OWN_STYLE = {
    "name": "oil-painting",
    "title": "Oil painting",
    "description": "Thick paint, warm colours.",
    "prompt": "an oil painting, thick paint",
    "negative_prompt": "photo",
    "weight": 0.8,
}

JOB: dict[str, Any] = {
    "id": JOB_ID,
    "request_id": _REQUEST_ID,
    "kind": "portraits",
    "state": "succeeded",
    "reason": "",
    "sentence": "",
    "identity_id": None,
    "request": {"style": "studio", "count": 2, "seed": 7},
    "seed": 7,
    "position": None,
    "steps": 60,
    "steps_done": 60,
    "curve": [],
    "attempts": 1,
    "created_at": 1795000000.0,
    "deadline_at": 1795003600.0,
    "started_at": 1795000001.5,
    "finished_at": 1795000009.25,
    "expires_at": 1795604809.25,
    "images": [
        {
            "url": f"https://portraits.example.com/v1/jobs/{JOB_ID}/images/0",
            "seed": 5871781006564002452,
            "width_px": 256,
            "height_px": 256,
            "similarity": None,
            "verdict": None,
        }
    ],
    "rejected": [],
    "photos": [],
}
IDENTITY: dict[str, Any] = {
    "id": IDENTITY_ID,
    "name": "Anna",
    "state": "ready",
    "consent": {"given_by": "Anna", "statement": "Portraits may be made of me.", "given_at": 1794000000.0},
    "created_at": 1795000000.0,
    "job_id": JOB_ID,
    "versions": [
        {
            "number": 1,
            "job_id": JOB_ID,
            "created_at": 1795000400.0,
            "lora_sha256": "0" * 64,
            "steps": 800,
            "references": [{"photo": 1, "quality_score": 0.75, "verdict": "same"}],
            "photos": [
                {"number": 1, "status": "ok", "stage": "", "reason": "", "sentence": ""},
                {
                    "number": 2,
                    "status": "dropped",
                    "stage": "detect",
                    "reason": "no_face",
                    "sentence": "No face was found.",
                },
            ],
            "curve": [{"step": 1, "loss": 0.5}, {"step": 800, "loss": 0.25}],
        }
    ],
}
STYLE = {
    "name": "oil-painting",
    "title": "Oil painting",
    "description": "Thick paint, warm colours.",
    "own": {
        "id": STYLE_ID,
        "prompt": "an oil painting, thick paint",
        "negative_prompt": "photo",
        "weight": 0.8,
        "rank": 16,
        "layers": 128,
        "created_at": 1795000000.0,
    },
}
_OURS = {"name": "studio", "title": "Studio", "description": "A grey backdrop and soft light.", "own": None}
STYLES = {"data": [STYLE, _OURS]}
USAGE = {
    "data": [{"key_id": _KEY_ID, "day": "2026-11-27", "requests": 4, "portraits": 2, "identities": 1, "steps": 860}]
}
HEALTH = {"status": "ok", "version": "0.1.0"}
ERASURE = {
    "state": "erased",
    "receipt": {
        "kind": "studiolo erasure receipt, version 1",
        "key": "receipts-0123456789abcdef",
        "tenant_id": "ten_019a0000000000000000000000000000",
        "identity_id": IDENTITY_ID,
        "requested_at": 1795000500.0,
        "erased_at": 1795000501.0,
        "erased": {"photos": 2, "rows of jobs": 2},
        "out_of_scope": "backups",
        "signature": "BASE64",
    },
}
OPENAI_ANSWER = {
    "created": 1795000009,
    "data": [{"url": f"https://portraits.example.com/v1/jobs/{JOB_ID}/images/0", "b64_json": None}],
    "output_format": "png",
    "size": "256x256",
}
PROVENANCE = {
    "made_here": True,
    "by": "manifest",
    "manifest": "ours",
    "sentence": "It was made here and is as it was delivered: its manifest is signed by us.",
}
PROBLEM = {
    "title": "Too Many Requests",
    "status": 429,
    "detail": "There is too much to do before this deadline; try again later.",
    "reason": "backlog",
    "request_id": _REQUEST_ID,
    "retry_after_s": 12,
}


def page(item: dict[str, Any]) -> dict[str, Any]:
    """A list with one item and no more."""
    return {"data": [item], "next": None}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


EVENTS = (
    _event("state", {"state": "running", "position": None, "attempt": 1})
    + _event("progress", {"attempt": 1, "stage": "denoise", "done": 24, "total": 60})
    + _event("preview", {"attempt": 1, "png": "BASE64"})
    + _event(
        "candidate",
        {"attempt": 1, "index": 0, "accepted": False, "reason": "no_face", "sentence": "No face was found."},
    )
    + _event("state", {"state": "succeeded", "position": None, "attempt": 1})
    + _event("end", JOB)
)

ANSWERS = {
    "JobView": JOB,
    "JobPage": page(JOB),
    "IdentityView": IDENTITY,
    "IdentityPage": page(IDENTITY),
    "ErasureView": ERASURE,
    "StyleView": STYLE,
    "StyleList": STYLES,
    "UsageList": USAGE,
    "Health": HEALTH,
    "OpenAIImages": OPENAI_ANSWER,
    "ProvenanceView": PROVENANCE,
    "Problem": PROBLEM,
}
"""By the name of the model that they are an example of."""
