"""Columns as Hugging Face's card head lists them, so that `datasets` opens pictures and masks as pictures."""

from typing import Any

import pyarrow as pa

PICTURES = ("image", "mask")
"""Columns of encoded pictures."""

_NAMES = {pa.string(): "string", pa.bool_(): "bool", pa.int32(): "int32", pa.float32(): "float32"}


def hub_features(schema: pa.Schema) -> list[dict[str, Any]]:
    """The value of `dataset_info.features` for a table of `schema`."""
    return [
        {"name": field.name, **({"dtype": "image"} if field.name in PICTURES else _feature(field.type))}
        for field in schema
    ]


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"struct": _members(kind)}
    if not pa.types.is_list(kind):
        return {"dtype": _NAMES[kind]}
    inner = kind.value_type
    return {"list": _members(inner) if pa.types.is_struct(inner) else _NAMES[inner]}


def _members(kind: pa.DataType) -> list[dict[str, Any]]:
    return [{"name": member.name, **_feature(member.type)} for member in kind]
