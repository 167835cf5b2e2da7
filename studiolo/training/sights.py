"""What ControlNets learn from: views of faces, what perception sees in each, and their latents.

Shapes: N views, C latent channels, h and w of the latents, S side of a view.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from studiolo.errors import TrainingError
from studiolo.perception.conditions import edge_picture, face_mask, face_width_px, joints_of, landmarks_of
from studiolo.perception.detect import Detector
from studiolo.perception.mesh import Mesher
from studiolo.perception.regions import paint_regions
from studiolo.settings import PerceptionSettings
from studiolo.training.cache import encode_images
from studiolo.training.faces import View

_REACH = (0.05, 0.2)
"""Least and most that the part without edges reaches beyond the face, in widths of the face."""
_ENCODED_AT_ONCE = 256
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Sight:
    """What ControlNets are shown of one view."""

    joints_px: NDArray[np.float64]
    """[5, 2]"""
    landmarks_px: NDArray[np.float64]
    """[68, 2]"""
    edges: NDArray[np.bool_]
    """[S, S]"""
    face: NDArray[np.bool_]
    """[S, S]: the face and a little around it, where edges are hidden from the network."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Views, seen and encoded once; their pixels are not kept."""

    mean_NChw: Tensor
    std_NChw: Tensor
    sights: Sequence[Sight]
    views: Sequence[View]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a file."""
        return {
            "mean": self.mean_NChw,
            "std": self.std_NChw,
            "joints": torch.from_numpy(np.stack([sight.joints_px for sight in self.sights])),
            "landmarks": torch.from_numpy(np.stack([sight.landmarks_px for sight in self.sights])),
            "edges": torch.from_numpy(np.packbits(np.stack([sight.edges for sight in self.sights]), axis=-1)),
            "face": torch.from_numpy(np.packbits(np.stack([sight.face for sight in self.sights]), axis=-1)),
            "words": [(view.trigger, list(view.tags), list(view.style)) for view in self.views],
            "side_px": len(self.sights[0].edges),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Examples":
        """Those of a `state_dict`."""
        side_px = state["side_px"]
        edges, face = (np.unpackbits(state[name].numpy(), axis=-1, count=side_px) > 0 for name in ("edges", "face"))
        sights = zip(state["joints"].numpy(), state["landmarks"].numpy(), edges, face, strict=True)
        views = [View(_NO_PIXELS, trigger, tuple(tags), tuple(style)) for trigger, tags, style in state["words"]]
        return cls(state["mean"], state["std"], [Sight(*parts) for parts in sights], views)


def see(
    rgb_u8: NDArray[np.uint8], reach: float, detector: Detector, mesher: Mesher, settings: PerceptionSettings
) -> Sight | None:
    """What there is to show of a view [S, S, 3] of one face; None when no face is clear.

    Edges are hidden in the face and in `reach` of its width around it.
    """
    for found in detector(rgb_u8, settings.detector_score)[:1]:
        mesh = mesher(rgb_u8, found.landmarks_px)
        if mesh.score >= settings.mesh_score:
            landmarks = landmarks_of(mesh.points_px)
            regions = paint_regions(mesh, np.ones(rgb_u8.shape[:2], np.float32))  # who is a person makes no face
            face = face_mask(regions, reach * face_width_px(landmarks))
            return Sight(joints_of(mesh.points_px), landmarks, edge_picture(rgb_u8)[..., 0] > 0, face)
    return None


def make_examples(
    base: StableDiffusionPipeline,
    views: Iterable[View],
    detector: Detector,
    mesher: Mesher,
    settings: PerceptionSettings,
    rng: np.random.Generator,
) -> Examples:
    """Look at all views and encode them; those without a clear face are left out.

    Raises `TrainingError` when none has one.
    """
    kept: list[View] = []
    sights: list[Sight] = []
    pixels: list[NDArray[np.uint8]] = []
    encoded: list[tuple[Tensor, Tensor]] = []
    for view in views:
        sight = see(view.rgb_u8, rng.uniform(*_REACH), detector, mesher, settings)
        if sight is None:
            continue
        kept.append(View(_NO_PIXELS, view.trigger, view.tags, view.style))
        sights.append(sight)
        pixels.append(view.rgb_u8)
        if len(pixels) == _ENCODED_AT_ONCE:
            encoded.append(encode_images(base, pixels))
            pixels.clear()
    if not sights:
        raise TrainingError("ControlNets: got no view with a clear face, wanted pictures of one face each")
    encoded += [encode_images(base, pixels)] if pixels else []
    means, stds = zip(*encoded, strict=True)
    return Examples(torch.cat(means), torch.cat(stds), sights, kept)
