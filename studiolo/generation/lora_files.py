"""LoRA files that strangers send: inspected before anything loads them, and written anew.

Nothing here is torch, diffusers or safetensors: a file's header is read as the JSON it is, within bounds, each tensor
has to be one of a layer that the base has, and what is kept is a file of our own that holds these numbers and nothing
else. Known are the names that kohya's trainer, diffusers and peft write, as `studiolo.generation.adapters` reads them.

A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON), and the tensors' bytes.

Shapes: R rank, I and O a layer's inputs and outputs.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from studiolo.errors import UnacceptableError, WeightsError

Layers = Mapping[str, tuple[int, int]]
"""[O, I] of every layer of a base that is one matrix, by its name behind `unet.` or `text_encoder.`."""

_MAX_HEADER_BYTES = 2 * 2**20
"""Of a LoRA; kohya's trainer writes the tags of all its pictures into it."""
_MAX_BASE_HEADER_BYTES = 16 * 2**20
_MAX_TENSOR_SIDE = 2**20
_MAX_ALPHA = 1e4
_MAX_PATTERNS = 10_000
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
"""Bytes of a number: what bases and alphas are kept in."""
_TAKEN = ("F32", "F16", "BF16")
"""For factors."""
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_ENTRY = {"dtype", "shape", "data_offsets"}
_METADATA, _CONFIG = "__metadata__", "lora_adapter_metadata"
_DOWN, _UP = "lora_A", "lora_B"
_SIDES = {
    **{"lora_A": _DOWN, "lora.down": _DOWN, "lora_linear_layer.down": _DOWN, "lora_down": _DOWN},
    **{"lora_B": _UP, "lora.up": _UP, "lora_linear_layer.up": _UP, "lora_up": _UP},
}
_DIFFUSERS = re.compile(r"((?:unet|text_encoder)\..+?)\.(lora_A|lora_B|lora(?:_linear_layer)?\.(?:down|up))\.weight")
_KOHYA = re.compile(r"(lora_(?:unet|te)_\w+)\.(?:(lora_down|lora_up)\.weight|alpha)", re.ASCII)
_UNET, _TEXT, _TEXT_MODEL = "unet.", "text_encoder.", "text_encoder.text_model."
_EMBEDDINGS = re.compile(r"embeddings\.\w+_embedding$")


@dataclass(frozen=True)
class Inspected:
    """A LoRA that can be used."""

    content: bytes
    """The file that is kept: float32, peft's names, alpha folded in, no metadata."""
    rank: int
    """Largest of its layers."""
    layers: int
    """Layers of the base that it changes."""

    @property
    def sha256(self) -> str:
        """Of the file that is kept."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int


@dataclass(frozen=True)
class _Header:
    metadata: dict[str, str]
    tensors: dict[str, _Tensor]


def inspect_lora(file: IO[bytes], layers: Layers, max_rank: int) -> Inspected:
    """The LoRA in an open file, for a base with these `layers`.

    Raises `UnacceptableError`, with a sentence that says which tensor it is about, for a file that is no LoRA for this
    base: a header that is too long, lies, or is no header; tensors of other types than F32, F16 and BF16, of layers
    that there are not or are no matrices, without their other half, of shapes that do not fit, of a rank above
    `max_rank`, or with values that are not finite.
    """
    header = _read_header(file, _MAX_HEADER_BYTES)
    pairs, alphas = _sorted_out(header, layers)
    config = _config(header.metadata)
    factors: dict[str, NDArray[np.float32]] = {}
    most = 0
    for layer, sides in sorted(pairs.items()):
        rank = _checked_rank(layer, sides, layers[layer], max_rank)
        most = max(most, rank)
        alpha = _alpha(file, alphas.get(layer), config, layer, rank)
        for side, scale in ((_DOWN, 1.0), (_UP, alpha)):
            values = _values(file, sides[side], layer) * np.float32(scale)
            if not np.isfinite(values).all():
                raise _refused(f"{layer} has values that are no finite numbers.")
            factors[f"{layer}.{side}.weight"] = values
    return Inspected(_written(factors), most, len(pairs))


def base_layers(folder: Path) -> dict[str, tuple[int, int]]:
    """The layers of the base in a folder as diffusers writes it, from the headers of its files.

    Raises `WeightsError` for a folder that holds none.
    """
    found: dict[str, tuple[int, int]] = {}
    for part, prefix in (("unet", _UNET), ("text_encoder", _TEXT)):
        for path in sorted((folder / part).glob("*.safetensors")):
            with path.open("rb") as file:
                try:
                    tensors = _read_header(file, _MAX_BASE_HEADER_BYTES).tensors
                except UnacceptableError as error:
                    raise WeightsError(f"base {path}: {error}; verify its model card") from None
            for key, tensor in tensors.items():
                name, matrix = key.removesuffix(".weight"), _matrix(tensor.shape)
                if key != name and matrix is not None and not _EMBEDDINGS.search(name):
                    found[_plain(prefix + name)] = matrix
    if not any(name.startswith(_UNET) for name in found):
        raise WeightsError(f"base {folder}: got no unet/*.safetensors, wanted a base as diffusers saves it")
    return found


def of_layer(values: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """The value of the first key that is the layer's name or its end; peft takes keys for regular expressions, which a
    file could make run for ever.
    """
    return next((value for key, value in values.items() if f".{name}".endswith(f".{key}")), otherwise)


# The header


def _read_header(file: IO[bytes], most: int) -> _Header:
    """The header of a file, every word of it checked: the tensors lie one behind the other and fill the rest."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= size - 8:
        raise _refused("it is no safetensors file, or not all of it.")
    if length > most:
        raise _refused(f"its header has {length} bytes; at most {most} are taken.")
    try:
        values = json.loads(file.read(length).decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _refused("its header is no JSON.") from None
    if not isinstance(values, dict):
        raise _refused("its header is no JSON object.")
    metadata = values.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused("its metadata are no texts.")
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in values.items()}
    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].size)):
        if tensor.begin != end:
            raise _refused(f"tensor {_short(name)} does not begin where the one before it ends.")
        end += tensor.size
    if end != size:
        raise _refused(f"its tensors end at byte {end}, the file has {size}.")
    return _Header(metadata, tensors)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands twice")
    return values


def _tensor(name: str, entry: Any, start: int) -> _Tensor:
    if not isinstance(entry, dict) or set(entry) != _ENTRY:
        raise _refused(f"tensor {_short(name)} is not described by dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise _refused(f"tensor {_short(name)} is of type {_short(str(dtype))}; {', '.join(_TAKEN)} are taken.")
    sound = isinstance(shape, list) and len(shape) <= 4 and all(map(_is_side, shape))
    if not sound or not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_whole, offsets)):
        raise _refused(f"tensor {_short(name)} has a shape or a place that is none.")
    size = math.prod(shape) * _SIZES[dtype]
    if offsets[1] - offsets[0] != size:
        raise _refused(f"tensor {_short(name)} has {offsets[1] - offsets[0]} bytes, and {size} by its shape.")
    return _Tensor(dtype, tuple(shape), start + offsets[0], size)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_side(value: Any) -> bool:
    return _is_whole(value) and 1 <= value <= _MAX_TENSOR_SIDE


# Its tensors


def _sorted_out(header: _Header, layers: Layers) -> tuple[dict[str, dict[str, _Tensor]], dict[str, _Tensor]]:
    """The tensors of each layer by side, and its alpha where it has one. Raises `UnacceptableError` for any other."""
    kohya = dict(_kohya_names(layers))
    pairs: dict[str, dict[str, _Tensor]] = {}
    alphas: dict[str, _Tensor] = {}
    for key, tensor in header.tensors.items():
        layer, side = _place(key, kohya)
        if layer not in layers:
            raise _refused(f"{_short(key)} is no tensor of a LoRA for a layer of this base.")
        if side is not None and tensor.dtype not in _TAKEN:
            raise _refused(f"{_short(key)} is of type {tensor.dtype}; {', '.join(_TAKEN)} are taken.")
        slot, name = (alphas, layer) if side is None else (pairs.setdefault(layer, {}), side)
        if name in slot:
            raise _refused(f"{_short(key)} is there twice, in two spellings.")
        slot[name] = tensor
    for layer, sides in pairs.items():
        if set(sides) != {_DOWN, _UP}:
            raise _refused(f"{layer} has one of its two tensors only.")
    if not any(layer.startswith(_UNET) for layer in pairs) or not set(alphas) <= set(pairs):
        raise _refused("it changes no layer of the UNet.")
    return pairs, alphas


def _kohya_names(layers: Layers) -> Iterator[tuple[str, str]]:
    for layer in layers:
        if layer.startswith(_UNET):
            yield "lora_unet_" + layer.removeprefix(_UNET).replace(".", "_"), layer
        else:
            yield "lora_te_text_model_" + layer.removeprefix(_TEXT).replace(".", "_"), layer


def _place(key: str, kohya: Mapping[str, str]) -> tuple[str, str | None]:
    """Layer and side of a tensor's name, None for an alpha; an empty layer for a name that is none."""
    if matched := _DIFFUSERS.fullmatch(key):
        return _plain(matched[1]), _SIDES[matched[2]]
    if matched := _KOHYA.fullmatch(key):
        return kohya.get(matched[1], ""), _SIDES.get(matched[2] or "")
    return "", None


def _plain(name: str) -> str:
    """Without the `text_model.` that transformers has left out since its version 5."""
    return _TEXT + name.removeprefix(_TEXT_MODEL) if name.startswith(_TEXT_MODEL) else name


def _matrix(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """The shape of a linear layer's weight or a 1x1 convolution's as that of a matrix; None for any other."""
    if len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1)):
        return shape[0], shape[1]
    return None


def _checked_rank(layer: str, sides: Mapping[str, _Tensor], wanted: tuple[int, int], max_rank: int) -> int:
    down_RI, up_OR = (_matrix(sides[side].shape) for side in (_DOWN, _UP))
    if down_RI is None or up_OR is None or down_RI[0] != up_OR[1] or (up_OR[0], down_RI[1]) != wanted:
        got = " x ".join(str(list(sides[side].shape)) for side in (_UP, _DOWN))
        raise _refused(f"{layer} is {got}; the base's layer is {list(wanted)}.")
    if down_RI[0] > max_rank:
        raise _refused(f"{layer} has rank {down_RI[0]}; at most {max_rank} fit beside a face-LoRA.")
    return down_RI[0]


def _config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's configuration as diffusers keeps it in the header; empty when there is none."""
    if _CONFIG not in metadata:
        return {}
    try:
        config = json.loads(metadata[_CONFIG])
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise _refused(f"its {_CONFIG} is no JSON object.")
    return config


def _alpha(file: IO[bytes], own: _Tensor | None, config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What the product of the layer's factors is multiplied by: alpha / rank, 1 without an alpha."""
    prefix = _UNET if layer.startswith(_UNET) else _TEXT
    if own is not None:
        if math.prod(own.shape) != 1:
            raise _refused(f"the alpha of {layer} is no number.")
        alpha: Any = float(_values(file, own, layer).reshape(()))
    else:
        pattern = config.get(f"{prefix}alpha_pattern") or {}
        if not isinstance(pattern, dict) or len(pattern) > _MAX_PATTERNS:
            raise _refused(f"its {_CONFIG} has an alpha_pattern that is none.")
        alpha = of_layer(pattern, layer.removeprefix(prefix), config.get(f"{prefix}lora_alpha", rank))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= _MAX_ALPHA:
        raise _refused(f"the alpha of {layer} is no number up to {_MAX_ALPHA:g}.")
    root = own is None and config.get(f"{prefix}use_rslora") is True
    return float(alpha) / (math.sqrt(rank) if root else rank)


def _values(file: IO[bytes], tensor: _Tensor, layer: str) -> NDArray[np.float32]:
    """As float32, of the shape it has without further axes of 1."""
    file.seek(tensor.begin)
    content = file.read(tensor.size)
    if len(content) != tensor.size:
        raise _refused(f"the tensors of {layer} are not all there.")
    if tensor.dtype == "BF16":
        wide = np.frombuffer(content, "<u2").astype(np.uint32) << 16
        values: NDArray[np.float32] = wide.view(np.float32)
    else:
        values = np.frombuffer(content, _NUMPY[tensor.dtype]).astype(np.float32)
    return values.reshape(tensor.shape[:2])


def _written(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A safetensors file without metadata, the same bytes for the same tensors."""
    header: dict[str, Any] = {}
    begin = 0
    for name, values in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [begin, begin + values.nbytes]}
        begin += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    parts = (np.ascontiguousarray(values, "<f4").tobytes() for _, values in sorted(tensors.items()))
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _short(name: str) -> str:
    return ascii(name[:100])


def _refused(why: str) -> UnacceptableError:
    return UnacceptableError("lora", f"This LoRA cannot be used: {why}")
