"""The style space as a map (paper: Fig. 10) with the numbers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from xfavot.errors import DataError
from xfavot.evaluation.style_space import KINDS, Array, StyleSpace
from xfavot.viz.drawing import FAINT, INK, RULE, Drawing, styled

MARKERS = ("o", "^")  # faces, voices
FOLDS = 20  # colours of the map before they repeat
SIDE, RIGHT = 4.9, 2.6  # inches of the map, of the numbers
SHOWN = (
    "silhouette by speaker",
    "silhouette by modality",
    "modality gap",
    "cosine, face and voice of one person",
    "cosine, of two people",
    "cosine, of two people of one sex",
    "R@1, gallery of single samples",
    "R@1 within one sex, gallery of single samples",
)


@styled
def style_map(
    space: StyleSpace, plane: Array, rows: Sequence[Mapping[str, Any]], *, title: str, note: str
) -> Drawing:
    """Draw the style of every face and voice, a colour a speaker.

    Args:
        space: the styles.
        plane: (n, 2) of :func:`xfavot.evaluation.style_space.embed`.
        rows: of :func:`xfavot.evaluation.style_space.measures`.
        title: above.
        note: at the foot.

    Raises:
        DataError: not one point a style.
    """
    if len(plane) != len(space.styles):
        raise DataError(
            f"style map: got {len(plane)} points for {len(space.styles)} styles; expected as many; "
            "embed the same space"
        )
    width, height = SIDE + RIGHT, SIDE + 0.75
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.2 / width, 0.3 / height, SIDE / width, SIDE / height))
    colours = mpl.colormaps["tab20"](np.arange(len(space.speakers)) % FOLDS)
    for code, name in enumerate(space.speakers):
        for kind, marker in enumerate(MARKERS):
            chosen = (space.speaker == code) & (space.kind == kind)
            axes.scatter(
                plane[chosen, 0], plane[chosen, 1], s=26 if kind else 20, marker=marker,
                color=colours[code],
                edgecolors="white" if kind == 0 else INK, linewidths=0.4, zorder=2 + kind,
            )  # fmt: skip
        own = plane[space.speaker == code]
        axes.annotate(
            f"{name.rsplit('/', 1)[-1]} ({space.genders[code]})",
            (float(np.median(own[:, 0])), float(own[:, 1].max())), (0, 4.5), ha="center",
            textcoords="offset points", fontsize=6.8, color=INK, zorder=9,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.margins(0.07)
    for spine in axes.spines.values():
        spine.set(visible=True, color=RULE)
    handles = [
        Line2D([], [], marker=marker, linestyle="", color=FAINT, markersize=5, label=f"{kind}s")
        for kind, marker in zip(KINDS, MARKERS, strict=True)
    ]
    place = ((SIDE + 0.35) / width, (SIDE + 0.38) / height)
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=place, title="A colour a speaker",
        title_fontsize=7.5, alignment="left", borderpad=0.0,
    )  # fmt: skip
    figure.text(0.2 / width, 1 - 0.28 / height, title, fontsize=11, weight="bold", color=INK)
    figure.text(0.2 / width, 0.1 / height, note, fontsize=6.5, color=FAINT)
    _numbers(figure, rows, (width, height))
    return Drawing(figure)


def _numbers(figure: Figure, rows: Sequence[Mapping[str, Any]], size: tuple[float, float]) -> None:
    """Write the measures on the right, a line each."""
    width, height = size
    left, right, y = SIDE + 0.37, SIDE + RIGHT - 0.2, SIDE - 0.55
    for row in (row for row in rows if row["metric"] in SHOWN):
        metric = row["metric"].replace(", gallery of single samples", "").replace(
            "cosine, face and voice of one", "cosine, one")  # fmt: skip
        name = metric if row["task"] == "styles" else f"{metric}, {row['task']}"
        figure.text(left / width, y / height, name, fontsize=7, color=INK)
        value = round(row["value"], 2) + 0.0  # no -0.00
        figure.text(right / width, y / height, f"{value:.2f}", fontsize=7.5, weight="bold",
                    ha="right", color=INK)  # fmt: skip
        y -= 0.21
    lines = (
        "Silhouettes are from -1 to 1: by speaker",
        "1 is best, by modality 0 (mixed). The gap",
        "is the distance of the modalities' means,",
        "from 0 to 2. R@1 is of one sample a person.",
    )
    for line in lines:
        figure.text(left / width, (y - 0.1) / height, line, fontsize=6.3, color=FAINT)
        y -= 0.14
