"""Keys of units of work: the same inputs, settings, weights and library give the same key, anything else
another.

A unit (`Album`, `Identity`, `Order`) whose key has a completion record is done, so a key holds exactly what
can change the unit's bytes, and nothing that cannot: how many actors share the work is left out, and how often it is
saved.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

import studiolo

PLAN_FIELDS = frozenset(
    {
        "actors",
        "cpus_per_actor",
        "orders_in_flight",
        "workers",
        "cpus_per_worker",
        "checkpoint_seconds",
        "gradient_checkpointing",
        "kohya_file",
        "time_limit_s",
        "memory_limit_mib",
        "rows_per_shard",
    }
)
"""Settings that only say how the work is spread, saved and watched; they change no byte of the result."""


def canonical_json(value: Any) -> str:
    """One text for one value: sorted names, no blanks, ASCII only. NaN and infinities raise `ValueError`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def unit_key(
    kind: str,
    inputs: Sequence[Any],
    settings: Mapping[str, pydantic.BaseModel],
    weights_sha256: Mapping[str, str],
    seed: int = 0,
) -> str:
    """sha256 (64 hex digits) of everything that decides the bytes of one unit.

    `kind` names the unit's type; `inputs` are content hashes or rows of them (JSON values, order counts);
    `settings` the sections it reads, by name; `weights_sha256` the sha256 of every weight file it uses, by
    name.
    """
    content = {
        "kind": kind,
        "inputs": list(inputs),
        "settings": {name: _content(section) for name, section in settings.items()},
        "weights": dict(weights_sha256),
        "seed": seed,
        "version": studiolo.__version__,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _content(section: pydantic.BaseModel) -> dict[str, Any]:
    values = section.model_dump(mode="json")
    return {name: value for name, value in values.items() if name not in PLAN_FIELDS}
