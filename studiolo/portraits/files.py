"""Portrait files: PNG with the settings that made it inside, and nothing that differs between two equal
runs.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from studiolo.errors import StoreError
from studiolo.keys import canonical_json

SETTINGS_KEY = "studiolo"
"""Name of the PNG text with all settings as JSON."""
PARAMETERS_KEY = "parameters"
"""Name of the PNG text that web interfaces for diffusion models show."""

_HEAD_BYTES = 64
"""Our text is a PNG's second chunk, after 33 bytes."""
_LABELS = {"steps": "Steps", "guidance_scale": "CFG scale", "seed": "Seed"}


def encode_portrait(rgb_u8: npt.NDArray[np.uint8], settings: Mapping[str, Any]) -> bytes:
    """PNG of `rgb_u8` [H, W, 3] with `settings` (JSON values; no times, no run ids) inside.

    The same picture and settings give the same bytes. Settings that are not JSON raise `TypeError` or
    `ValueError`.
    """
    info = PngInfo()
    info.add_itxt(SETTINGS_KEY, canonical_json(settings))
    info.add_text(PARAMETERS_KEY, parameters_text(rgb_u8.shape[1], rgb_u8.shape[0], settings))
    buffer = io.BytesIO()
    Image.fromarray(rgb_u8).save(buffer, "PNG", pnginfo=info, compress_level=6)
    return buffer.getvalue()


def decode_portrait(content: bytes) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Pixels [H, W, 3] and settings of a portrait file; `StoreError` when it is none of ours or damaged."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.load()
            rgb_u8 = np.asarray(image.convert("RGB"))
            text = image.text  # type: ignore[attr-defined]
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise StoreError(f"portrait file: {error}; wanted a PNG; delete it and run the job again") from None
    if SETTINGS_KEY not in text:
        raise StoreError(f"portrait file: got a PNG without the text {SETTINGS_KEY!r}, wanted one of our portraits")
    settings: dict[str, Any] = json.loads(text[SETTINGS_KEY])
    return rgb_u8, settings


def is_portrait(content: bytes) -> bool:
    """Whether `content` says of itself that it is a portrait file of ours; pixels are not decoded."""
    return content.startswith(b"\x89PNG") and f"iTXt{SETTINGS_KEY}\0".encode() in content[:_HEAD_BYTES]


def parameters_text(width_px: int, height_px: int, settings: Mapping[str, Any]) -> str:
    """The settings as diffusion web interfaces write them: prompt, negative prompt, then `Steps: 30, ...`."""
    lines = [str(settings.get("prompt", ""))]
    if settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {settings['negative_prompt']}")
    facts = [f"{label}: {settings[name]}" for name, label in _LABELS.items() if name in settings]
    lines.append(", ".join([*facts, f"Size: {width_px}x{height_px}"]))
    return "\n".join(lines)


def image_sha256(rgb_u8: npt.NDArray[np.uint8]) -> str:
    """sha256 (64 hex digits) over size and pixels: equal for equal pictures, however they are stored."""
    height, width, _ = rgb_u8.shape
    digest = hashlib.sha256(f"rgb8 {width}x{height}\0".encode())
    digest.update(np.ascontiguousarray(rgb_u8).tobytes())
    return digest.hexdigest()
