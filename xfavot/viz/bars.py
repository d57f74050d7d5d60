"""Bars of timings: one a row of a table, medians with the range of the rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from xfavot.errors import DataError
from xfavot.report.tidy import rounded
from xfavot.viz.drawing import FAINT, INK, PALETTE, Drawing, styled

BAR_HEIGHT_IN = 0.21
LABEL_WIDTH_IN = 3.4


@styled
def timings(rows: Sequence[Mapping[str, Any]], *, label: str, title: str = "") -> Drawing:
    """Draw timings on a logarithmic scale.

    Args:
        rows: with ``system``, ``task``, ``value``, ``lowest``, ``highest`` (one unit, more than 0)
            and ``ratio``; rows of the first one's system have one colour, all others another.
        label: of the axis, with the unit.
        title: text above.

    Raises:
        DataError: no row.
    """
    if not rows:
        raise DataError("timings: got no row; expected at least one; measure something first")
    height = BAR_HEIGHT_IN * len(rows) + 0.9
    figure = Figure(figsize=(7.2, height))
    left, bottom = LABEL_WIDTH_IN / 7.2, 0.5 / height
    axes = figure.add_axes((left, bottom, 0.93 - left, 1 - bottom - 0.36 / height))
    for place, row in enumerate(rows):
        ours = row["system"] == rows[0]["system"]
        axes.barh(place, row["value"], height=0.62, color=PALETTE[0 if ours else 1])
        axes.plot([row["lowest"], row["highest"]], [place, place], color=INK, linewidth=1.0)
        note = f"{rounded(row['value'])}  ({rounded(row['ratio'])} x)"
        axes.annotate(
            note, (row["highest"], place), (4, 0), textcoords="offset points", va="center",
            fontsize=7, color=INK,
        )  # fmt: skip
    axes.set(xscale="log", xlabel=label, ylim=(len(rows) - 0.4, -0.6))
    lowest, highest = min(r["lowest"] for r in rows), max(r["highest"] for r in rows)
    axes.set_xlim(lowest / 2, highest * 5)
    axes.set_yticks(range(len(rows)), [f"{row['system']}: {row['task']}" for row in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter("{x:g}")
    figure.text(0.01, 1 - 0.2 / height, title, fontsize=9, weight="bold", color=INK)
    figure.text(0.01, 0.1 / height, "bar: median; line: lowest to highest round", fontsize=6.5,
                color=FAINT)  # fmt: skip
    return Drawing(figure)
