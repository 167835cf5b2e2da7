"""Plots of a release's card, each a PNG made from the card's figures: the same figures, the same picture."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studiolo.datasets.captions.findings import GENDERS
from studiolo.datasets.figures import DECADES, NOT_SURE, QUALITY_BINS, Figures

_INK, _FAINT, _PAPER, _LINE = "#26231f", "#6b635a", "#ffffff", "#e2dcd1"
_ACCENT = "#2f6f6a"
_OF_GENDER = {"woman": "#c0694f", "man": "#2f6f6a", NOT_SURE: "#bcb3a6"}
_DPI = 110


def age_and_gender(figures: Figures) -> bytes:
    """Ages by decade, each bar divided by gender, and the genders of all, as in ConsistentID's figure 4."""
    figure, (left, right) = _axes(9.0, 3.4, (2.6, 1.0))
    bottom = np.zeros(len(DECADES))
    for gender in (*GENDERS, NOT_SURE):
        counts = np.array([figures["age"][decade][gender] for decade in DECADES], np.float64)
        left.bar(DECADES, counts, bottom=bottom, color=_OF_GENDER[gender], label=gender, width=0.78)
        bottom += counts
    left.set(title="Estimated age and gender", xlabel="years", ylabel="pictures")
    left.legend(frameon=False, fontsize=9, labelcolor=_INK)
    names = list(figures["gender"])
    _bars(right, names, [figures["gender"][name] for name in names], [_OF_GENDER[name] for name in names])
    right.set(title="Gender", xlabel="pictures")
    return _png(figure)


def identity_sizes(figures: Figures) -> bytes:
    """How many identities have how many pictures."""
    figure, (axes,) = _axes(6.2, 3.2)
    sizes = figures["identities"]["sizes"]
    places = axes.bar(list(sizes), list(sizes.values()), color=_ACCENT, width=0.78)
    axes.bar_label(places, padding=2, fontsize=9, color=_FAINT)
    axes.set(title="Identities by size", xlabel="pictures of one identity", ylabel="identities")
    axes.margins(y=0.14)
    return _png(figure)


def parts_found(figures: Figures) -> bytes:
    """In what share of the pictures each part was found."""
    figure, (axes,) = _axes(6.2, 3.2)
    parts = list(figures["parts"])
    _bars(axes, parts, [figures["parts"][part]["share"] for part in parts], [_ACCENT] * len(parts))
    axes.set(title="Parts found", xlabel="share of pictures", xlim=(0, 1.12))
    return _png(figure)


def quality(figures: Figures) -> bytes:
    """The distribution of the quality score."""
    figure, (axes,) = _axes(6.2, 3.2)
    counts = figures["quality"]["histogram"]
    axes.bar(np.arange(QUALITY_BINS) / QUALITY_BINS, counts, 0.92 / QUALITY_BINS, align="edge", color=_ACCENT)
    for quartile in figures["quality"]["quartiles"]:
        axes.axvline(quartile, color=_INK, lw=0.9, ls=(0, (3, 3)))
    axes.set(title="Quality, with its quartiles", xlabel="score", ylabel="pictures", xlim=(0, 1))
    return _png(figure)


def reasons(figures: Figures) -> bytes:
    """How many pictures were left out, and why."""
    counts = figures["reasons"] or {"none": 0}
    figure, (axes,) = _axes(6.2, 0.9 + 0.34 * max(len(counts), 3))
    _bars(axes, [name.replace("_", " ") for name in counts], list(counts.values()), ["#9a5b13"] * len(counts))
    axes.set(title="Left out, by reason", xlabel="pictures")
    return _png(figure)


PLOTS: dict[str, tuple[str, Callable[[Figures], bytes]]] = {
    "age-gender.png": ("Estimated age and gender", age_and_gender),
    "identity-sizes.png": ("Identities by the number of their pictures", identity_sizes),
    "parts.png": ("Share of pictures in which each part was found", parts_found),
    "quality.png": ("Distribution of the quality score", quality),
    "reasons.png": ("Pictures left out, by reason", reasons),
}
"""File name of each plot, what it shows, and its maker."""


def png_of(rgb_u8: NDArray[np.uint8]) -> bytes:
    """A picture [H, W, 3] as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(rgb_u8).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _axes(width_in: float, height_in: float, widths: Sequence[float] = (1.0,)) -> tuple[Any, Sequence[Any]]:
    """A figure and its axes, side by side. Without pyplot: nothing is left behind in the process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    row = figure.subplots(1, len(widths), squeeze=False, gridspec_kw={"width_ratios": list(widths)})[0]
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_LINE)
        axes.tick_params(colors=_FAINT, labelsize=9, length=0)
        axes.title.set_color(_INK)
        axes.xaxis.label.set_color(_FAINT)
        axes.yaxis.label.set_color(_FAINT)
    return figure, row


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    """Lying bars, the first on top, each with its value."""
    places = axes.barh(range(len(names)), values, color=list(colours), height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.bar_label(places, [f"{value:,}" for value in values], padding=3, fontsize=9, color=_FAINT)
    axes.margins(x=0.18)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
